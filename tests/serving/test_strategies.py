"""Which scan comes next by what the models' stored labels say."""

import pytest

from heatmask.serving.strategies import list_strategies


class Studies:
    """Unlabelled scans, and the params of their stored labels."""

    def __init__(self, **params):
        self._params = params

    def get_unlabeled_images(self):
        return list(self._params)

    def get_label_info(self, image, tag):
        assert tag == "original"
        params = self._params[image]
        return {} if params is None else {"params": params}


def describe(quality, ml):
    return {"classes": [{"name": "tumour", "quality": quality, "mask_ml": ml}]}


SOME = {
    "good": describe(0.9, 3.0),
    "none": None,
    "bad": describe(0.2, 1.0),
    "big": describe(0.6, 9),
}


@pytest.mark.parametrize(
    ("strategy", "order"),
    [
        ("least_certain", ["bad", "big", "good", "none"]),
        ("largest_lesion", ["big", "good", "bad", "none"]),
    ],
)
def test_what_the_models_said_makes_the_order(strategy, order):
    left = dict(SOME)
    for expected in order:
        assert list_strategies()[strategy]({"strategy": strategy}, Studies(**left)) == {
            "id": expected
        }
        del left[expected]
    assert list_strategies()[strategy]({"strategy": strategy}, Studies()) is None


@pytest.mark.parametrize(
    "params",
    ["text", {}, {"classes": None}, {"classes": [3]}, {"classes": [{"quality": "x"}]},
     describe(None, None)],
    ids=["text", "no classes", "null", "numbers", "words", "empty mask"],
)  # fmt: skip
@pytest.mark.parametrize("strategy", ["least_certain", "largest_lesion"])
def test_what_says_nothing_comes_last(strategy, params):
    studies = Studies(odd=params, known=describe(0.99, 0.1))
    assert list_strategies()[strategy]({}, studies) == {"id": "known"}
