"""The options panel: what a request may set, and to what.

A value of a request ends up in the bundle's config, where MONAI would evaluate a string
that starts with ``$``. So only the options of the panel get there, each checked for its type and
range, and no text that MONAI's parser would read as code, reference or macro.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from heatmask.bundle import CONFIG_SYMBOLS
from heatmask.errors import OptionError
from heatmask.geometry import SLICE_AXES
from heatmask.options import Option

Value = bool | float | str

HOST_KEYS = frozenset(
    "model image image_path description client client_id session logging timeout "
    "label_tag save_label label_info restore_label_idx "
    "result_extension result_dtype result_compress result_write_to_file "
    "images multi_gpu gpus max_workers max_batch_size _id _image_id".split()
)
"""Fields that MONAI Label and its clients put into every request beside the options."""


def build_panel(offered: Mapping[str, Option]) -> dict[str, Option]:
    """Return the options of a bundle as viewers show them: words, the default first.

    Raises
    ------
    OptionError
        A bundle's own value is none that the option may have.
    """
    panel = {}
    for name, option in offered.items():
        option.check(option.default)
        shown = option
        if name == "slice_axis":
            words = {axis: word for word, axis in SLICE_AXES.items()}
            shown = replace(option, choices=tuple(SLICE_AXES), default=words[option.default])
        others = [choice for choice in shown.choices if choice != shown.default]
        panel[name] = replace(shown, choices=(shown.default, *others) if others else ())
    return panel


def show_option(option: Option) -> Value | list[str]:
    """Return what the host shows: a check box, a line to edit, or a list, its first item set."""
    return list(option.choices) if option.choices else option.default


def parse_option(option: Option, value: Any) -> Value:
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
            f"{option.name} must not start with one of {' '.join(CONFIG_SYMBOLS)}, got {value!r}."
        )
    if isinstance(value, str) and not option.choices:
        word = value.lower()
        if isinstance(option.default, bool):
            value = {"true": True, "false": False}.get(word, value)
        else:
            with suppress(ValueError):
                value = float(value)
    if isinstance(option.default, int) and isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(option.default, bool) and not isinstance(value, bool):
        value = str(value)  # 1 is no switch
    option.check(value)
    return value if isinstance(value, type(option.default)) else float(value)


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
        name: parse_option(option, request[name]) if name in request else option.default
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
