"""What the numbers say, in words that are made from them."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from heatmask.attribution.registry import get_method
from heatmask.comparison.results import ALPHA, Comparison, Contrast, Row
from heatmask.comparison.retraining import METHOD, TRAIN, WHOLE, Outcome
from heatmask.comparison.subjects import name_split
from heatmask.comparison.tables import show, show_interval
from heatmask.training.filtered import Condition

Outcomes = Mapping[tuple[Condition, str], Outcome]


def summarise(comparison: Comparison) -> list[str]:
    """Return the answer to what a classifier's mask is worth, and which explanation is best."""
    rows = comparison.find_headlines()
    best = rows[0]
    what = "picture" if comparison.subjects.pictures else "volume"
    count = len(comparison.subjects.subjects)
    level = [row for row, p in comparison.ranking[1:] if row.kind == "method" and not p < ALPHA]
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
    by_bundle: dict[Path, list[Contrast]] = {}
    for found in comparison.contrasts:
        entry = found.row.entry
        if entry and get_method(entry.method).family != "inherent":
            by_bundle.setdefault(entry.bundle, []).append(found)
    return [line for _, own in sorted(by_bundle.items()) if len(own) > 1 for line in _judge(own)]


def _judge(found: Sequence[Contrast]) -> list[str]:
    best = found[0].row
    better = [one for one in found if one.holds]
    idle = [one.row for one in better if one.is_idle]
    said = (
        f" For {len(idle)} of these the random network shows nothing at all, which proves "
        f"little{_list(idle)}."
        if idle
        else ""
    )
    lines = [
        f"{best.name} has the best masks of {len(found)} methods (Dice {show(best.mean('dice'))}). "
        f"{len(better)} of {len(found)} are better than the same on random weights (interval of "
        f"the difference above zero, and p < {ALPHA} after Holm's correction).{said}"
    ]
    for place, one in enumerate(found, 1):
        if one.row.entry and one.row.entry.method == "guided_backprop":
            lines.append(_judge_guided(one, place, len(found)))
    return lines


def _judge_guided(found: Contrast, place: int, count: int) -> str:
    dice, control = found.row.mean("dice"), found.control.mean("dice")
    share = control / dice if dice else math.nan
    verdict = "it survives the control" if found.holds else "it does not survive the control"
    lead = "leads" if place == 1 else f"is number {place} of {count}"
    return (
        f"Guided backprop {lead} with {show(dice)}; on random weights it still gets "
        f"{show(control)} ({show(100 * share, 0)} % of it). The difference is "
        f"{show_interval(found.difference)}: {verdict}."
    )


def judge_retraining(comparison: Comparison) -> list[str]:
    """Return whether hot regions suffice, and whether dark regions contribute."""
    found = {(one.condition, one.learns): one for one in comparison.outcomes}
    whole = found.get((WHOLE, TRAIN))
    if whole is None:
        return []
    cams = [row for row in comparison.find_headlines() if row.entry and row.entry.method == METHOD]
    lines = [f"Mean Dice of the masks of {row.name}: {show(row.mean('dice'))}." for row in cams]
    lines.append(f"On whole images the retrained classifier scores {show(whole.score.mean)}.")
    shares = sorted({c.quantile for c, learns in found if c.quantile and learns == TRAIN})
    lines += [_judge_share(found, share) for share in shares]
    lines += _judge_shapes(found, shares)
    lines += _judge_dark_regions(found, shares[-1], comparison.position_auroc)
    for learns in dict.fromkeys(learns for _, learns in found if learns != TRAIN):
        lines.append(_judge_references(found, learns))
    return lines


def _judge_share(found: Outcomes, share: float) -> str:
    def get(kind: str, **words: bool) -> str:
        return show(found[Condition(kind, share, **words), TRAIN].score.mean)

    return (
        f"{100 * share:g}% of the head: keeping the hottest gives {get('hot')}, a random blob "
        f"{get('random')}, another patient's {get('other')}, the shape alone "
        f"{get('hot', blank=True)}; removing the hottest gives {get('hot', keep=False)}, a random "
        f"blob {get('random', keep=False)}."
    )


def _judge_shapes(found: Outcomes, shares: Sequence[float]) -> list[str]:
    shapes = [found[Condition("hot", share, blank=True), TRAIN] for share in shares]
    telling = max(shapes, key=lambda outcome: outcome.score.mean)
    if telling.gap.high < 0:
        return []
    return [
        f"{telling.name.capitalize()} scores {show_interval(telling.score)}; less whole images, "
        f"that is {show_interval(telling.gap)}, which does not tell them apart: the shape of a "
        "heatmap's mask tells the label by itself, so that what filtered images score does not "
        "tell what is inside."
    ]


def _judge_dark_regions(found: Outcomes, share: float, position_auroc: float) -> list[str]:
    dark = found[Condition("hot", share, keep=False), TRAIN]
    shape = found[Condition("hot", share, blank=True), TRAIN].score.mean
    known = not math.isnan(position_auroc)
    position = f", position alone {show(position_auroc)}" if known else ""
    bar = max(shape, position_auroc) if known else shape
    return [
        f"Do dark regions contribute? Without {dark.name.removeprefix('remove ')} of the head the "
        f"score is {show_interval(dark.score)}; the shape of the hole alone gives {show(shape)}"
        f"{position}: {_judge_dark(dark, bar)}."
    ]


def _judge_dark(dark: Outcome, bar: float) -> str:
    if dark.score.low > bar:
        return "they do"
    if dark.score.high < bar:
        return "they do not"
    return "it cannot be told, for what the hole or the position tells lies within the interval"


def _judge_references(found: Outcomes, learns: str) -> str:
    conditions = (WHOLE, Condition("reference"), Condition("reference", keep=False),
                  Condition("reference", blank=True))  # fmt: skip
    whole, lesion, rest, shape = (show(found[c, learns].score.mean) for c in conditions)
    return (
        f"Trained on the few {name_split(learns)}, who have reference masks: whole images score "
        f"{whole}, the lesion alone {lesion}, everything but the lesion {rest}, the lesion's shape "
        f"alone {shape}."
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
