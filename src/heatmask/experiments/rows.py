"""From the scores of masks, baselines and classifiers to the rows of a table."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heatmask.experiments.baselines import BASELINES, choose_candidates
from heatmask.experiments.cases import Place, name_split
from heatmask.experiments.entries import RANDOM, Entry, list_draws
from heatmask.experiments.predictions import gather_predictions
from heatmask.experiments.results import KEYS, Comparison, Row
from heatmask.experiments.scores import N_LEVELS, OWN, find_best_level
from heatmask.experiments.work import Task, read_cases, read_task

Found = Sequence[Mapping[str, Any]]
"""One result a case."""


def add_rows(comparison: Comparison, done: Sequence[Task], place: Place) -> None:
    """Add the rows of the tasks that were done, and the classifier of each bundle."""
    masks = {(t.entry, t.split): t for t in done if t.kind == "masks"}
    for (entry, split), task in masks.items():
        if split != place.split:
            continue
        found = read_task(task, place)
        comparison.rows += make_rows(entry, found)
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
        if not any(one.name == entry.label for one in comparison.predictions):
            own = read_cases(entry.bundle, place, place.split).classes
            comparison.predictions.append(
                gather_predictions(entry.label, found, comparison.cases, own)
            )
    for task in done:
        if task.kind == "baselines":
            comparison.rows += make_baselines(read_task(task, place))
        if task.kind == "few masks":
            name = f"U-Net trained on masks of the {name_split(place.given)}"
            scores = _stack(read_task(task, place))
            comparison.rows.append(Row(name, "masks", "b", "probability 0.5", scores))


def make_rows(entry: Entry, found: Found) -> list[Row]:
    """Return a row for each rule that looks at no mask, the bundle's own first."""
    return [_make_row(entry, found, rule) for rule in found[0]["rules"]]


def _make_row(entry: Entry, found: Found, rule: str) -> Row:
    scores = _stack([one["rules"][rule] for one in found])
    if rule == OWN:
        further = ({k: one[k] for k in ("confidence", "seconds")} for one in found)
        pairs = zip(found, further, strict=True)
        scores |= _stack([{**one.get("heatmap", {}), **more} for one, more in pairs])
    dice = [np.asarray(one.get("slice_dice", {}).get(rule, ())) for one in found]
    slice_dice = np.concatenate([np.zeros(0), *dice])
    owner = np.repeat(np.arange(len(dice)), [part.size for part in dice])
    kind: Any = "control" if entry.control else "method"
    return Row(entry.name, kind, "a", rule, scores, entry, (slice_dice, owner))


def _join_draws(entry: Entry, draws: Sequence[Found]) -> Row:
    """Return one row for all networks of random weights, each case the mean over them."""
    stacks = [_make_row(entry, found, OWN).scores for found in draws]
    scores = {key: _mean_known(np.array([one[key] for one in stacks])) for key in stacks[0]}
    control = Entry(entry.bundle, entry.method, RANDOM)
    return Row(control.name, "control", "a", OWN, scores, control)


def _mean_known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean (N,) of what is not NaN of (D, N), NaN where nothing is."""
    known = np.isfinite(values)
    counts = known.sum(axis=0)
    sums = np.where(known, values, 0.0).sum(axis=0)
    return np.divide(sums, counts, out=np.full(counts.shape, np.nan), where=counts > 0)


def _stack(found: Found) -> dict[str, Any]:
    keys = [key for key in KEYS if key in found[0]]
    scores = {key: np.array([one[key] for one in found], float) for key in keys}
    if "mask_size" in scores:
        scores["empty"] = (scores["mask_size"] == 0).astype(float)
    return scores


def _make_level_row(entry: Entry, found: Found, level: int, rule: Any, words: str) -> Row:
    dice = np.array([one["levels"][level] for one in found], float)
    how = f"{words}: {(level + 0.5) / N_LEVELS:.3g} of the range"
    return Row(entry.name, "method", rule, how, {"dice": dice}, entry)


def make_baselines(found: Found) -> list[Row]:
    """Return a row for each baseline; an upper bound has the level that is best on these masks."""
    rows = []
    for name, (number, scores) in choose_candidates(found).items():
        levels = BASELINES[name].levels if name in BASELINES else ()
        level = levels[number] if levels else None
        how = f"mean + {level:g} SD, best on these masks" if levels else "none"
        rule: Any = "c" if levels else "a"
        rows.append(Row(name, "baseline", rule, how, _stack(scores), level=level))
    return rows
