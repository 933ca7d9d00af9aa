"""The options panel: what a request may set, and to what.

A value of a request ends up in the bundle's config, where MONAI would evaluate a string
that starts with ``$``. So only the options below get there, each checked for its type and
range, and no text that MONAI's parser would read as code, reference or macro.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from heatmask.bundle import CONFIG_SYMBOLS
from heatmask.errors import OptionError
from heatmask.geometry import SLICE_AXES

Value = bool | float | str

RANGES: dict[str, tuple[float, float]] = {
    "threshold_level": (-100.0, 100.0),
    "min_volume_mm3": (0.0, 1e7),
    "gate_probability": (0.0, 1.0),
    "overlap": (0.0, 0.9),
}
"""Lowest and highest value of the numeric options, by name; others must only be finite."""

HOST_KEYS = frozenset(
    "model image image_path description client_id session logging timeout "
    "label_tag save_label label_info restore_label_idx "
    "result_extension result_dtype result_compress result_write_to_file "
    "images multi_gpu gpus max_workers max_batch_size _id _image_id".split()
)
"""Fields that MONAI Label and its clients put into every request beside the options."""


@dataclass(frozen=True)
class Option:
    """One line of the options panel.

    Attributes
    ----------
    name : str
        As in the bundle's config.
    default : bool, float or str
        Its type is the type of the option.
    choices : tuple of str
        What a text option may be, the default first; empty for the others.
    """

    name: str
    default: Value
    choices: tuple[str, ...] = ()

    @property
    def panel_value(self) -> Value | list[str]:
        """What the host shows: a check box, a line to edit, or a list whose first item counts."""
        return list(self.choices) if self.choices else self.default

    def parse(self, value: Any) -> Value:
        """Return the value of a request in the option's type.

        A list stands for its first item: clients send the panel's lists back as they came.

        Raises
        ------
        OptionError
            The value has another type, is out of range, or is none of the choices.
        """
        value = value[0] if isinstance(value, list) and value else value
        if isinstance(value, str) and value.strip().startswith(CONFIG_SYMBOLS):
            raise OptionError(
                f"{self.name} must not start with one of {' '.join(CONFIG_SYMBOLS)}, "
                f"got {value!r}. {self._describe()}"
            )
        if self.choices:
            return self._parse_choice(value)
        return (
            self._parse_flag(value) if isinstance(self.default, bool) else self._parse_number(value)
        )

    def _parse_choice(self, value: Any) -> str:
        if value not in self.choices:
            raise OptionError(f"{self._describe()} Got {value!r}.")
        return str(value)

    def _parse_flag(self, value: Any) -> bool:
        word = str(value).lower()
        if word not in ("true", "false"):
            raise OptionError(f"{self._describe()} Got {value!r}.")
        return word == "true"

    def _parse_number(self, value: Any) -> float:
        low, high = self._range
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not low <= number <= high:
            raise OptionError(f"{self._describe()} Got {value!r}.")
        return number

    @property
    def _range(self) -> tuple[float, float]:
        return RANGES.get(self.name, (-1e9, 1e9))

    def _describe(self) -> str:
        if self.choices:
            return f"{self.name} must be one of {', '.join(self.choices)}."
        if isinstance(self.default, bool):
            return f"{self.name} must be true or false."
        low, high = self._range
        return f"{self.name} must be a number from {low:g} to {high:g}."


def build_panel(shown: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Option]:
    """Return the options of a bundle by name, each with the bundle's own default.

    Parameters
    ----------
    shown
        The bundle's ``displayable_configs``. A list gives the choices of a text option; for
        a number or a bool only the name counts.
    config
        The bundle's config, which holds the value of each name at its top level. It decides
        the default, so that a scan gets the same mask in the viewer as on the command line.

    Raises
    ------
    OptionError
        A name shown is no option of the bundle, or its default is none of its choices.
    """
    panel = {}
    for name, value in shown.items():
        if name not in config:
            raise OptionError(
                f"displayable_configs must name top-level values of inference.json, got '{name}'. "
                "Add it there or remove it from displayable_configs."
            )
        panel[name] = _build_option(name, value, config[name])
    return panel


def _build_option(name: str, shown: Any, default: Any) -> Option:
    if name == "slice_axis":
        names = {axis: word for word, axis in SLICE_AXES.items()}
        return _build_choice(name, list(SLICE_AXES), names.get(default, default))
    if isinstance(shown, list):
        return _build_choice(name, shown, default)
    if not isinstance(default, bool | int | float):
        raise OptionError(f"{name} must be a bool, a number or a list of choices, got {default!r}.")
    return Option(name, default if isinstance(default, bool) else float(default))


def _build_choice(name: str, choices: list[str], default: Any) -> Option:
    if default not in choices:
        raise OptionError(f"{name} must be one of {', '.join(choices)}, got {default!r}.")
    return Option(name, default, (default, *(c for c in choices if c != default)))


def read_options(
    panel: Mapping[str, Option], request: Mapping[str, Any]
) -> tuple[dict[str, Value], list[str]]:
    """Return the value of every option of the panel, and warnings.

    An option that the request leaves out has its default. A field that is neither an option
    nor the host's own is left alone, and a warning names it.

    Raises
    ------
    OptionError
        A value does not fit its option.
    """
    values = {
        name: option.parse(request[name]) if name in request else option.default
        for name, option in panel.items()
    }
    unknown = sorted(set(request) - set(panel) - HOST_KEYS)
    warnings = []
    if unknown:
        warnings.append(
            f"Ignored what is no option of this model: {', '.join(unknown)}. "
            f"Its options: {', '.join(panel)}."
        )
    return values, warnings


def to_config(values: Mapping[str, Value]) -> dict[str, Value | int]:
    """Return option values as the bundle's config has them: the slice axis by its number."""
    config: dict[str, Value | int] = dict(values)
    if "slice_axis" in config:
        config["slice_axis"] = SLICE_AXES[str(config["slice_axis"])]
    return config
