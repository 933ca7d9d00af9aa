"""Options: each defined once, as a field of the part that it sets.

A field made by `option` carries its help, its choices and its range. What is refused, the panel of
the server and the help of the command line are made from that.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from heatmask.errors import OptionError

Part = TypeVar("Part")


@dataclass(frozen=True)
class Option:
    """What a user may set.

    Attributes
    ----------
    name : str
    default : bool, int, float, str or None
        Its type is the type of the option; None stands for "left out".
    help : str
        One sentence.
    choices : tuple
        What it may be; empty for anything of its type.
    low, high : float
        Range of a number.
    optional : bool
        Whether it may be None.
    in_panel : bool
        Whether a viewer offers it.
    hint : str
        What else to say where a value is refused, such as what an earlier one is now.
    """

    name: str
    default: Any
    help: str = ""
    choices: tuple[Any, ...] = ()
    low: float = -math.inf
    high: float = math.inf
    optional: bool = False
    in_panel: bool = False
    hint: str = ""

    def check(self, value: Any) -> None:
        """Raise `OptionError` unless `value` may be given."""
        if not self._accepts(value):
            refusal = f"{self.name} must be {self.describe()}, got {value!r}. {self.hint}"
            raise OptionError(refusal.rstrip())

    def _accepts(self, value: Any) -> bool:
        if value is None:
            return self.optional
        if self.choices:
            return not isinstance(value, bool | list) and value in self.choices
        if isinstance(self.default, bool):
            return value in (True, False)  # the text "false" would count as true
        if isinstance(self.default, str):
            return isinstance(value, str | list | tuple)
        kind = int if isinstance(self.default, int) else int | float
        number = isinstance(value, kind) and not isinstance(value, bool)
        return number and math.isfinite(value) and self.low <= value <= self.high

    def describe(self) -> str:
        """Say what it may be: "at least 0", "one of otsu, level"."""
        if self.choices:
            return f"one of {', '.join(map(str, self.choices))}"
        if isinstance(self.default, bool):
            return "true or false"
        if isinstance(self.default, str):
            return "text"
        words = ["a whole number"] if isinstance(self.default, int) else []
        if math.isfinite(self.high):
            words = [words[0] if words else "a number", f"from {self.low:g} to {self.high:g}"]
        elif math.isfinite(self.low):
            words += [f"of at least {self.low:g}" if words else f"at least {self.low:g}"]
        return (" ".join(words) or "a number") + " or none" * self.optional


def option(default: Any, help: str, **how: Any) -> Any:
    """Return a field of a dataclass that is an option; `how` as the attributes of `Option`."""
    return field(default=default, metadata={"help": help, **how})


def list_options(*parts: type) -> dict[str, Option]:
    """Return the options of some parts by name."""
    return {
        f.name: Option(f.name, f.default, **f.metadata)
        for part in parts
        for f in fields(part)
        if f.metadata
    }


def check_options(part: Any) -> None:
    """Raise `OptionError` unless every option of a part has a value that it may have."""
    for name, found in list_options(type(part)).items():
        found.check(getattr(part, name))


def take_options(options: Mapping[str, Any], part: type) -> dict[str, Any]:
    """Return those of the options that are a part's."""
    names = {f.name for f in fields(part)}
    return {name: value for name, value in options.items() if name in names}


def take_part(part: type[Part], options: Mapping[str, Any]) -> Part:
    """Return a part with those of the options that are its own."""
    return part(**take_options(options, part))


def name_options(parts: Iterable[type]) -> set[str]:
    """Return the names of all fields of some parts."""
    return {f.name for part in parts for f in fields(part)}
