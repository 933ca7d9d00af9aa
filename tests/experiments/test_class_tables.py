"""What a report says of the classifier, of slices and of pictures."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from heatmask.experiments.bootstrap import Interval
from heatmask.experiments.class_tables import tabulate_classes
from heatmask.experiments.entries import Entry
from heatmask.experiments.predictions import Predictions, gather_predictions
from heatmask.experiments.results import Depth, Row
from heatmask.experiments.sentences import judge_cascades


@pytest.mark.parametrize("pictures", [False, True])
def test_only_slices_have_a_place_in_a_stack(pictures: bool) -> None:
    rng, labels = np.random.default_rng(0), np.arange(200) % 2
    given = np.clip(0.5 * labels + 0.5 * rng.random(200), 0, 1)[:, None]
    clusters = [str(n // 10) for n in range(200)]
    one = Predictions("network", labels, given, np.arange(200) % 10 / 10, clusters)
    cases = SimpleNamespace(by_class=False, pictures=pictures)
    comparison = SimpleNamespace(cases=cases, predictions=[one], position_auroc=0.7)
    table = tabulate_classes(comparison)
    found = dict(zip(table.header, table.rows[0], strict=True))
    assert ("within tenths of the stack" in found) is not pictures
    assert ("Position alone" in table.note) is not pictures
    assert found["F1, lesion"] == found["F1, none"] == "1.000"
    assert found["average precision"] == "1.000"


def test_the_order_of_the_classes_is_the_networks_own() -> None:
    cases = SimpleNamespace(
        classes=("dim", "bright"),
        cases=[SimpleNamespace(labels=(n,), cluster=str(n)) for n in (0, 1, 1)],
    )
    given = [[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]]
    found = [
        gather_predictions("one", [{"probabilities": [row[::step]]} for row in given], cases, own)
        for step, own in ((1, ("dim", "bright")), (-1, ("bright", "dim")))
    ]
    for one in found:
        np.testing.assert_array_equal(one.probabilities, given)


def test_a_case_without_a_mask_says_nothing_of_confidence() -> None:
    """There confidence and Dice are 0, so that they would agree by themselves."""
    scores = {"confidence": [0.0, 0.9, 0.8], "empty": [1.0, 0.0, 0.0], "dice": [0.0, 0.5, 0.6]}
    row = Row("r", "method", "a", "own", {key: np.array(v) for key, v in scores.items()})
    np.testing.assert_array_equal(row.confidence, [np.nan, 0.9, 0.8])


def test_masks_need_a_stage_whose_loss_shows() -> None:
    """Although deeper ones happen to lose less: what comes after the first loss does not count."""
    differences = {1: (-0.2, -0.3, -0.1), 2: (-0.1, -0.3, 0.1)}
    depths = [Depth(0, "none", 0.5, Interval(0, 0, 0), 1.0)]
    depths += [
        Depth(n, f"layer{n}", 0.3, Interval(*d), 0.2) for n, d in sorted(differences.items())
    ]
    entry = Entry(Path("one_segmentation"), "saliency")
    (line,) = judge_cascades(SimpleNamespace(cascades={entry: depths}))
    assert "forgotten" not in line
    (line,) = judge_cascades(SimpleNamespace(cascades={entry: [depths[0], depths[2]]}))
    assert "not shown to need them" in line
