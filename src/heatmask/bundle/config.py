"""Open a bundle's configs from Python, with options set, as `monai.bundle run` does."""

import inspect
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from pydoc import locate
from typing import TYPE_CHECKING, Any, TypeVar

from heatmask.bundle.find import read_metadata
from heatmask.errors import OptionError, reveal_reason

if TYPE_CHECKING:
    from monai.bundle import ConfigParser

CONFIG_SYMBOLS = ("$", "@", "%")
"""First characters that MONAI's config parser acts on: expression, reference, macro."""
_PLACES = ("_meta_", "bundle_root", "input", "dataset_dir", "output_dir", "dataset", "network")
"""What says where a run takes place, and not what is done; a report names these itself."""
_PLAIN = (dict, list, str, int, float, type(None))
_RUN = (
    "input", "dataset_dir", "pattern", "output_dir", "device", "weights", "class_names",
    "calibration",
)  # fmt: skip
"""Options of a run beside those of the parts."""
_ABSENT = object()
Kind = TypeVar("Kind")


def read_bundle(
    bundle: Path, configs: Sequence[str] = ("inference",), options: Mapping[str, Any] | None = None
) -> "ConfigParser":
    """Read configs of a bundle, later ones over earlier ones, and set its options.

    Parameters
    ----------
    bundle
        The bundle's folder.
    configs
        File names below ``configs`` without ``.json``.
    options
        New values of ids of the configs: those at the top level, or below one, as in
        ``network_def#features``.

    Raises
    ------
    OptionError
        An option is not in the config, or its value is text that MONAI would evaluate.
    """
    parser = _make_parser()
    parser.read_config([str(bundle / "configs" / f"{name}.json") for name in configs])
    parser["bundle_root"] = str(bundle)
    # What lies below another item comes last: which options a method has depends on the method.
    for name, value in sorted((options or {}).items(), key=lambda item: item[0].count("#")):
        _check_option(name, value, parser)
        parser[name] = value
    return parser


def _make_parser() -> "ConfigParser":
    """Return a parser that is not disturbed by a thread that imports: MONAI's fails then."""
    from monai.bundle import (  # Takes seconds; the command's --help needs none of it
        ComponentLocator,
        ConfigParser,
    )

    class Locator(ComponentLocator):
        """Looks again where `sys.modules` has grown meanwhile."""

        def _find_module_names(self) -> list[str]:
            while True:
                with suppress(RuntimeError):
                    return list(super()._find_module_names())

    parser = ConfigParser()
    parser.locator = Locator(excludes=parser.locator.excludes)
    return parser


def run_bundle(parser: "ConfigParser", item: str = "run") -> Any:
    """Build and return a config item; a `HeatmaskError` comes out as itself.

    MONAI wraps an error once for each item that depends on the one that failed.
    """
    with reveal_reason():
        return parser.get_parsed_content(item)


def find_bundle_root() -> str:
    """Return the folder of the bundle that MONAI is running, for the config of it.

    MONAI does not tell a config where it lies. The workflow that reads it knows, and is at work
    further up the stack. Where there is none, as with a `ConfigParser` alone, it is the working
    directory, unless ``bundle_root`` is given.
    """
    from monai.bundle import ConfigWorkflow

    workflow = _find_caller(ConfigWorkflow)
    if workflow is None:
        return "."
    folder = workflow.config_root_path.absolute()
    return str(folder.parent if folder.name == "configs" else folder)


def read_options(bundle_root: str | Path, parts: Sequence[str] = ()) -> dict[str, Any]:
    """Return what the config that is being run sets of its options, by name.

    Those of inference, or those of reading and of further `parts`, which `list_parts` finds by
    their names in the config.

    An option is a top-level id whatever the bundle's file says of it, so that ``--gate False``
    reaches it. Called from a config, as its parser is found on the stack. `weights` are the
    bundle's own by default.
    """
    from monai.bundle import ConfigParser

    from heatmask.options import name_options
    from heatmask.parts import list_parts

    running = _find_caller(ConfigParser)
    if running is None:
        raise OptionError("read_options must be called from a bundle's config, and was not.")
    config = running.get()
    names = {*name_options(list_parts(config)), *_RUN} & config.keys()
    values = {name: running.ref_resolver.get_resolved_content(name) for name in names}
    weights = str(Path(bundle_root) / "models" / "model.pt")
    return {"bundle_root": str(bundle_root), "weights": weights, **values}


def describe_bundle(bundle_root: str | Path | None) -> tuple[str, str]:
    """Return name and version of the bundle in a folder; empty texts without one."""
    if bundle_root is None:
        return "", ""
    version = read_metadata(Path(bundle_root)).get("version", "")
    return Path(bundle_root).resolve().name, str(version)


def list_overrides(bundle_root: str | Path) -> dict[str, Any]:
    """Return what the config that is being run sets otherwise than the bundle's own, by id.

    It does not matter who set it: `heatmask`, `monai.bundle run`, a further config file or a
    program. Places are left out. Called from a config, as its parser is found on the stack.
    """
    from monai.bundle import ConfigParser

    running = _find_caller(ConfigParser)
    if running is None:
        return {}
    own = ConfigParser()
    own.read_config(str(Path(bundle_root) / "configs" / "inference.json"))
    own.parse()
    changes: dict[str, Any] = {}
    for name, value in running.get().items():
        if name not in _PLACES and isinstance(value, _PLAIN):
            changes |= _list_changes(name, own.get().get(name, _ABSENT), value)
    return changes


def _find_caller(kind: type[Kind]) -> Kind | None:
    """The innermost object of a type that is at work on this stack."""
    callers = (frame.f_locals.get("self") for frame, _ in traceback.walk_stack(None))
    return next((caller for caller in callers if isinstance(caller, kind)), None)


def _list_changes(name: str, old: Any, new: Any) -> dict[str, Any]:
    """What is new in an item, as far down as both have the same parts."""
    if isinstance(old, dict) and isinstance(new, dict) and old.keys() <= new.keys():
        parts = [(key, old.get(key, _ABSENT), value) for key, value in new.items()]
    elif isinstance(old, list) and isinstance(new, list) and _are_alike(old, new):
        parts = list(zip(map(str, range(len(new))), old, new, strict=True))
    else:
        return {} if old == new else {name: new}
    changes: dict[str, Any] = {}
    for key, before, after in parts:
        changes |= _list_changes(f"{name}#{key}", before, after)
    return changes


def _are_alike(old: list[Any], new: list[Any]) -> bool:
    """Whether these are lists of so many items; lists of plain values change as a whole."""
    return len(old) == len(new) and all(isinstance(part, dict) for part in old)


def _check_option(name: str, value: Any, parser: "ConfigParser") -> None:
    known = list(dict.fromkeys([*parser.get(), *_list_further(parser)]))
    parent = name.rpartition("#")[0]
    if parent and parent in parser:
        known = [f"{parent}#{n}" for n in _list_below(parent, parser)]
    if name not in known:
        close = ", ".join(get_close_matches(name, known, cutoff=0.5)) or ", ".join(known)
        raise OptionError(
            f"An option must be an id of the bundle's config, got {name!r}. Try: {close}."
        )
    if isinstance(value, str) and value.startswith(CONFIG_SYMBOLS):
        raise OptionError(
            f"{name} must not begin with {', '.join(CONFIG_SYMBOLS)}, got {value!r}: MONAI would "
            "evaluate it. Put ./ before a path."
        )


def _list_further(parser: "ConfigParser") -> list[str]:
    """Return the options of a bundle that its config may leave out."""
    if "options" not in parser:
        return []
    from heatmask.options import name_options
    from heatmask.parts import list_parts

    return [*sorted(name_options(list_parts(parser.get()))), *_RUN]


def _list_below(name: str, parser: "ConfigParser") -> list[str]:
    """Return what can be set below an item of a config: what is there, and further arguments."""
    item = parser[name]
    if isinstance(item, list):
        return [str(index) for index in range(len(item))]
    if not isinstance(item, dict):
        return []
    from heatmask.attribution import Explainer
    from heatmask.attribution.registry import get_method

    target = Explainer if name == "inferer#explainer" else locate(str(item.get("_target_", "")))
    found = [*item, *_list_arguments(target)]
    if target is Explainer:
        method = item.get("method", parser.get("method", "inherent"))
        found += get_method(method if "@" not in method else parser["method"]).options
    return list(dict.fromkeys(found))


def _list_arguments(target: Any) -> list[str]:
    """Return the arguments of a callable.

    Of one that hands some on, also those of its parent class, or of what it makes.
    """
    if not callable(target):
        return []
    arguments = inspect.signature(target).parameters.values()
    names = [a.name for a in arguments if a.kind is not inspect.Parameter.VAR_KEYWORD]
    if len(names) < len(arguments):
        made = inspect.signature(target).return_annotation
        names += _list_arguments(target.__base__ if inspect.isclass(target) else made)
    return names
