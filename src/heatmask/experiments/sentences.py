"""What the numbers say, in words that are made from them."""

import math
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path

from heatmask.attribution.registry import get_method
from heatmask.experiments.cases import name_split
from heatmask.experiments.entries import list_draws
from heatmask.experiments.filtered import Condition
from heatmask.experiments.outcomes import Outcome
from heatmask.experiments.results import ALPHA, Comparison, Contrast, Row
from heatmask.experiments.retraining import EPOCHS, METHOD, SIDE, TRAIN, WHOLE
from heatmask.experiments.tables import column_of, show

MENTIONED = 6
"""Names that a sentence lists at most."""
Outcomes = Mapping[tuple[Condition, str], Outcome]


def summarise(comparison: Comparison) -> list[str]:
    """Return the answer to what a classifier's mask is worth, and which explanation is best."""
    rows = comparison.find_headlines()
    best = rows[0]
    what, count = comparison.cases.unit, best.n_counted
    level = [row for row, p in comparison.ranking[1:] if row.kind == "method" and not p < ALPHA]
    lines = [
        f"By each bundle's preset rule, no mask looked at, the best masks come from {best.name}: "
        f"mean Dice per {what} {show(comparison.find_dice(best))} over "
        f"{count} {what}s. One training of each network: another seed may change the order.",
        f"Not shown to differ from it (p < {ALPHA} after Holm's correction): {len(level)} of "
        f"{len(rows) - 1} others{_list(level)}."
        if len(rows) > 1
        else "Nothing else was asked.",
        *_judge_choice(comparison),
        *_find_better_rules(comparison),
    ]
    if comparison.best_baseline is not None:
        baseline = comparison.best_baseline
        difference = comparison.subtract(best, baseline)
        lines.append(
            f"The best baseline without learning, {baseline.name}, reaches "
            f"{show(baseline.mean('dice'))}; the best masks less that: {show(difference)}."
        )
    masks = [row for row in comparison.rows if row.kind == "masks"]
    lines += [
        f"A {row.name} ({len(comparison.given.cases)} {what}s) reaches "
        f"{show(comparison.find_dice(row))}; the best masks less that: "
        f"{show(comparison.subtract(best, row))}."
        for row in masks
        if comparison.given is not None
    ]
    return [*lines, *comparison.explain_left_out()]


def _judge_choice(comparison: Comparison) -> list[str]:
    """Return what the best of many owes to having been chosen on the cases it is scored on."""
    if math.isnan(comparison.optimism):
        return []
    count, owed = len(comparison.find_headlines()), show(max(0.0, comparison.optimism))
    who = "groups" if comparison.cases.pictures else "patients"
    return [
        f"The best of {count} owes {owed} of its mean Dice to having been chosen on these {who}: "
        "chosen without a random fifth of them, 2,000 times, it has that much less on the fifth."
    ]


def _find_better_rules(comparison: Comparison) -> list[str]:
    """Return which heatmaps have better masks by another label-free rule, beyond chance."""
    own = {row.entry: row for row in comparison.find_headlines()}
    pairs = [
        (row, own[row.entry])
        for row in comparison.rows
        if row.kind == "method" and row.label_free and row is not own[row.entry]
    ]
    better = [(other, row) for other, row in pairs if comparison.subtract(other, row).low > 0]
    if not better:
        return []
    better.sort(key=lambda pair: -pair[0].mean("dice"))
    named = "; ".join(
        f"{other.name}, {other.how}, {show(other.mean('dice'))} instead of {show(row.mean('dice'))}"
        for other, row in better[: MENTIONED // 2]
    )
    more = "" if len(better) <= MENTIONED // 2 else ", among others"
    return [f"Another rule without masks would have been better for {len(better)}: {named}{more}."]


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
    nothing = "of these the random network shows nothing at all, which proves little"
    said = f" For {len(idle)} {nothing}{_list(idle)}." if idle else ""
    worse = [one.row for one in found if one.control.mean("auprc") > one.row.mean("auprc")]
    lines = [
        f"{best.name} has the best masks of {len(found)} methods (Dice {show(best.mean('dice'))}). "
        f"{len(better)} of {len(found)} are better than the same on random weights (interval of "
        f"the difference above zero, and p < {ALPHA} after Holm's correction).{said}"
    ]
    if worse:
        lines.append(
            "Before any threshold, the random network's heatmap ranks pixels better (AUPRC) for "
            f"{len(worse)} of {len(found)}{_list(worse, 'auprc')}."
        )
    for one in found:
        if one.row.entry and one.row.entry.method == "guided_backprop":
            lines.append(_judge_guided(one, found))
    return lines


def _judge_guided(guided: Contrast, found: Sequence[Contrast]) -> str:
    """Return whether it leads, whether its masks need the weights, and whether the lead does."""
    dice, control = guided.row.mean("dice"), guided.control.mean("dice")
    share = control / dice if dice else math.nan
    ranked = sorted(found, key=lambda one: -one.difference.mean)
    place, rank = found.index(guided) + 1, ranked.index(guided) + 1
    masks = "better than" if guided.holds else "not shown to be better than"
    survives = place == rank == 1 and guided.holds
    lead = "its lead survives" if survives else "it has no lead that survives"
    return (
        f"Guided backprop is number {place} of {len(found)} with {show(dice)}"
        f"{_name_first(place, found[0].row, found[0].row.mean('dice'))}. On random "
        f"weights it still gets {show(control)} ({show(100 * share, 0)} % of it); the difference, "
        f"{show(guided.difference)}, makes its masks {masks} those of random weights. By that "
        f"difference it is number {rank}"
        f"{_name_first(rank, ranked[0].row, ranked[0].difference.mean)}: {lead} the control."
    )


def _name_first(place: int, first: Row, value: float) -> str:
    return "" if place == 1 else f" (first: {first.name}, {show(value)})"


def describe_retraining(comparison: Comparison) -> str:
    """Return how the networks of this experiment are trained."""
    score = "macro F1" if comparison.cases.by_class else "AUROC"
    position = " They are trained to explain what a slice's height in the stack does not."
    position *= not comparison.cases.pictures
    return (
        f"Networks of the shape of {comparison.retrained}'s are trained anew on images of {SIDE} "
        f"pixels a side for {EPOCHS} epochs, filtered by that bundle's Grad-CAM, and asked about "
        f"test images filtered alike; scores are {score}.{position}"
    )


def judge_retraining(comparison: Comparison) -> list[str]:
    """Return whether hot regions suffice, and whether dark regions contribute."""
    found = {(one.condition, one.learns): one for one in comparison.outcomes}
    whole = found.get((WHOLE, TRAIN))
    if whole is None:
        return []
    cams = [row for row in comparison.find_headlines() if row.entry and row.entry.method == METHOD]
    lines = [f"Mean Dice of the masks of {row.name}: {show(row.mean('dice'))}." for row in cams]
    lines.append(f"On whole images the retrained classifier scores {show(whole.score)}.")
    shares = sorted({c.quantile for c, learns in found if c.quantile and learns == TRAIN})
    lines += [_judge_share(found, share) for share in shares]
    chance = 1 / max(2, len(comparison.cases.classes))
    lines += _judge_shapes(found, shares, chance)
    lines.append(_judge_dark_regions(found, shares[-1]))
    for learns in dict.fromkeys(learns for _, learns in found if learns != TRAIN):
        lines.append(_judge_references(found, learns))
    return lines


def _judge_share(found: Outcomes, share: float) -> str:
    def get(kind: str, **words: bool) -> str:
        return show(found[Condition(kind, share, **words), TRAIN].score.mean)

    return (
        f"{100 * share:g}% of the foreground: keeping the hottest gives {get('hot')}, a random "
        f"blob {get('random')}, another patient's {get('other')}, the shape alone "
        f"{get('hot', blank=True)}; removing the hottest gives {get('hot', keep=False)}, a random "
        f"blob {get('random', keep=False)}."
    )


def _judge_shapes(found: Outcomes, shares: Sequence[float], chance: float) -> list[str]:
    shapes = [found[Condition("hot", share, blank=True), TRAIN] for share in shares]
    telling = max(shapes, key=lambda outcome: outcome.score.mean)
    if telling.gap.high < 0 or telling.score.low <= chance:
        return []
    return [
        f"{telling.name.capitalize()} scores {show(telling.score)}, not shown to be "
        f"less than whole images (difference {show(telling.gap)}): the shape of a "
        "heatmap's mask tells the label by itself, so that what filtered images score does not "
        "tell what is inside."
    ]


def _judge_dark_regions(found: Outcomes, share: float) -> str:
    dark = found[Condition("hot", share, keep=False), TRAIN]
    shape = found[Condition("hot", share, blank=True), TRAIN]
    if dark.score.low > shape.score.mean:
        answer = "they do"
    elif dark.score.high < shape.score.mean:
        answer = "they do not"
    else:
        answer = "this is undecided, for the shape of the hole alone would do as well"
    return (
        f"Do dark regions contribute? Without {dark.name.removeprefix('remove ')} of the "
        f"foreground the score is {_show_outcome(dark)}; the shape of the hole alone gives "
        f"{_show_outcome(shape)}: {answer}."
    )


def _show_outcome(outcome: Outcome) -> str:
    within = outcome.within_deciles
    known = "" if math.isnan(within) else f" (within tenths of the stack {show(within)})"
    return show(outcome.score) + known


def _judge_references(found: Outcomes, learns: str) -> str:
    conditions = (WHOLE, Condition("reference"), Condition("reference", keep=False),
                  Condition("reference", blank=True))  # fmt: skip
    whole, lesion, rest, shape = (show(found[c, learns].score.mean) for c in conditions)
    full = found[WHOLE, TRAIN].score.mean
    few = (
        f" Whole images score {show(full)} when all training labels are learnt from: that is too "
        "few to tell what the rest of the image holds."
        if found[WHOLE, learns].score.high < full
        else ""
    )
    return (
        f"Trained on the {name_split(learns)} alone, who have reference masks: whole images score "
        f"{whole}, the lesion alone {lesion}, everything but the lesion {rest}, the lesion's shape "
        f"alone {shape}.{few}"
    )


def judge_faithfulness(comparison: Comparison) -> list[str]:
    """Return which explanations find what the classifier needs no better than random weights do."""
    found = comparison.faithfulness
    asked, level = 0, []
    for entry, scores in found.items():
        control = found.get(list_draws(entry)[0]) if not entry.control else None
        if control is None:
            continue
        asked += 1
        gains = [
            sign * (column_of(scores, key) - column_of(control, key))
            for key, sign in (("deletion", -1.0), ("insertion", 1.0))
        ]
        if not all(comparison.find_interval(gain).low > 0 for gain in gains):
            level.append(entry.name)
    if not asked:
        return []
    names = f": {'; '.join(level)}" if level else ""
    return [
        f"{asked - len(level)} of {asked} explanations find what the classifier depends on better "
        "than the same method on random weights, by deletion and by insertion (both intervals of "
        f"the difference above zero). Not shown for {len(level)}{names}."
    ]


def judge_cascades(comparison: Comparison) -> list[str]:
    """Return how far the network may forget before masks get worse, and what is left at the end."""
    lines = []
    for entry, depths in comparison.cascades.items():
        ordered = sorted(depths, key=lambda depth: depth.stages)
        first, last = ordered[0], ordered[-1]
        kept = list(takewhile(lambda depth: depth.difference.high >= 0, ordered[1:]))
        line = (
            f"{entry.name}: Dice {show(first.dice)} with all weights, {show(last.dice)} with none; "
            f"rank correlation {show(last.similarity, 2)} at the end."
        )
        if kept:
            line += (
                f" With the last {kept[-1].stages} of {last.stages} stages forgotten (down to "
                f"{kept[-1].last}) it still has {show(kept[-1].dice)} (difference to the trained "
                f"{show(kept[-1].difference)}): these masks are not shown to need them."
            )
        lines.append(line)
    return lines


def _list(rows: Sequence[Row], key: str = "dice") -> str:
    if not rows:
        return ""
    shown = "; ".join(f"{row.name} ({show(row.mean(key))})" for row in rows[:MENTIONED])
    more = f"; and {len(rows) - MENTIONED} more" if len(rows) > MENTIONED else ""
    return f": {shown}{more}"
