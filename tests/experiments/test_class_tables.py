"""What a report says of the classifier, of slices and of pictures."""

from types import SimpleNamespace

import numpy as np
import pytest

from heatmask.experiments.class_tables import tabulate_classes
from heatmask.experiments.predictions import Predictions


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
