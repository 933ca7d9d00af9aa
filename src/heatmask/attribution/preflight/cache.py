"""What the preflight knows of a network, as long as the network stays what it was.

In memory by the network; and on disk by its weights and the versions of the libraries, so that
a check runs once and not at each start, if all its code is of those libraries. What other
code does may hang on any file it imports. The file lies in ``$XDG_CACHE_HOME/heatmask``
(default ``~/.cache``); one that cannot be read or written is passed by.
"""

import hashlib
import json
import os
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from operator import attrgetter
from pathlib import Path
from types import BuiltinFunctionType, FunctionType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from heatmask.attribution.preflight.checks import Check

Known = dict[str, Check]
"""Checks by what they are of."""

_LIBRARIES = ("torch", "torchvision", "monai", "captum", "zennit")
_KNOWN_CODE = frozenset((*_LIBRARIES, __name__.partition(".")[0]))
_MOST_NETWORKS = 100
_USUAL = frozenset(vars(nn.Module()))
_SWITCHES = frozenset((bool, str))
_PLAIN = (
    bool,
    int,
    float,
    str,
    type(None),
    type,
    Enum,
    BuiltinFunctionType,
    torch.dtype,
    torch.device,
)


@dataclass
class _Entry:
    lock: threading.Lock = field(default_factory=threading.Lock)
    state: tuple[Any, ...] = ()
    known: dict[str, Known] = field(default_factory=dict)


_ENTRIES: "WeakKeyDictionary[nn.Module, _Entry]" = WeakKeyDictionary()
_ENTRIES_LOCK = threading.Lock()


@contextmanager
def recall(network: nn.Module, image_shape: Sequence[int]) -> Iterator[Known]:
    """Yield what is known of a network as it is now; what is added is kept.

    A network is a new one if a tensor was replaced or changed in place (by more than its
    ``.data``), or a module, a hook or a switch of a module changed. Threads with one network
    wait for one another, so that nothing runs twice.

    Parameters
    ----------
    image_shape
        (C, *spatial); sizes of one C and one number of axes share a collection.
    """
    kind = f"{image_shape[0]} channels, {len(image_shape) - 1} axes"
    with _ENTRIES_LOCK:
        entry = _ENTRIES.setdefault(network, _Entry())
    with entry.lock:
        state = read_state(network)
        if state != entry.state:
            entry.state, entry.known = state, {}
        if kind in entry.known:
            identity, known = None, entry.known[kind]
        else:
            identity = identify(network)
            known = entry.known[kind] = _read(identity, kind)
        before = len(known)
        yield known
        if len(known) > before:
            _write(identity or identify(network), kind, known)


def read_state(network: nn.Module) -> tuple[Any, ...]:
    """Return something that changes when the network does, within a few milliseconds."""
    tensors = [
        (tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version, tensor.dtype)
        for group in (network.parameters(), network.buffers())
        for tensor in group
    ]
    modules = [
        (
            id(module),
            len(module._forward_hooks) + len(module._forward_pre_hooks),
            [v for k, v in vars(module).items() if type(v) in _SWITCHES and k != "training"],
        )
        for module in network.modules()
    ]
    return (*tensors, *modules)


def identify(network: nn.Module) -> str:
    """Return a hash of weights, settings, code and library versions; empty if there is none.

    There is none for a network with hooks, with settings that are no plain values, or with
    classes or functions that are made at run time or come from elsewhere than Heatmask and
    the libraries: what these do cannot be known from outside.
    """
    digest = hashlib.sha256(_describe_libraries())
    try:
        for name, module in network.named_modules():
            _require_known(module)
            settings = {k: v for k, v in vars(module).items() if k not in _USUAL}
            digest.update(f"{name} {_describe(type(module))} {_describe(settings)}".encode())
        for group in (network.named_parameters(), network.named_buffers()):
            for name, tensor in group:
                digest.update(f"{name} {tensor.device.type} {_describe(tensor)}".encode())
    except (OSError, RuntimeError, TypeError, NotImplementedError):
        return ""  # It is checked anew each time
    return digest.hexdigest()


def _describe_libraries() -> bytes:
    versions = [sys.version]
    for library in _LIBRARIES:
        with suppress(PackageNotFoundError):  # Not installed: it has no version to depend on
            versions.append(f"{library} {version(library)}")
    own = sorted(Path(__file__).parents[2].rglob("*.py"))  # all of Heatmask
    return "\n".join(versions).encode() + b"".join(path.read_bytes() for path in own)


def _require_known(module: nn.Module) -> None:
    kind = type(module)
    hooked = module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module)
    if hooked or isinstance(module, torch.jit.ScriptModule):
        raise TypeError(f"{kind} does more than its class says")
    try:
        written = attrgetter(kind.__qualname__)(sys.modules.get(kind.__module__)) is kind
    except AttributeError:
        written = False
    if not written:
        raise TypeError(f"{kind} is not written in a file")


def _name_code(value: type | FunctionType | BuiltinFunctionType) -> str:
    home = str(value.__module__)
    if home != "builtins" and home.partition(".")[0] not in _KNOWN_CODE:
        raise TypeError(f"{home} may import anything")
    return f"{home} {value.__qualname__}"


def _describe(value: Any) -> str:
    """Return a text that is another for another value; TypeError where there is none."""
    if isinstance(value, Tensor):
        flat = value.detach().cpu().contiguous().flatten().view(torch.uint8)
        return f"{value.dtype} {tuple(value.shape)} {hashlib.sha256(flat.numpy().data).hexdigest()}"
    if isinstance(value, Mapping):
        return _describe([*value.items()])
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_describe, value))}]"
    if isinstance(value, FunctionType) and value.__closure__ is None:
        return f"{_name_code(value)} {value.__code__.co_code!r}"
    if isinstance(value, type | BuiltinFunctionType):
        return _name_code(value)
    if isinstance(value, _PLAIN):
        return repr(value)
    raise TypeError(f"{type(value)} may hold anything")


def _find_file() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "heatmask" / "preflight.json"


def _read_file() -> dict[str, Any]:
    try:
        content = json.loads(_find_file().read_text(encoding="utf-8"))
    except (OSError, ValueError, RuntimeError):  # RuntimeError: there is no home
        return {}
    return content if isinstance(content, dict) else {}


def _read(identity: str, kind: str) -> Known:
    try:
        stored = _read_file()[f"{identity}, {kind}"]
        return {key: Check(**{**check, "methods": ()}) for key, check in stored.items()}
    except (KeyError, TypeError, AttributeError):  # Unknown yet, or of another version's form
        return {}


def _write(identity: str, kind: str, known: Known) -> None:
    if not identity:
        return
    content = _read_file()
    content.pop(f"{identity}, {kind}", None)  # so that it becomes the latest
    content[f"{identity}, {kind}"] = {key: asdict(check) for key, check in known.items()}
    latest = dict(list(content.items())[-_MOST_NETWORKS:])
    with suppress(OSError, RuntimeError):  # Only saves time: without a place to keep it, all works
        path = _find_file()
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, partial = tempfile.mkstemp(dir=path.parent, suffix=".partial")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(latest, file)
            os.replace(partial, path)
        finally:
            Path(partial).unlink(missing_ok=True)
