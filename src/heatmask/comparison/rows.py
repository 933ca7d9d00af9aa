"""From what the store holds of masks, floors and classifiers to the rows of a comparison."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heatmask.comparison.entries import RANDOM, Entry, list_draws
from heatmask.comparison.floors import choose_candidates
from heatmask.comparison.results import KEYS, Classifier, Comparison, Row
from heatmask.comparison.scores import N_LEVELS, OWN, find_best_level
from heatmask.comparison.subjects import name_split
from heatmask.comparison.work import Place, Task, read_task
from heatmask.evaluation.baselines import FLOORS
from heatmask.evaluation.classification import compute_relative_positions


def add_rows(comparison: Comparison, done: Sequence[Task], place: Place) -> None:
    """Add the rows of the tasks that were done, and the classifier of each bundle."""
    masks = {(t.entry, t.split): t for t in done if t.kind == "masks"}
    for (entry, split), task in masks.items():
        if split != place.split:
            continue
        found = read_task(task, place)
        comparison.rows += _make_rows(entry, found)
        if entry.control:
            continue
        draws = [masks[draw, split] for draw in list_draws(entry) if (draw, split) in masks]
        if draws:
            comparison.rows.append(_join_draws(entry, [read_task(draw, place) for draw in draws]))
        best = int(np.nanmean([one["levels"] for one in found], axis=0).argmax())
        chosen = {"c": (best, "best on these masks")}
        if (entry, place.given) in masks and comparison.given is not None:
            given = read_task(masks[entry, place.given], place)
            level = find_best_level(given, comparison.given.clusters)
            chosen["b"] = (level, f"chosen on masks of the {name_split(place.given)}")
        comparison.rows += [
            _make_level_row(entry, found, level, rule, words)
            for rule, (level, words) in sorted(chosen.items())
        ]
        if not any(one.name == entry.label for one in comparison.classifiers):
            comparison.classifiers.append(_make_classifier(entry, found, comparison))
    for task in done:
        if task.kind == "floors":
            comparison.rows += _make_floors(read_task(task, place))
        if task.kind == "few masks":
            scores = _stack(read_task(task, place))
            name = f"U-Net trained on masks of the {name_split(place.given)}"
            comparison.rows.append(Row(name, "masks", "b", "probability 0.5", scores))


def _make_rows(entry: Entry, found: Sequence[Mapping[str, Any]]) -> list[Row]:
    rows = []
    for rule in found[0]["rules"]:
        scores = _stack([one["rules"][rule] for one in found])
        if rule == OWN:
            scores |= _stack([{**one["heatmap"], **_pick(one)} for one in found])
        dice = [one["slice_dice"][rule] for one in found]
        owner = np.repeat(np.arange(len(dice)), [len(part) for part in dice])
        rows.append(
            Row(
                entry.name,
                "control" if entry.control else "method",
                "a",
                rule,
                scores,
                entry,
                (np.concatenate([np.zeros(0), *map(np.asarray, dice)]), owner),
            )
        )
    return rows


def _join_draws(entry: Entry, draws: Sequence[Sequence[Mapping[str, Any]]]) -> Row:
    """Return one row for all networks of random weights, each subject the mean over them."""
    stacks = [_make_rows(entry, found)[0].scores for found in draws]
    scores = {key: _mean_known(np.array([one[key] for one in stacks])) for key in stacks[0]}
    control = Entry(entry.bundle, entry.method, RANDOM)
    return Row(control.name, "control", "a", OWN, scores, control)


def _mean_known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean (N,) of what is not NaN of (D, N), NaN where nothing is."""
    known = np.isfinite(values)
    counts = known.sum(axis=0)
    sums = np.where(known, values, 0.0).sum(axis=0)
    return np.divide(sums, counts, out=np.full(counts.shape, np.nan), where=counts > 0)


def _pick(one: Mapping[str, Any]) -> dict[str, float]:
    return {"confidence": one["confidence"], "seconds": one["seconds"]}


def _stack(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    keys = [key for key in KEYS if key in found[0]]
    scores = {key: np.array([one[key] for one in found], float) for key in keys}
    if "mask_size" in scores:
        scores["empty"] = (scores["mask_size"] == 0).astype(float)
    return scores


def _make_level_row(
    entry: Entry, found: Sequence[Mapping[str, Any]], level: int, rule: Any, words: str
) -> Row:
    dice = np.array([one["levels"][level] for one in found], float)
    share = (level + 0.5) / N_LEVELS
    return Row(
        entry.name, "method", rule, f"{words}: {share:.3g} of the range", {"dice": dice}, entry
    )


def _make_floors(found: Sequence[Mapping[str, Any]]) -> list[Row]:
    rows = []
    for name, (number, scores) in choose_candidates(found).items():
        levels = FLOORS[name].levels if name in FLOORS else ()
        how = f"mean + {levels[number]:g} SD, best on these masks" if levels else "none"
        rows.append(Row(name, "floor", "c" if levels else "a", how, _stack(scores)))
    return rows


def _make_classifier(
    entry: Entry, found: Sequence[Mapping[str, Any]], comparison: Comparison
) -> Classifier:
    subjects = comparison.subjects.subjects
    labels = [np.array(subject.labels) for subject in subjects]
    positions = [compute_relative_positions(len(part)) for part in labels]
    return Classifier(
        entry.label,
        np.concatenate(labels),
        np.concatenate([np.array(one["probabilities"]) for one in found]),
        np.concatenate(positions),
        [s.cluster for s, part in zip(subjects, labels, strict=True) for _ in part],
    )
