"""What masks score without a classifier's explanation: floors, position alone, a few masks."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import ResampleToMatch, ResizeWithPadOrCrop
from monai.utils import convert_to_dst_type
from numpy.typing import NDArray
from rich.progress import track

from heatmask.comparison.heatmaps import Explanations
from heatmask.comparison.scores import CODE, Scores, find_slices, score_whole
from heatmask.comparison.store import Kept, digest, digest_code, digest_file
from heatmask.comparison.subjects import Subject, Subjects
from heatmask.evaluation.baselines import FLOORS, SCALP_MM, centre_gaussian, find_inner_head
from heatmask.evaluation.classification import compute_relative_positions
from heatmask.evaluation.pictures import RIM_SHARE
from heatmask.evaluation.segmentation import measure_spacing_mm
from heatmask.networks.gp_unet import GPUNet
from heatmask.training.few_masks import predict_masks, train_unet
from heatmask.training.position import PositionPrior

POSITION = "centre Gaussian where the position speaks for a tumour"
FEW_MASKS_SLICES = 15_000
"""Slices that the U-Net sees in training, however few there are."""
_CODE = digest_code((
    "evaluation/baselines.py", "evaluation/classification.py", "evaluation/pictures.py",
    "training/position.py", "geometry.py", "data", "comparison/floors.py",
))  # fmt: skip
_UNET_CODE = digest_code((
    "training/few_masks.py", "training/augment.py", "training/engine.py", "networks", "data",
    "comparison/floors.py",
))  # fmt: skip


class FloorScoring(Kept[Subject]):
    """Scores of the floors on the subjects of one split.

    Parameters
    ----------
    explanations
        Of any entry: its preprocessing reads the scans.
    subjects
        With the training volumes' slice labels, if these are volumes.
    """

    def __init__(self, explanations: Explanations, subjects: Subjects) -> None:
        self.explanations, self.subjects = explanations, subjects
        self.store = explanations.store

    def find_key(self, subject: Subject) -> str:
        """Return what the scores of a subject are kept under."""
        files = [digest_file(path) for path in subject.files]
        return digest([files, self.subjects.training_labels, _CODE, CODE])

    def _compute(self, subject: Subject) -> dict[str, list[Scores]]:
        """Return the scores of each floor's candidates: one but for the oracles."""
        scan = self.explanations.prepare(subject)["scan"]
        image, affine = scan[0].numpy(), np.asarray(scan.affine)
        pictures, axis = self.subjects.pictures, find_slices(scan)
        reference = subject.load_reference(scan)
        edges: Sequence[float] = measure_spacing_mm(affine).tolist()
        if pictures:  # A picture has no millimetres: the rim is a share of its side
            edges = [SCALP_MM / (RIM_SHARE * max(image.shape))] * 3
        head = find_inner_head(image, edges, slice_axis=axis)
        found: dict[str, list[Scores]] = {}
        for name, floor in FLOORS.items():
            found[name] = [
                score_whole(mask, reference, affine, axis, pictures, outline=floor.label_free)
                for mask in floor.make_candidates(image, head)
            ]
        if self.subjects.training_labels:
            mask = centre_gaussian(image, head)
            np.moveaxis(mask, axis, 0)[~self._find_likely(len(subject.labels))] = False
            found[POSITION] = [score_whole(mask, reference, affine, axis, pictures)]
        return found

    def _find_likely(self, n_slices: int) -> NDArray[np.bool_]:
        """Return which slices hold a tumour more often than not, by their position alone."""
        labels = self.subjects.training_labels
        positions = np.concatenate([compute_relative_positions(len(stack)) for stack in labels])
        prior = PositionPrior(positions.tolist(), np.concatenate(labels).tolist())
        return prior(compute_relative_positions(n_slices).tolist())[:, 0].numpy() > 0


class FewMasks(Kept[Subject]):
    """A U-Net that is trained on the validation masks and nothing else.

    Parameters
    ----------
    explanations
        Of any entry: its preprocessing prepares the scans, its postprocessing brings masks back.
    given
        The subjects whose masks it is trained on.
    subjects
        Those it is scored on.
    """

    def __init__(self, explanations: Explanations, given: Subjects, subjects: Subjects) -> None:
        self.explanations, self.given, self.subjects = explanations, given, subjects
        self.store = explanations.store
        files = [digest_file(path) for subject in given.subjects for path in subject.files]
        config = explanations.parser.get()
        used = {
            name: config.get(name) for name in ("preprocessing", "pixel_spacing_mm", "sequences")
        }
        self.digest = digest([files, used, FEW_MASKS_SLICES, _UNET_CODE, CODE])
        self._network: GPUNet | None = None

    def find_key(self, subject: Subject) -> str:
        """Return what the scores of a subject are kept under."""
        return digest([self.digest, [digest_file(path) for path in subject.files]])

    def _compute(self, subject: Subject) -> Scores:
        """Return what `score_whole` says of the mask at probability 0.5."""
        data = self.explanations.prepare(subject)
        image = data["image"]
        told = predict_masks(self._get_network(), image.as_tensor().movedim(-1, 0))
        heatmap = convert_to_dst_type(told.movedim(0, -1)[None], image, dtype=torch.float32)[0]
        result = self.explanations.segmenter.bring_to_scan({**data, "heatmap": heatmap})
        mask = np.asarray(result["heatmap"][0]) > 0.5
        scan, pictures = result["scan"], self.subjects.pictures
        affine, axis = np.asarray(scan.affine), find_slices(scan)
        return score_whole(mask, subject.load_reference(scan), affine, axis, pictures)

    def _get_network(self) -> GPUNet:
        if self._network is None:
            images, masks = self._load_slices()
            epochs = max(1, FEW_MASKS_SLICES // len(images))
            self._network = train_unet(images, masks, epochs)
        return self._network

    def _load_slices(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the slices (N, C, H, W) of the given subjects with their masks (N, 1, H, W)."""
        pairs = [self._load(subject) for subject in track(self.given.subjects, "Reading masks")]
        sides = [max(pair.shape[axis] for pair in pairs) for axis in (1, 2)]
        fit = ResizeWithPadOrCrop((*(side + -side % 8 for side in sides), -1))
        slices = torch.cat([torch.as_tensor(fit(pair)).movedim(-1, 0) for pair in pairs]).half()
        return slices[:, :-1], slices[:, -1:]

    def _load(self, subject: Subject) -> torch.Tensor:
        """Return the image with its mask as a further channel, on the network's grid."""
        data: Mapping[str, Any] = self.explanations.prepare(subject)
        reference = subject.load_reference(data["scan"])[None].astype(np.float32)
        mask = convert_to_dst_type(torch.from_numpy(reference), data["scan"])[0]
        moved = ResampleToMatch(mode="nearest")(mask, data["image"])
        return torch.cat([torch.as_tensor(data["image"]), torch.as_tensor(moved)])


def choose_candidates(
    by_subject: Sequence[Mapping[str, list[Scores]]],
) -> dict[str, tuple[int, list[Scores]]]:
    """Return for each floor the number of the best candidate over all subjects, and its scores."""
    chosen = {}
    for name in by_subject[0]:
        dice = np.array([[one["dice"] for one in scores[name]] for scores in by_subject])
        best = int(np.nanmean(dice, axis=0).argmax()) if np.isfinite(dice).any() else 0
        chosen[name] = (best, [scores[name][best] for scores in by_subject])
    return chosen
