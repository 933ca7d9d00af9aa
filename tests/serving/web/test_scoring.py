"""Scores in the background: made while nobody waits, kept, and what Next Sample brings by them."""

import time
from pathlib import Path

import pytest

from heatmask.serving.task import HeatmapInferTask
from heatmask.serving.web.jobs import JobError, Jobs
from heatmask.serving.web.scoring import Scoring
from helpers.serving_stub import write_scan
from helpers.web import MODEL, Web, run_web


def score_all(web: Web) -> int:
    """Score what there is; return how many scans that were."""
    count = 0
    while web.serving.scoring.score_next():
        count += 1
    return count


def test_scans_are_scored_once_and_next_sample_brings_them_in_order(
    own_web: Web, tmp_path: Path
) -> None:
    store = own_web.serving.store
    assert score_all(own_web) == 2
    assert score_all(own_web) == 0
    lesion, none = store.get_score("p1-flair"), store.get_score("p2-flair")
    assert lesion["mask_ml"] > 1 > none["mask_ml"] == 0
    assert (none["quality"], none["disagreement"]) == (None, 0.0)
    assert own_web.client.next_sample("largest_lesion", {})["id"] == "p1-flair"
    assert list(own_web.client.info()["strategies"]) == [
        "random", "first", "least_certain", "largest_lesion", "most_disagreement",
        "most_different",
    ]  # fmt: skip
    own_web.serving.close()
    store.close()
    with run_web(tmp_path) as again:
        assert again.serving.store.get_score("p1-flair") == lesion
        assert score_all(again) == 0


def test_another_scan_or_other_weights_are_scored_anew(own_web: Web) -> None:
    score_all(own_web)
    write_scan(own_web.studies / "p1/p1-flair.nii.gz", lesion=False)
    assert score_all(own_web) == 1
    assert own_web.serving.store.get_score("p1-flair")["mask_ml"] == 0
    weights = own_web.serving.app.models[MODEL].folder / "models/model.pt"
    weights.write_bytes(weights.read_bytes() + b" ")
    assert own_web.serving.scoring.score_next()


def test_a_scan_that_cannot_be_read_is_passed_over(own_web: Web) -> None:
    (own_web.studies / "p1/p1-flair.nii.gz").write_bytes(b"no scan")
    assert score_all(own_web) == 2
    assert own_web.serving.store.get_score("p1-flair")["mask_ml"] is None
    assert own_web.serving.store.get_score("p2-flair")["mask_ml"] == 0


@pytest.mark.parametrize("error", [RuntimeError("Out of memory"), JobError(504, "Too long.")])
def test_a_scan_on_which_a_model_fails_is_not_tried_again(
    own_web: Web, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(HeatmapInferTask, "answer", fail)
        assert own_web.serving.scoring.score_next()
    assert own_web.serving.store.get_score("p1-flair")["mask_ml"] is None
    assert score_all(own_web) == 1


def test_it_gives_way_to_people_and_goes_on_later(
    own_web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Jobs, "is_awaited", True)
        assert own_web.serving.scoring.score_next()
        assert own_web.serving.store.get_score("p1-flair") == {}
    assert score_all(own_web) == 2


@pytest.mark.parametrize(("idle_s", "busy", "begins"), [(0, False, True), (0, True, False),
                                                        (3600, False, False)])  # fmt: skip
def test_it_begins_when_the_server_is_idle(
    own_web: Web, monkeypatch: pytest.MonkeyPatch, idle_s: float, busy: bool, begins: bool
) -> None:
    monkeypatch.setattr("heatmask.serving.web.scoring.LOOK_EVERY_S", 0.05)
    serving = own_web.serving
    serving.app.loading.run()
    scoring = Scoring(serving.app, serving.store, serving.jobs, lambda: busy, idle_s)
    scoring.start()
    deadline = time.monotonic() + (60 if begins else 1)
    while not serving.store.get_score("p2-flair") and time.monotonic() < deadline:
        time.sleep(0.05)
    scoring.stop()
    assert bool(serving.store.get_score("p2-flair")) is begins
