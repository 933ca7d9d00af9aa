"""Open a bundle's configs from Python, with knobs overridden, as `monai.bundle run` does."""

import inspect
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from pydoc import locate
from typing import TYPE_CHECKING, Any

from heatmask.errors import OptionError, reveal_reason

if TYPE_CHECKING:
    from monai.bundle import ConfigParser

CONFIG_SYMBOLS = ("$", "@", "%")
"""First characters that MONAI's config parser acts on: expression, reference, macro."""


def read_bundle(
    bundle: Path, configs: Sequence[str] = ("inference",), knobs: Mapping[str, Any] | None = None
) -> "ConfigParser":
    """Read configs of a bundle, later ones over earlier ones, and set its knobs.

    Parameters
    ----------
    bundle
        The bundle's folder.
    configs
        File names below ``configs`` without ``.json``.
    knobs
        New values of ids of the configs: those at the top level, or below one, as in
        ``network_def#features``.

    Raises
    ------
    OptionError
        A knob is not in the config, or its value is text that MONAI would evaluate.
    """
    from monai.bundle import ConfigParser  # Takes seconds; the command's --help needs none of it

    parser = ConfigParser()
    parser.read_config([str(bundle / "configs" / f"{name}.json") for name in configs])
    for name, value in (knobs or {}).items():
        _check_knob(name, value, parser)
        parser[name] = value
    parser["bundle_root"] = str(bundle)
    return parser


def _list_below(item: Any) -> list[str]:
    """Return what can be set below an item of a config: what is there, and further arguments."""
    if isinstance(item, list):
        return [str(index) for index in range(len(item))]
    if not isinstance(item, dict):
        return []
    target = locate(str(item.get("_target_", "")))
    return list(dict.fromkeys([*item, *_list_arguments(target)]))


def _list_arguments(target: Any) -> list[str]:
    """Return the arguments of a callable; of a class that hands some on, its parent's too."""
    if not callable(target):
        return []
    arguments = inspect.signature(target).parameters.values()
    names = [a.name for a in arguments if a.kind is not inspect.Parameter.VAR_KEYWORD]
    if inspect.isclass(target) and len(names) < len(arguments):
        names += _list_arguments(target.__base__)
    return names


def run_bundle(parser: "ConfigParser", item: str = "run") -> Any:
    """Build and return a config item; a `HeatmaskError` comes out as itself.

    MONAI wraps an error once for each item that depends on the one that failed.
    """
    with reveal_reason():
        return parser.get_parsed_content(item)


def _check_knob(name: str, value: Any, parser: "ConfigParser") -> None:
    known = list(parser.get())
    parent = name.rpartition("#")[0]
    if parent and parent in parser:
        known = [f"{parent}#{n}" for n in _list_below(parser[parent])]
    if name not in known:
        close = ", ".join(get_close_matches(name, known, cutoff=0.5)) or ", ".join(known)
        raise OptionError(
            f"A knob must be an id of the bundle's config, got {name!r}. Try: {close}."
        )
    if isinstance(value, str) and value.startswith(CONFIG_SYMBOLS):
        raise OptionError(
            f"{name} must not begin with {', '.join(CONFIG_SYMBOLS)}, got {value!r}: MONAI would "
            "evaluate it. Put ./ before a path."
        )
