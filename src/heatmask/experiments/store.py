"""Results kept under a digest of everything that they depend on, each file whole or not there."""

import ast
import hashlib
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from heatmask.errors import OutputError
from heatmask.files import write_atomically

Item = TypeVar("Item")
PACKAGE = Path(__file__).resolve().parents[1]
_JSON = "json"


class Store:
    """A folder of results by digest. Several processes may share it.

    Not joblib's: its key of a function leaves out what that function calls, and it reads pickles.

    Parameters
    ----------
    folder
        Made if need be. Nothing in it is ever changed; delete it to start anew.

    Raises
    ------
    OutputError
        The folder cannot be made.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"The cache must be a folder that can be written to; {folder}: {error.strerror}. "
                "Give another with --cache."
            ) from error

    def has(self, key: str) -> bool:
        """Whether a result is there."""
        return self._place(key).is_file()

    def read(self, key: str) -> Any:
        """Return what `write` kept."""
        with np.load(self._place(key), allow_pickle=False) as content:
            arrays = dict(content)
        result = json.loads(str(arrays.pop(_JSON)))
        return {**result, **arrays} if arrays else result

    def write(self, key: str, result: Any) -> None:
        """Keep a dictionary of arrays, or else what JSON can hold, NaN too."""
        kept = isinstance(result, dict) and isinstance(next(iter(result.values())), np.ndarray)
        plain, arrays = ({}, result) if kept else (result, {})
        with write_atomically(self._place(key)) as draft, draft.open("wb") as file:
            np.savez_compressed(file, **{_JSON: np.array(json.dumps(plain))}, **arrays)

    def _place(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.npz"


class Kept(ABC, Generic[Item]):
    """Results by item, each computed once and read from a store from then on.

    Attributes
    ----------
    store
        Where they are; None computes each anew.
    """

    store: Store | None

    @abstractmethod
    def find_key(self, item: Item) -> str:
        """Return what the result of an item is kept under: a digest of all it depends on."""

    @abstractmethod
    def _compute(self, item: Item) -> Any:
        """Return the result of an item, as `Store.write` takes it."""

    def is_done(self, item: Item) -> bool:
        """Whether the result need not be computed."""
        return self.store is not None and self.store.has(self.find_key(item))

    def get(self, item: Item) -> Any:
        """Return the result of an item, computed only if it is not in the store."""
        if self.store is None:
            return self._compute(item)
        key = self.find_key(item)
        if not self.store.has(key):
            start = time.perf_counter()
            result = self._compute(item)
            self.store.write(f"{key}-seconds", time.perf_counter() - start)
            self.store.write(key, result)
        return self.store.read(key)

    def read_seconds(self, item: Item) -> float:
        """Return what it took to compute the result of an item, which is in the store."""
        return float(self.store.read(f"{self.find_key(item)}-seconds")) if self.store else 0.0


def digest(value: Any) -> str:
    """Return a digest of a value that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]


@cache
def digest_file(path: Path) -> str:
    """Return the digest of a file's bytes; of a folder's, of all of its files."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    found = hashlib.sha256()
    for file in files:
        if file.is_file():
            found.update(file.read_bytes())
    return found.hexdigest()[:32]


@cache
def digest_code(*modules: str) -> str:
    """Return the digest of modules of Heatmask and of all that they import of it.

    Comments, docstrings and the layout of the lines do not count.
    """
    code: dict[Path, str] = {}
    waiting = [path for module in modules for path in _find_sources(module)]
    while waiting:
        path = waiting.pop()
        if path not in code:
            tree = ast.parse(path.read_bytes())
            waiting += [found for name in _list_imports(tree) for found in _find_sources(name)]
            code[path] = ast.dump(_drop_texts(tree))
    return digest(sorted(code.values()))


def _find_sources(name: str) -> Iterator[Path]:
    """Yield the file of a module, and those of the packages that it lies in."""
    place = PACKAGE.parent
    for part in name.split("."):
        place /= part
        yield from (p for p in (place / "__init__.py", place.with_suffix(".py")) if p.is_file())


def _list_imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _drop_texts(tree: ast.AST) -> ast.AST:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [line for line in body if not _is_text(line)]  # type: ignore[attr-defined]
    return tree


def _is_text(line: ast.AST) -> bool:
    constant = isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)
    return constant and isinstance(line.value.value, str)  # type: ignore[attr-defined]


def list_targets(config: Any) -> Iterator[str]:
    """Yield the modules of Heatmask that a config names."""
    if isinstance(config, Mapping):
        target = str(config.get("_target_", ""))
        if target.startswith("heatmask."):
            yield target.rpartition(".")[0]
        config = list(config.values())
    if isinstance(config, list | tuple):
        for part in config:
            yield from list_targets(part)
