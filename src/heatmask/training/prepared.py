"""Pictures as a network takes them, prepared once and kept on disk.

Reading, scaling and normalising a picture takes longer than many a training step, and a hundred
thousand pictures do not fit into memory. MONAI's `PersistentDataset` would do too; it knows
pictures by their paths, and takes ten times as long to read one back.
"""

import hashlib
import logging
import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose, ResizeWithPadOrCrop
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from heatmask.data.recognition import find_clue
from heatmask.errors import HeatmaskError, InputError, OutputError, reveal_reason
from heatmask.files import write_atomically

Preprocessing = Callable[[Mapping[str, Any]], Any]
logger = logging.getLogger(__name__)

_FEW = 64
"""Up to so many pictures are prepared without worker processes, which take a while to start."""
_LIBRARIES = ("torch", "monai", "numpy", "pillow", "scikit-image")


class PreparedPictures:
    """Prepared pictures (N, C, H, W), float16, each read from its file when it is asked for.

    Indexed like a tensor along the first axis. Memory holds the files' names, 32 bytes a picture.
    """

    def __init__(self, folder: Path, names: Sequence[str], size: tuple[int, int]) -> None:
        self.folder, self.names, self.size = folder, np.array(names, "S32"), size

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int | slice | Tensor) -> Tensor:
        """Return a picture (C, H, W), or several (M, C, H, W)."""
        chosen = self.names[np.asarray(index) if isinstance(index, Tensor) else index]
        if isinstance(chosen, bytes):
            return self._read(chosen)
        return torch.stack([self._read(name) for name in chosen])

    def _read(self, name: bytes) -> Tensor:
        # Not a memory map: what was read through it counts as the process's memory.
        values = np.fromfile(self.folder / name.decode(), np.float16)
        return torch.from_numpy(values.reshape(-1, *self.size))


def prepare_pictures(
    paths: Sequence[str], preprocessing: Preprocessing, size: tuple[int, int]
) -> tuple[PreparedPictures, list[str]]:
    """Prepare pictures, as far as that has not been done before, and keep them on disk.

    In ``$XDG_CACHE_HOME/heatmask/pictures`` (default ``~/.cache``), a folder for each way of
    preparing, which depends on the preprocessing, the size, and the code and the libraries behind
    them. A picture goes by its content, wherever it lies. Several processes may do so at a time.

    Parameters
    ----------
    paths
        The pictures.
    preprocessing
        The bundle's, see `heatmask.training.slices.SliceDataset`.
    size
        Rows and columns; larger pictures are cropped around the centre, smaller ones padded.

    Returns
    -------
    PreparedPictures
        In the order of `paths`.
    list of str
        What is wrong with each picture; empty where nothing is.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """
    preparing = _Preparing(paths, preprocessing, size)
    if many := len(paths) > _FEW:
        preparing[0]  # here first: what it imports, each worker process would import again
    loader = DataLoader(
        preparing,
        batch_size=16,
        collate_fn=list,
        num_workers=torch.get_num_threads() if many else 0,
    )
    batches = track(loader, "Reading pictures", disable=len(paths) < 4)
    names, problems, new = zip(*[result for batch in batches for result in batch], strict=True)
    pictures = PreparedPictures(preparing.folder, names, size)
    if any(new):
        _say_where(pictures)
    return pictures, list(problems)


def _say_where(pictures: PreparedPictures) -> None:
    kept = [path.stat().st_size for path in pictures.folder.iterdir()]
    logger.info(
        "Pictures are kept as training takes them: %d, %.0f MB, in %s. The folder may be removed "
        "after training.",
        len(kept), sum(kept) / 1e6, pictures.folder,
    )  # fmt: skip


class _Preparing(Dataset[tuple[str, str, bool]]):
    """Prepares pictures one by one, in whatever process."""

    def __init__(
        self, paths: Sequence[str], preprocessing: Preprocessing, size: tuple[int, int]
    ) -> None:
        self.paths, self.preprocessing = paths, preprocessing
        self.fit = ResizeWithPadOrCrop((*size, -1))
        self.folder = _make_folder(preprocessing, size)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[str, str, bool]:
        """Return the name of the prepared picture or what is wrong, and whether it is new."""
        path = self.paths[index]
        try:
            name = _name_picture(path)
            new = not (self.folder / name).is_file()
            if new:
                self._prepare(path, name)
        except HeatmaskError as error:
            return "", str(error), False
        return name, "", new

    def _prepare(self, path: str, name: str) -> None:
        with reveal_reason():
            image = self.preprocessing({"image": path})["image"]
        prepared = self.fit(image).as_tensor()[..., 0].half()
        with write_atomically(self.folder / name) as draft:
            prepared.numpy().tofile(draft)


def _name_picture(path: str) -> str:
    """By content, and by the sequence that it is known as, which may choose the channel."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"The picture '{path}' cannot be read: {error.strerror}.") from error
    digest = hashlib.blake2b(content, digest_size=16)
    digest.update(find_clue(path).sequence.encode())
    return digest.hexdigest()


def _make_folder(preprocessing: Preprocessing, size: tuple[int, int]) -> Path:
    steps = preprocessing.flatten().transforms if isinstance(preprocessing, Compose) else ()
    versions = [f"{library} {version(library)}" for library in _LIBRARIES]
    digest = hashlib.blake2b(
        pickle.dumps((steps or preprocessing, [*size], versions)), digest_size=8
    )
    package = Path(__file__).parents[1]
    parts = (package.glob("*.py"), *((package / p).rglob("*.py") for p in ("data", "transforms")))
    for code in sorted(path for part in parts for path in part):
        digest.update(code.read_bytes())
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(home) / "heatmask" / "pictures" / digest.hexdigest()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"Prepared pictures are kept in {folder}, and it cannot be written: {error.strerror}. "
            "Name another folder in the variable XDG_CACHE_HOME."
        ) from error
    return folder
