"""What the numbers say, in words that are made from them."""

import math
from collections.abc import Mapping, Sequence

from heatmask.attribution.registry import get_method
from heatmask.comparison.results import Comparison, Row
from heatmask.comparison.retraining import METHOD, Outcome
from heatmask.comparison.tables import show, show_interval

ALPHA = 0.05
Outcomes = Mapping[str, Outcome]


def summarise(comparison: Comparison) -> list[str]:
    """Return the answer to what a classifier's mask is worth, and which explanation is best."""
    rows = comparison.find_headlines()
    best = rows[0]
    what = "picture" if comparison.subjects.pictures else "volume"
    count = len(comparison.subjects.subjects)
    level = [
        row
        for row, p in zip(rows, comparison.compare(rows, best), strict=True)
        if row is not best and not p < ALPHA
    ]
    lines = [
        f"The best label-free masks come from {best.name}: mean Dice per {what} "
        f"{show_interval(comparison.find_interval(best.scores['dice']))} over {count} {what}s.",
        "Of the other "
        f"{len(rows) - 1} explanations, {len(level)} cannot be told from it at p < 0.05 after "
        f"Holm's correction{_list(level)}."
        if len(rows) > 1
        else "Nothing else was asked.",
    ]
    if comparison.best_floor is not None:
        floor = comparison.best_floor
        difference = comparison.find_interval(best.scores["dice"] - floor.scores["dice"])
        lines.append(
            f"The best floor without learning is {floor.name} with {show(floor.mean('dice'))}; the "
            f"best masks are {show_interval(difference)} above it."
        )
    masks = [row for row in comparison.rows if row.kind == "masks"]
    lines += [
        f"A {row.name} ({len(comparison.given.subjects)} of them) reaches {show(row.mean('dice'))}."
        for row in masks
        if comparison.given is not None
    ]
    missing = comparison.subjects.missing
    if missing:
        lines.append(
            f"Without a reference mask, and so not scored: {len(missing)} of "
            f"{count + len(missing)} {what}s ({', '.join(missing)})."
        )
    return lines


def judge_controls(comparison: Comparison) -> list[str]:
    """Return which methods beat the same on random weights, guided backprop by name."""
    lines = []
    bundles = {row.entry.bundle for row in comparison.find_headlines() if row.entry}
    for bundle in sorted(bundles):
        rows = [
            row
            for row in comparison.find_headlines()
            if row.entry
            and row.entry.bundle == bundle
            and get_method(row.entry.method).family != "inherent"
        ]
        if len(rows) > 1:
            lines += _judge_bundle(comparison, rows)
    return lines


def _judge_bundle(comparison: Comparison, rows: Sequence[Row]) -> list[str]:
    best, pairs = rows[0], []
    for row in rows:
        control = comparison.find_control(row.entry)
        if control is not None:
            pairs.append((row, control))
    beaten = [
        (row, control)
        for row, control in pairs
        if comparison.find_interval(row.scores["dice"] - control.scores["dice"]).low > 0
    ]
    label = best.entry.label if best.entry else ""
    lines = [
        f"{label}: {best.name.split(', ')[-1]} is the best of {len(rows)} methods (Dice "
        f"{show(best.mean('dice'))}). The interval of the difference to random weights lies above "
        f"zero for {len(beaten)} of {len(pairs)}."
    ]
    for row, control in pairs:
        if row.entry and row.entry.method == "guided_backprop":
            lines.append(_judge_guided(comparison, rows, row, control))
    return lines


def _judge_guided(comparison: Comparison, rows: Sequence[Row], row: Row, control: Row) -> str:
    place = list(rows).index(row) + 1
    difference = comparison.find_interval(row.scores["dice"] - control.scores["dice"])
    survives = difference.low > 0
    share = control.mean("dice") / row.mean("dice") if row.mean("dice") else math.nan
    verdict = "it survives the control" if survives else "it does not survive the control"
    lead = "leads" if place == 1 else f"is number {place} of {len(rows)}"
    return (
        f"Guided backprop {lead} with {show(row.mean('dice'))}; on random weights it still gets "
        f"{show(control.mean('dice'))} ({show(100 * share, 0)} % of it). The difference is "
        f"{show_interval(difference)}: {verdict}."
    )


def judge_retraining(comparison: Comparison) -> list[str]:
    """Return whether hot regions suffice, and whether dark regions contribute."""
    found = {outcome.name: outcome for outcome in comparison.outcomes}
    whole = found.get("whole image")
    if whole is None:
        return []
    cams = [row for row in comparison.find_headlines() if row.entry and row.entry.method == METHOD]
    lines = [f"Mean Dice of the masks of {row.name}: {show(row.mean('dice'))}." for row in cams]
    lines.append(f"On whole images the retrained classifier scores {show(whole.score.mean)}.")
    for name, outcome in found.items():
        if name.startswith("keep the hottest") and "validation" not in name:
            share = name.rsplit(" ", 1)[-1]
            lines.append(_judge_share(found, outcome, share))
    lines += _judge_shapes(found, whole)
    lines += _judge_dark_regions(found, comparison.position_auroc)
    lines += _judge_references(found)
    return lines


def _judge_shapes(found: Outcomes, whole: Outcome) -> list[str]:
    shapes = [o for name, o in found.items() if name.startswith("only the shape of the hottest")]
    telling = max(shapes, key=lambda outcome: outcome.score.mean, default=None)
    if telling is None or telling.score.high < whole.score.mean:
        return []
    return [
        f"{telling.name.capitalize()} scores {show_interval(telling.score)}, as much as whole "
        "images: the shape of a heatmap's mask tells the label by itself, so that what filtered "
        "images score does not tell what is inside."
    ]


def _judge_dark_regions(found: Outcomes, position_auroc: float) -> list[str]:
    dark = [o for name, o in found.items() if name.startswith("remove the hottest")]
    if not dark:
        return []
    last = max(dark, key=lambda outcome: float(outcome.name.split()[-1].rstrip("%")))
    shape = found["only the shape of the hottest " + last.name.split()[-1]].score.mean
    known = not math.isnan(position_auroc)
    position = f", position alone {show(position_auroc)}" if known else ""
    return [
        f"Do dark regions contribute? Without {last.name.removeprefix('remove ')} of the head the "
        f"score is {show_interval(last.score)}; the shape of the hole alone gives {show(shape)}"
        f"{position}: {_judge_dark(last, max(shape, position_auroc) if known else shape)}."
    ]


def _judge_references(found: Outcomes) -> list[str]:
    kinds = ("whole image", "keep the reference mask", "remove the reference mask",
             "only the shape of the reference mask")  # fmt: skip
    scores = [found.get(f"{kind}, trained on the validation patients") for kind in kinds]
    if None in scores:
        return []
    whole, lesion, rest, shape = (show(one.score.mean) for one in scores if one is not None)
    return [
        "Trained on the few validation patients, who have reference masks: whole images score "
        f"{whole}, the lesion alone {lesion}, everything but the lesion {rest}, the lesion's shape "
        f"alone {shape}."
    ]


def _judge_dark(last: Outcome, bar: float) -> str:
    if last.score.low > bar:
        return "they do"
    if last.score.high < bar:
        return "they do not"
    return "it cannot be told, for what the hole or the position tells lies within the interval"


def _judge_share(found: Outcomes, kept: Outcome, share: str) -> str:
    def get(name: str) -> str:
        outcome = found.get(f"{name} {share}")
        return show(outcome.score.mean) if outcome else "–"

    foreign = "keep another patient's hottest"
    return (
        f"{share} of the head: keeping the hottest gives {show(kept.score.mean)}, a random blob "
        f"{get('keep a random blob of')}, another patient's {get(foreign)}, the shape "
        f"alone {get('only the shape of the hottest')}; removing the hottest gives "
        f"{get('remove the hottest')}, a random blob {get('remove a random blob of')}."
    )


def judge_cascades(comparison: Comparison) -> list[str]:
    """Return how much of a method's Dice is left when everything has forgotten."""
    lines = []
    for entry, depths in comparison.cascades.items():
        first, last = min(depths, key=lambda d: d.stages), max(depths, key=lambda d: d.stages)
        lines.append(
            f"{entry.name}: Dice {show(first.dice)} with all weights, {show(last.dice)} with none; "
            f"rank correlation {show(last.similarity, 2)} at the end."
        )
    return lines


def _list(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    shown = "; ".join(f"{row.name} ({show(row.mean('dice'))})" for row in rows[:6])
    more = f"; and {len(rows) - 6} more" if len(rows) > 6 else ""
    return f": {shown}{more}"
