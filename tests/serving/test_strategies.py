"""Which scan comes next by what the models say of it."""

import pytest

from heatmask.serving.strategies import list_strategies

NUMBERS = ("least_certain", "largest_lesion", "most_disagreement", "most_different")


class Studies:
    """Scans, their scores, and the params of their stored labels."""

    def __init__(self, scores, labelled=(), **params):
        self._scores, self._labelled, self._params = scores, labelled, params

    def get_unlabeled_images(self):
        return [name for name in (*self._scores, *self._params) if name not in self._labelled]

    def get_labeled_images(self):
        return list(self._labelled)

    def get_score(self, image):
        return self._scores.get(image, {})

    def get_label_info(self, image, tag):
        assert tag == "original"
        return {"params": self._params[image]} if image in self._params else {}


def score(quality, ml, disagreement, *features):
    return {
        "quality": quality, "mask_ml": ml, "disagreement": disagreement, "features": features,
        "of": "x",
    }  # fmt: skip


def describe(quality, ml):
    return {"classes": [{"name": "tumour", "quality": quality, "mask_ml": ml}]}


SCORES = {
    "unknown": {},
    "good": score(0.9, 3.0, 0.3, 0.0, 0.0),
    "empty": score(None, 0.0, 0.5, 0.1, 0.1),
    "bad": score(0.2, 1.0, 0.9, 5.0, 1.0),
    "big": score(0.6, 9, 0.1, -4.0, -1.0),
}


def sort(strategy, scores, **params):
    """Return all scans in the order in which they come, each labelled before the next one."""
    found = []
    for _ in (*scores, *params):
        studies = Studies(scores, found, **params)
        found.append(list_strategies()[strategy]({"strategy": strategy}, studies)["id"])
    assert list_strategies()[strategy]({"strategy": strategy}, Studies(scores, found)) is None
    return found


@pytest.mark.parametrize(
    ("strategy", "order"),
    [
        ("least_certain", ["bad", "big", "good", "unknown", "empty"]),
        ("largest_lesion", ["big", "good", "bad", "empty", "unknown"]),
        ("most_disagreement", ["bad", "empty", "good", "big", "unknown"]),
        ("most_different", ["good", "bad", "big", "empty", "unknown"]),
    ],
)
def test_what_the_models_said_makes_the_order(strategy, order):
    assert sort(strategy, SCORES) == order


def test_a_stored_label_counts_where_there_is_no_score():
    some = {"scored": score(0.5, 5.0, None)}
    labels = {"worse": describe(0.3, 7.0), "better": describe(0.8, 0.5)}
    assert sort("least_certain", some, **labels) == ["worse", "scored", "better"]
    assert sort("largest_lesion", some, **labels) == ["worse", "scored", "better"]


@pytest.mark.parametrize(
    "params",
    ["text", {}, {"classes": None}, {"classes": [3]}, {"classes": [{"quality": "x"}]},
     describe(None, None)],
    ids=["text", "no classes", "null", "numbers", "words", "empty mask"],
)  # fmt: skip
@pytest.mark.parametrize("strategy", NUMBERS)
def test_what_says_nothing_comes_last(strategy, params):
    known = {"known": score(0.99, 0.1, 0.0, 1.0)}
    assert sort(strategy, known, odd=params) == ["known", "odd"]
