"""What is accepted as a label of an image, and as an image."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from heatmask.data.paths import split_scan_name
from heatmask.data.readers.nifti import read_itk_grid
from heatmask.errors import InputError
from heatmask.geometry import match_voxels
from heatmask.serving.store.links import SUFFIXES

MAX_LABELS = 255


def read_suffix(name: str) -> str:
    """Return the suffix of a file that a client sent, in lower case.

    Raises
    ------
    InputError
        It is none of `SUFFIXES`.
    """
    suffix = split_scan_name(name)[1].lower()
    if suffix not in SUFFIXES:
        raise InputError(
            f"It cannot be read: its name must end in {', '.join(SUFFIXES)}, got {name[-40:]!r}. "
            "Save it as one of these."
        )
    return suffix


def check_image(path: Path) -> None:
    """Refuse an image that cannot be read, here or by a viewer built on ITK.

    Raises
    ------
    InputError
        With the reason; the folder that it lies in is not named.
    """
    from heatmask.data.readers.read import read_scan  # brings torch

    try:
        read_itk_grid(path)
        read_scan(path)
    except InputError as error:
        raise InputError(f"This image was not stored. {_hide(str(error), path)}") from error


def check_label(path: Path, image: Path | None, info: Mapping[str, Any]) -> None:
    """Refuse a label that is no label map on the voxels of its image, with values that are named.

    A label that marks nothing is one too: "no tumour". Places are compared as ITK reads them, and
    so the viewer.

    Parameters
    ----------
    path, image
        The label and its image; None if that is gone.
    info
        What the client said of it. With ``label_info``, a list of ``{"name": str, "idx": int}``,
        every value must be in it.

    Raises
    ------
    InputError
        With the reason; what is stored stays.
    """
    from heatmask.data.readers.reference import read_label_map  # brings torch

    try:
        names = read_label_names(info)
        shape, affine = read_itk_grid(path)
        grid = read_itk_grid(image) if image else (shape, affine)
        if sorted(shape) != sorted(grid[0]):
            # Before the voxels are read: a header may claim more than the machine has.
            match_voxels(np.broadcast_to(False, shape), affine, *grid)
        labels, _ = read_label_map(path)
        match_voxels(labels, affine, *grid)
        _check_values(labels, names)
    except InputError as error:
        text = _hide(_hide(str(error), path), image or path)
        raise InputError(f"This label was not stored, an earlier one is kept. {text}") from error


def read_label_names(info: Mapping[str, Any]) -> dict[int, str] | None:
    """Return the names of a label's values from ``label_info``, None if the client gave none.

    Raises
    ------
    InputError
        It is no list of ``{"name": str, "idx": int}``.
    """
    given = info.get("label_info")
    if given is None:
        return None
    try:
        names = {item["idx"]: item["name"] for item in given}
        if all(type(i) is int and isinstance(name, str) for i, name in names.items()):
            return names
    except (TypeError, KeyError):
        pass
    raise InputError(
        f'label_info must be a list like [{{"name": "tumour", "idx": 1}}], got {str(given)[:80]!r}.'
    )


def _check_values(labels: np.ndarray, names: Mapping[int, str] | None) -> None:
    values = np.unique(labels[labels > 0]).tolist()
    if values and values[-1] > MAX_LABELS:
        raise InputError(f"Its values must be at most {MAX_LABELS}, got {values[-1]}.")
    unnamed = [str(value) for value in values if names is not None and value not in names]
    if unnamed:
        raise InputError(
            f"label_info must name every value of the label; {', '.join(unnamed[:8])} "
            f"{'is' if len(unnamed) == 1 else 'are'} not in it."
        )


def _hide(text: str, path: Path) -> str:
    """Return an error's text without the folders of a path."""
    return text.replace(str(path), path.name)
