"""Results kept under a digest of everything that they depend on, each file whole or not there."""

import ast
import hashlib
import json
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from heatmask.errors import OutputError

Item = TypeVar("Item")
PACKAGE = Path(__file__).resolve().parents[1]


class Store:
    """A folder of results by digest. Several processes may share it.

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

    def find(self, key: str, suffix: str) -> Path | None:
        """Return the file of a result, None where it has not been computed."""
        path = self._place(key, suffix)
        return path if path.is_file() else None

    def read_arrays(self, key: str) -> dict[str, NDArray] | None:
        """Return what `write_arrays` kept, None for nothing."""
        path = self.find(key, ".npz")
        if path is None:
            return None
        with np.load(path, allow_pickle=False) as content:
            return dict(content)

    def write_arrays(self, key: str, arrays: Mapping[str, NDArray]) -> None:
        """Keep arrays by name."""
        with _Draft(self._place(key, ".npz")) as draft, draft.open("wb") as file:
            np.savez_compressed(file, **arrays)

    def read_json(self, key: str) -> Any:
        """Return what `write_json` kept, None for nothing."""
        path = self.find(key, ".json")
        return None if path is None else json.loads(path.read_text(encoding="utf-8"))

    def write_json(self, key: str, value: Any) -> None:
        """Keep a value; NaN is allowed."""
        with _Draft(self._place(key, ".json")) as draft:
            draft.write_text(json.dumps(value), encoding="utf-8")

    def _place(self, key: str, suffix: str) -> Path:
        return self.folder / key[:2] / (key + suffix)


class Kept(ABC, Generic[Item]):
    """Results by item, each computed once and read from a store from then on.

    Attributes
    ----------
    store
        Where they are.
    """

    store: Store

    @abstractmethod
    def find_key(self, item: Item) -> str:
        """Return what the result of an item is kept under: a digest of all it depends on."""

    @abstractmethod
    def _compute(self, item: Item) -> Any:
        """Return the result of an item; JSON must be able to hold it."""

    def is_done(self, item: Item) -> bool:
        """Whether the result need not be computed."""
        return self.store.find(self.find_key(item), ".json") is not None

    def get(self, item: Item) -> Any:
        """Return the result of an item, computed only if it is not in the store."""
        kept = self.store.read_json(self.find_key(item))
        return self._keep(item) if kept is None else kept["result"]

    def read_seconds(self, item: Item) -> float:
        """Return what it took to compute the result of an item, which is in the store."""
        return float(self.store.read_json(self.find_key(item))["seconds"])

    def _keep(self, item: Item) -> Any:
        start = time.perf_counter()
        result = self._compute(item)
        seconds = time.perf_counter() - start
        self.store.write_json(self.find_key(item), {"result": result, "seconds": seconds})
        return result


class _Draft:
    """A file beside its place, which takes that place only when all went well."""

    def __init__(self, path: Path) -> None:
        self.path, self.draft = path, path.with_name(f".{path.name}.{os.getpid()}")

    def __enter__(self) -> Path:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self.draft

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is None:
            os.replace(self.draft, self.path)
        else:
            self.draft.unlink(missing_ok=True)


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
def digest_code(parts: tuple[str, ...]) -> str:
    """Return the digest of modules and packages of Heatmask: what they compute may have changed.

    Comments, docstrings and the layout of the lines do not count.
    """
    return digest([_read_code(path) for path in _list_sources(parts)])


def _list_sources(parts: Iterable[str]) -> list[Path]:
    places = [PACKAGE / part for part in parts]
    return sorted(
        path for place in places for path in (place.rglob("*.py") if place.is_dir() else [place])
    )


def _read_code(path: Path) -> str:
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [line for line in body if not _is_text(line)]  # type: ignore[attr-defined]
    return ast.dump(tree)


def _is_text(line: ast.AST) -> bool:
    constant = isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)
    return constant and isinstance(line.value.value, str)  # type: ignore[attr-defined]
