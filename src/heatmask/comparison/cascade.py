"""How alike a heatmap stays as the network forgets, stage by stage from the output."""

from typing import Any

import numpy as np
from scipy.stats import spearmanr

from heatmask.comparison.heatmaps import Explanations
from heatmask.comparison.store import digest, digest_code
from heatmask.comparison.subjects import Subject

_CODE = ("comparison/cascade.py",)


class SimilarityScoring:
    """Rank correlation of a control's heatmap with that of the trained network.

    Parameters
    ----------
    trained, control
        Two entries of one bundle and method; both explain the same slices.
    """

    def __init__(self, trained: Explanations, control: Explanations) -> None:
        self.trained, self.control = trained, control

    def find_key(self, subject: Subject) -> str:
        """Return what the score of a subject is kept under."""
        keys = [part.find_key(subject) for part in (self.trained, self.control)]
        return digest([*keys, digest_code(_CODE)])

    def is_done(self, subject: Subject) -> bool:
        """Whether it need not be computed."""
        return self.trained.store.find(self.find_key(subject), ".json") is not None

    def score(self, subject: Subject) -> Any:
        """Return Spearman's correlation over the pixels of all slices shown, NaN where constant."""
        key, store = self.find_key(subject), self.trained.store
        kept = store.read_json(key)
        if kept is None:
            kept = self._compute(subject)
            store.write_json(key, kept)
        return kept

    def _compute(self, subject: Subject) -> float:
        ours, theirs = (p.explain(subject).maps.ravel() for p in (self.trained, self.control))
        if not ours.size or np.ptp(ours) == 0 or np.ptp(theirs) == 0:
            return float("nan")
        return float(spearmanr(ours, theirs).statistic)
