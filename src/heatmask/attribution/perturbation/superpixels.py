"""Superpixels and supervoxels of images."""

import numpy as np
import torch
from skimage.segmentation import slic
from torch import Tensor

from heatmask.attribution.registry import check_count
from heatmask.errors import OptionError


def find_superpixels(images: Tensor, count: int, compactness: float) -> Tensor:
    """Cut each image into superpixels, or supervoxels, by SLIC.

    Parameters
    ----------
    images
        (B, C, *spatial) of two or three axes.
    count
        How many to aim at.
    compactness
        Weight of nearness against likeness, for intensities scaled to [0, 1] an image.

    Returns
    -------
    Tensor
        (B, *spatial), int64, on the images' device: from 1 on; 0 where all channels are zero,
        because an empty background would take most of the superpixels, and on lone specks.

    Raises
    ------
    OptionError
        An option is out of range, or the images have one axis or more than three.

    Notes
    -----
    SLIC of Achanta et al. 2012, with Irving's mask (arXiv 1606.09518), from scikit-image, on
    the CPU: it looks at one image alone and draws nothing at random.
    """
    check_count("segments", count)
    if not compactness > 0:
        raise OptionError(f"compactness must be greater than 0, got {compactness!r}.")
    if images.ndim not in (4, 5):
        raise OptionError(f"Superpixels need images of two or three axes, got {images.ndim - 2}.")
    # The network's logits will be NaN too, and the error about them says more.
    arrays = images.detach().float().nan_to_num().movedim(1, -1).cpu().numpy()
    labels = [_cut_up(array, count, compactness) for array in arrays]
    return torch.from_numpy(np.stack(labels)).to(images.device, torch.int64)


def _cut_up(image: np.ndarray, count: int, compactness: float) -> np.ndarray:
    mask = image.any(axis=-1)
    if not mask.any():
        return np.zeros(mask.shape, dtype=np.int64)
    return slic(
        image,
        n_segments=count,
        compactness=compactness,
        mask=mask,
        convert2lab=False,  # three channels are not red, green and blue here
        start_label=1,
    )
