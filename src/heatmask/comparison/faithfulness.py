"""Whether the classifier's answer depends on the pixels that a heatmap calls important."""

from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from heatmask.comparison.heatmaps import Explanations, Heatmap
from heatmask.comparison.store import Kept, digest, digest_code
from heatmask.comparison.subjects import Subject
from heatmask.evaluation.faithfulness import measure_deletion, measure_insertion
from heatmask.geometry import find_slice_axis

_CODE = digest_code(("evaluation/faithfulness.py", "comparison/faithfulness.py"))
MAX_SLICES = 4
"""Of a volume, evenly over those where a class is shown."""

Scores = dict[str, float]


class FaithfulnessScoring(Kept[Subject]):
    """Deletion and insertion on the slices that an entry explains, asked of the trained network.

    Parameters
    ----------
    explanations
        Of a network on slices; a control's heatmap is judged by the trained network too.
    """

    def __init__(self, explanations: Explanations) -> None:
        self.explanations, self.store = explanations, explanations.store

    def find_key(self, subject: Subject) -> str:
        """Return what the scores of a subject are kept under."""
        return digest([self.explanations.find_key(subject), _CODE])

    def _compute(self, subject: Subject) -> Scores:
        """Return ``deletion`` and ``insertion``, NaN where no class is shown."""
        data = self.explanations.prepare(subject)
        heatmap = self.explanations.explain(subject, data)
        if not len(heatmap.maps):
            return {"deletion": float("nan"), "insertion": float("nan")}
        images, maps, classes = _choose_slices(data["image"], heatmap, self.explanations.slice_axis)
        ask = partial(classify, self.explanations.segmenter.network, classes=classes)
        return {
            "deletion": measure_deletion(ask, images, maps),
            "insertion": measure_insertion(ask, images, maps),
        }


def _choose_slices(
    image: Tensor, heatmap: Heatmap, slice_axis: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return images (n, C, H, W), maps (n, H, W) and the class (n,) of each."""
    places = np.argwhere(heatmap.shown)
    chosen = np.unique(np.linspace(0, len(places) - 1, MAX_SLICES).round().astype(int))
    axis = find_slice_axis(image.shape[1:], slice_axis)
    slices = torch.as_tensor(image).movedim(axis + 1, 0)
    return (
        slices[places[chosen, 0]],
        torch.from_numpy(heatmap.maps[chosen]),
        torch.from_numpy(places[chosen, 1]),
    )


@torch.no_grad()
def classify(network: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """Return the probability (n,) of the class of each image."""
    device = next(network.parameters()).device
    logits = network(images.to(device)).float().cpu()
    told = logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(dim=1)
    return told.gather(1, classes[:, None])[:, 0]
