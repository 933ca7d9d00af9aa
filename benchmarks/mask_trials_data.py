"""The three sets as square pictures with image-level labels, for `mask_trials.py`."""

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

SIDE = 256
CLASSES = {
    "lgg": ["tumour"],
    "busi": ["benign", "malignant"],
    "figshare": ["meningioma", "glioma", "pituitary"],
}


@dataclass
class Pictures:
    """All pictures or slices of a set, N x 256 x 256, the test split left out.

    ``target`` (N, K) has a column for each class of finding, ``subject`` is the volume or group of
    near-duplicates, ``height`` in [0, 1] the place in the stack (0 for pictures), ``inside`` where
    a picture is not padding.
    """

    image: np.ndarray
    inside: np.ndarray
    mask: np.ndarray
    target: np.ndarray
    train: np.ndarray
    subject: np.ndarray
    height: np.ndarray

    @property
    def has_negatives(self) -> bool:
        """Whether some pictures are known to hold no finding."""
        return bool((self.target.sum(1) == 0).any())

    def units(self, index: np.ndarray) -> list[np.ndarray]:
        """Split the index into volumes, or single pictures."""
        if not self.height.any():
            return list(index[:, None])
        return [index[self.subject[index] == name] for name in np.unique(self.subject[index])]


def read_pictures(data: Path, name: str) -> Pictures:
    """Read the training and validation pictures of a set with one picture a line of labels.csv."""
    table = pd.read_csv(data / name / "labels.csv").query("split != 'test'")
    images, insides, masks = [], [], []
    for row in table.itertuples():
        with Image.open(data / name / row.image) as file:
            image, inside = fit_square(file.convert("L"), Image.Resampling.BILINEAR)
        images.append(np.where(inside, rescale(image, inside), 0))
        insides.append(inside)
        masks.append(np.zeros((SIDE, SIDE), bool))
        if isinstance(row.mask, str):
            with Image.open(data / name / row.mask) as file:
                masks[-1] = fit_square(file.convert("L"), Image.Resampling.NEAREST)[0] > 127
    target = np.stack([table.label == label for label in CLASSES[name]], 1)
    train = (table.split == "train").to_numpy()
    group = table.group.to_numpy()
    return Pictures(
        *map(np.stack, (images, insides, masks)), target, train, group, np.zeros(len(table))
    )


def read_volumes(data: Path) -> Pictures:
    """Read the slices of the training and validation patients."""
    labels = pd.read_csv(data / "slice_labels.csv").sort_values(["patient", "slice"])
    patients = pd.read_csv(data / "patients.csv").query("split != 'test'")
    images, masks, rows = [], [], []
    for patient, split in zip(patients.patient, patients.split, strict=True):
        folder = data / patient
        volume = read_nifti(folder / f"{patient}-t2f.nii.gz")
        reference = folder / f"{patient}-seg.nii.gz"
        mask = read_nifti(reference) > 0 if reference.exists() else np.zeros(volume.shape, bool)
        images.append(rescale(volume, np.ones(volume.shape, bool)).transpose(2, 1, 0))
        masks.append(mask.transpose(2, 1, 0))
        tumour = labels.tumour[labels.patient == patient].to_numpy()
        height = (np.arange(len(tumour)) + 0.5) / len(tumour)
        rows.append(pd.DataFrame({"t": tumour, "h": height, "p": patient, "s": split}))
    table, image = pd.concat(rows), np.concatenate(images)
    return Pictures(
        image,
        np.ones(image.shape, bool),
        np.concatenate(masks),
        table.t.to_numpy()[:, None] == 1,
        (table.s == "train").to_numpy(),
        table.p.to_numpy(),
        table.h.to_numpy(),
    )


def read_nifti(path: Path) -> np.ndarray:
    """Read the voxels of a file with one channel."""
    return np.asarray(nib.load(path).dataobj).squeeze()


def rescale(image: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Bring the 1st and 99.5th percentile to 0 and 255."""
    low, high = np.percentile(image[inside], [1, 99.5])
    return np.asarray(np.clip((image - low) / max(high - low, 1) * 255, 0, 255).astype(np.uint8))


def fit_square(picture: Image.Image, filter_: Image.Resampling) -> tuple[np.ndarray, np.ndarray]:
    """Resize the longest side to 256 and pad; return the picture and where it is no padding."""
    factor = SIDE / max(picture.size)
    width, height = (round(side * factor) for side in picture.size)
    out, inside = np.zeros((SIDE, SIDE), np.uint8), np.zeros((SIDE, SIDE), bool)
    top, left = (SIDE - height) // 2, (SIDE - width) // 2
    place = np.s_[top : top + height, left : left + width]
    out[place], inside[place] = np.asarray(picture.resize((width, height), filter_)), True
    return out, inside


def stack_channels(pictures: Pictures, index: np.ndarray) -> Tensor:
    """Return (n, 3, 256, 256) in [0, 1]: a slice between its neighbours, a picture three times."""
    last = len(pictures.image) - 1
    sides = []
    for step in (-1, 0, 1):
        at = np.clip(index + step * bool(pictures.height.any()), 0, last)
        at = np.where(pictures.subject[at] == pictures.subject[index], at, index)
        sides.append(pictures.image[at])
    return torch.from_numpy(np.stack(sides, 1)).float() / 255
