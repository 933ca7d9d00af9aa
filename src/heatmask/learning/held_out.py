"""How well weights do on corrected patients that they have not seen."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from heatmask.errors import reveal_reason
from heatmask.learning.scans import LearnScan, read_correction
from heatmask.learning.versions import read_record
from heatmask.networks.weights import load_weights
from heatmask.pipeline import Pipeline


def score_patients(pipeline: Pipeline, scans: Sequence[LearnScan]) -> dict[str, float]:
    """Return the mean Dice over the scans of each patient, against the corrected masks.

    A scan whose corrected mask is empty has no Dice; a patient without another is left out.
    """
    found: dict[str, list[float]] = defaultdict(list)
    for scan in scans:
        dice = _score(pipeline, scan)
        if dice is not None:
            found[scan.patient].append(dice)
    return {patient: float(np.mean(dice)) for patient, dice in found.items()}


def score_served(bundle: Path, scans: Sequence[LearnScan], device: str) -> dict[str, float]:
    """Return the Dice of each patient with the weights of a bundle that have not seen that patient.

    A learnt bundle keeps those for the patients that it was learnt from. Others have seen none.
    """
    record = read_record(bundle)
    folds: Mapping[str, int] = record.folds if record is not None else {}
    by_fold: dict[int | None, list[LearnScan]] = defaultdict(list)
    for scan in scans:
        by_fold[folds.get(scan.patient)].append(scan)
    pipeline = Pipeline.from_bundle(bundle, device=device)
    found: dict[str, float] = {}
    for fold, chosen in by_fold.items():
        weights = "model.pt" if fold is None else f"folds/{fold}.pt"
        load_weights(pipeline.network, bundle / "models" / weights)
        found |= score_patients(pipeline, chosen)
    return found


def _score(pipeline: Pipeline, scan: LearnScan) -> float | None:
    if scan.correction is None:
        return None
    result = pipeline(scan.image, scan.name, scan.sequence)
    grid, mask = result.scan, np.asarray(result.mask[0]) > 0
    finding = pipeline.class_names[0]
    with reveal_reason():
        reference = read_correction(
            scan.correction, finding, grid.shape[1:], np.asarray(grid.affine)
        )
    if not reference.any():
        return None
    return float(2 * (mask & reference).sum() / (mask.sum() + reference.sum()))
