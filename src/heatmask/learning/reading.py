"""From scans to examples: prepared slices, pseudo-masks, attributions, corrected masks."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import ResampleToMatch, ResizeWithPadOrCrop
from monai.utils import convert_to_dst_type
from torch import Tensor

from heatmask.attribution.batches import explain_present_channels
from heatmask.attribution.explainer import Explainer
from heatmask.data.labels import LabelledVolume
from heatmask.errors import InputError, reveal_reason
from heatmask.learning.examples import Examples
from heatmask.learning.scans import LearnScan, read_correction
from heatmask.pipeline import Pipeline
from heatmask.training.checkpoints import save_whole
from heatmask.training.slices import orient_labels

logger = logging.getLogger(__name__)


class ExampleReader:
    """Reads scans as a bundle does, and makes their pseudo-masks with it.

    Parameters
    ----------
    pipeline
        The bundle's.
    image_size
        Rows and columns of an example.
    folder
        Where what the bundle says of a scan is kept, by the content of scan and weights; None
        keeps nothing.
    with_attributions
        Whether Grad-CAM is asked too, for `heatmask.learning.attribution_augmentation`.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        image_size: Sequence[int] = (128, 128),
        folder: Path | None = None,
        with_attributions: bool = False,
    ) -> None:
        self.pipeline, self.folder = pipeline, folder
        self.with_attributions = with_attributions
        self._fit = ResizeWithPadOrCrop((*image_size, -1))
        weights = getattr(pipeline.network, "weights_sha256", "")
        # What decides the result beside the scan; the device does not.
        options = {k: v for k, v in pipeline.options.items() if k != "device"}
        self._key = repr([weights, sorted(options.items()), *image_size, with_attributions])

    def read(self, scan: LearnScan) -> Examples:
        """Return a scan as nobody has corrected it: with the bundle's pseudo-mask.

        Where its labels are known, they say which slices are empty; elsewhere the bundle does.

        Raises
        ------
        InputError
            The scan cannot be read, or its labels do not fit it.
        """
        path = self.folder / f"{self._find_key(scan)}.pt" if self.folder is not None else None
        if path is not None and path.is_file():
            return Examples(**torch.load(path, weights_only=True))
        with reveal_reason():
            examples = self._explain(scan)
        if path is not None:
            save_whole({f.name: getattr(examples, f.name) for f in fields(examples)}, path)
        return examples

    def correct(self, scan: LearnScan, examples: Examples) -> tuple[Examples, list[str]]:
        """Return the examples of a scan with the mask that a person corrected, and warnings.

        The mask says which slices hold the finding, whatever their labels said.

        Raises
        ------
        InputError
            The mask cannot be read, or does not lie on its scan.
        """
        if scan.correction is None:
            raise InputError(f"{scan.name} has no corrected mask.")
        data = self.pipeline.prepare(scan.image, scan.sequence)
        grid: MetaTensor = data["scan"]
        finding = self.pipeline.class_names[0]
        marked = read_correction(scan.correction, finding, grid.shape[1:], np.asarray(grid.affine))
        mask = convert_to_dst_type(torch.from_numpy(marked[None].astype(np.float32)), grid)[0]
        masks = self._cut(ResampleToMatch(mode="nearest")(mask, data["image"])) > 0.5
        labels = masks.flatten(1).any(1).float()
        other = int((labels != examples.labels).sum()) if scan.labels is not None else 0
        warning = (
            f"{scan.name}: {other} slices are marked otherwise than their labels say. The mask "
            "counts. Correct the labels, or the mask, if that is wrong."
        )
        everything = torch.ones(len(labels), dtype=torch.bool)
        corrected = Examples(
            images=examples.images,
            masks=masks,
            attributions=examples.attributions * labels[:, None, None, None].half(),
            labels=labels,
            labelled=everything,
            positions=examples.positions,
            corrected=everything,
        )
        return corrected, [warning] * (other > 0)

    def _find_key(self, scan: LearnScan) -> str:
        files = [scan.image] if isinstance(scan.image, str) else sorted(scan.image.values())
        digest = hashlib.sha256(repr([self._key, scan.sequence, scan.labels]).encode())
        for file in files:
            digest.update(_digest_scan(Path(file)))
        return digest.hexdigest()[:32]

    def _explain(self, scan: LearnScan) -> Examples:
        data = self.pipeline.prepare(scan.image, scan.sequence)
        said = self.pipeline.explain(data["image"])
        found: Any = self.pipeline.bring_to_scan(data | said)  # whose keys are words
        mask = self.pipeline.masker(found)["mask"]
        images = self._cut(data["image"])
        masks = self._cut(ResampleToMatch(mode="nearest")(mask.float(), data["image"])) > 0.5
        labels = _find_labels(scan, data["scan"], masks)
        masks &= (labels > 0)[:, None, None, None]
        positions = (torch.arange(len(images)) + 0.5) / len(images)
        return Examples(
            images=images.half(),
            masks=masks,
            attributions=self._attribute(images, labels),
            labels=labels,
            labelled=torch.full((len(images),), scan.labels is not None),
            positions=positions,
            corrected=torch.zeros(len(images), dtype=torch.bool),
        )

    def _attribute(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return Grad-CAM of slices in [0, 1], (N, 1, H, W): 1 is the scan's 99.5th percentile."""
        found = torch.zeros(len(images), 1, *images.shape[2:])
        present = (labels > 0) & images.flatten(1).any(1)
        if self.with_attributions and present.any():
            device = self.pipeline.device
            explained = explain_present_channels(
                Explainer("grad_cam"), self.pipeline.network, images[present].to(device)
            )
            maps = explained.attribution.detach().cpu().clamp_min(0)
            high = float(np.quantile(maps.numpy(), 0.995))
            found[present] = (maps / max(high, 1e-6)).clamp_max(1)
        return found.half()

    def _cut(self, volume: MetaTensor) -> Tensor:
        """Return the slices (N, C, H, W) of a volume (C, X, Y, Z) on the network's grid."""
        return self._fit(volume).as_tensor().movedim(-1, 0).contiguous()


def _find_labels(scan: LearnScan, grid: MetaTensor, masks: Tensor) -> Tensor:
    """Return the slices' labels in RAS order, or what the pseudo-masks say."""
    if scan.labels is None:
        return masks.flatten(1).any(1).float()
    path = Path(str(grid.meta.get("filename_or_obj", scan.name)))
    return orient_labels(LabelledVolume(scan.patient, path, tuple(scan.labels)), grid)


def _digest_scan(path: Path) -> bytes:
    """Return the digest of a file, or of all files of a DICOM series."""
    digest = hashlib.sha256()
    for part in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
        digest.update(part.read_bytes())
    return digest.digest()
