"""How alike a heatmap stays as the network forgets, stage by stage from the output."""

import numpy as np
from scipy.stats import spearmanr

from heatmask.comparison.heatmaps import Explanations
from heatmask.comparison.store import Kept, digest, digest_code
from heatmask.comparison.subjects import Subject

_CODE = digest_code(("comparison/cascade.py",))


class SimilarityScoring(Kept[Subject]):
    """Rank correlation of a control's heatmap with that of the trained network.

    Parameters
    ----------
    trained, control
        Two entries of one bundle and method; both explain the same slices.
    """

    def __init__(self, trained: Explanations, control: Explanations) -> None:
        self.trained, self.control = trained, control
        self.store = trained.store

    def find_key(self, subject: Subject) -> str:
        """Return what the score of a subject is kept under."""
        keys = [part.find_key(subject) for part in (self.trained, self.control)]
        return digest([*keys, _CODE])

    def _compute(self, subject: Subject) -> float:
        """Return Spearman's correlation over the pixels of all slices shown, NaN where constant."""
        ours, theirs = (p.explain(subject).maps.ravel() for p in (self.trained, self.control))
        if not ours.size or np.ptp(ours) == 0 or np.ptp(theirs) == 0:
            return float("nan")
        return float(spearmanr(ours, theirs).statistic)
