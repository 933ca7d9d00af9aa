"""The tables of a report."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from heatmask.comparison.entries import list_draws
from heatmask.comparison.faithfulness import MAX_SLICES
from heatmask.comparison.published import PUBLISHED
from heatmask.comparison.results import Comparison
from heatmask.comparison.retraining import WHOLE
from heatmask.evaluation.bootstrap import Interval

NAN = float("nan")


@dataclass(frozen=True)
class Table:
    """A table as texts.

    Attributes
    ----------
    title
        What it shows.
    header
        (C,).
    rows
        Each (C,).
    note
        What the reader has to know beside it.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def show(value: float, digits: int = 3) -> str:
    """Return a number, a dash for NaN."""
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def show_interval(interval: Interval) -> str:
    """Return "mean [low, high]"."""
    mean, low, high = map(show, interval)
    return mean if low == "–" else f"{mean} [{low}, {high}]"


def tabulate_masks(comparison: Comparison) -> Table:
    """Masks by each bundle's own label-free rule, the best first, then what needs no classifier."""
    # A picture shows a lesion: there are no slices without one.
    false = () if comparison.subjects.pictures else ("false ml",)
    first = comparison.ranking[0][0]
    lines = [
        (
            row.name, f"({row.rule})",
            show_interval(comparison.find_interval(row.scores["dice"])),
            "–" if row is first
            else show_interval(comparison.find_interval(row.scores["dice"] - first.scores["dice"])),
            _show_p(p),
            show(float(np.nanmedian(row.scores["dice"]))),
            show_interval(comparison.find_interval(row.scores["iou"])),
            show(row.mean("hd95"), 1), show(row.mean("surface_dice")), show(row.mean("auprc")),
            show(row.mean("pointing"), 2), show(row.mean("energy"), 2),
            *(show(row.mean("false_size"), 1) for _ in false),
            f"{row.scores['empty'].sum():.0f}",
        )
        for row, p in comparison.ranking
    ]  # fmt: skip
    return Table(
        "Masks",
        (
            "masks from", "rule", "mean Dice [95 %]", "less the first [95 %]", "p", "median",
            "mean IoU [95 %]",
            f"HD95, {comparison.unit}", "surface Dice", "pixel AUPRC", "pointing", "energy", *false,
            "without mask",
        ),
        tuple(lines),
        "Explanations of trained networks by the bundle's own label-free rule, then floors and "
        "a network trained on masks. False ml: mean volume found on slices without a lesion. "
        "Without mask: how many; HD95 leaves them out, Dice counts them as 0. p: "
        "against the first, adjusted for the number of rows. The first was picked on these cases, "
        "so that its own figure is a little flattered.",
    )  # fmt: skip


def tabulate_rules(comparison: Comparison) -> Table:
    """The same heatmaps by other thresholds, (a), (b) and (c) apart."""
    lines = []
    for headline in comparison.find_headlines():
        same = [row for row in comparison.rows if row.entry == headline.entry]
        lines += [
            (
                row.name, f"({row.rule})", row.how,
                show_interval(comparison.find_interval(row.scores["dice"])),
                show(float(np.nanmedian(row.scores["dice"]))),
            )
            for row in sorted(same, key=lambda row: row.rule)
        ]  # fmt: skip
    return Table(
        "Thresholds",
        ("heatmap", "rule", "threshold", "mean Dice [95 %]", "median"),
        tuple(lines),
        "(a) no mask was looked at; (b) chosen on the masks of validation patients; (c) chosen on "
        "the very masks reported on, and no result. The level of (b) and (c) is one of 20 over the "
        "heatmap's range and the same for all cases, the rest of the way to the mask is the "
        "bundle's own: a rule (a) that adapts to each case may do better than (c).",
    )


def tabulate_strata(comparison: Comparison, count: int = 8) -> Table:
    """Dice by the size of the lesion, in thirds of the subjects."""
    rows = comparison.find_headlines()[:count]
    rows += [comparison.best_floor] if comparison.best_floor else []
    sizes = rows[0].scores["reference_size"]
    edges = np.quantile(sizes, (1 / 3, 2 / 3))
    third = np.digitize(sizes, edges)
    unit = "pixels" if comparison.subjects.pictures else "ml"
    names = [
        f"{word} ({sizes[third == k].min():.0f} to {sizes[third == k].max():.0f} {unit}, "
        f"n = {(third == k).sum()})"
        for k, word in enumerate(("small", "middle", "large"))
        if (third == k).any()
    ]
    lines = tuple(
        (
            row.name,
            *(
                show(float(np.nanmean(row.scores["dice"][third == k])))
                for k in range(3)
                if (third == k).any()
            ),
        )
        for row in rows
    )
    return Table(
        "By size of the lesion", ("masks from", *names), lines, "Mean Dice; thirds of the subjects."
    )


def tabulate_controls(comparison: Comparison) -> Table:
    """Each method beside the same on random weights."""
    lines = []
    for found in comparison.contrasts:
        row, other = found.row, found.control
        memory = comparison.memory_gb.get(row.entry, NAN) if row.entry else NAN
        lines.append(
            (
                row.name, show(row.mean("dice")), show(other.mean("dice")), str(found.draws),
                f"{100 * other.mean('empty'):.0f} %", show_interval(found.difference),
                _show_p(found.p), show(row.mean("auprc")), show(other.mean("auprc")),
                show(row.mean("seconds"), 2), show(1000 * memory, 0),
            )
        )  # fmt: skip
    what = "picture" if comparison.subjects.pictures else "volume"
    return Table(
        "The control with random weights",
        (
            "explanation", "Dice", "Dice, random weights", "draws", "of these without mask",
            "difference [95 %]", "p",
            "AUPRC", "AUPRC, random weights", f"seconds a {what}", "memory, MB",
        ),
        tuple(lines),
        "The control explains a network whose weights were drawn anew, on the slices that the "
        "trained network lets through, with a range measured on its own heatmaps. Snapping and "
        "clean-up are the same, so that what the control scores is owed to the scan, the gate and "
        "the network's architecture. Its figures are means over the draws: a random network's "
        "class activation map may be negative throughout, and then there is no mask. Methods "
        "of many passes are drawn once. Seconds: to classify every slice and explain those shown, "
        "with one thread where several processes shared the work; p is adjusted for the rows here.",
    )  # fmt: skip


def tabulate_outcomes(comparison: Comparison) -> Table:
    """Retraining on filtered images."""
    pictures = comparison.subjects.pictures
    score, source, tenths, empty = (
        ("macro F1", "any picture of another group", (), "")
        if pictures
        else (
            "AUROC", "a slice of about the same height", ("within tenths",),
            ", and take another patient's reference where a slice has no tumour, for an empty mask "
            "would tell the label",
        )
    )  # fmt: skip
    lines = tuple(
        (
            found.name,
            show_interval(found.score),
            "–" if found.condition == WHOLE else show_interval(found.gap),
            ", ".join(show(value) for value in found.seeds),
            *(show(found.within_deciles) for _ in tenths),
        )
        for found in comparison.outcomes
    )
    header = ("images, for training and test", f"{score} [95 %]", "less whole images [95 %]",
              "each seed", *tenths)  # fmt: skip
    return Table(
        "Retraining on filtered images",
        header,
        lines,
        "Masks: Grad-CAM of the trained classifier, the same share of every head, with a tumour "
        "and without. What is removed is 0. A random blob has the same area; another patient's "
        f"mask comes from {source}, whatever its label; the shape alone is the mask in one grey. "
        "Reference masks exist for validation and test patients only: those rows learn from the "
        f"validation patients{empty}.",
    )


def tabulate_faithfulness(comparison: Comparison) -> Table:
    """Deletion and insertion."""
    found = comparison.faithfulness
    trained = [entry for entry in found if not entry.control]
    lines = []
    for entry in sorted(trained, key=lambda e: (e.label, mean_of(found[e], "deletion"))):
        random = found.get(list_draws(entry)[0], [])
        cells = [entry.name]
        for name in ("deletion", "insertion"):
            values = np.array([one[name] for one in found[entry]], float)
            cells.append(show_interval(comparison.find_interval(values)))
            cells.append(show(mean_of(random, name)) if random else "–")
        lines.append(tuple(cells))
    return Table(
        "Deletion and insertion",
        (
            "explanation", "deletion (low is good)", "deletion, random weights",
            "insertion (high is good)", "insertion, random weights",
        ),
        tuple(lines),
        "Mean probability that the trained network gives the class shown, while 1, 2, 5, 10, 20 "
        "and 40 % of the head's pixels, the hottest first, are filled with ordinary tissue, or are "
        "all that a flat head gets back; of at most "
        f"{MAX_SLICES} slices a volume. Comparable within one network alone. Random weights: the "
        "heatmap of one draw, asked of the trained network.",
    )  # fmt: skip


def mean_of(scores: Sequence[Mapping[str, float]], name: str) -> float:
    """Return the mean over subjects, NaN left out."""
    values = np.array([one[name] for one in scores], float)
    return float(np.nanmean(values)) if np.isfinite(values).any() else NAN


def tabulate_cascades(comparison: Comparison) -> Table:
    """Cascading randomisation."""
    lines = [
        (
            entry.name, str(depth.stages), depth.last, show(depth.dice),
            "–" if depth.stages == 0 else show_interval(depth.difference), show(depth.similarity),
        )
        for entry, depths in comparison.cascades.items()
        for depth in sorted(depths, key=lambda depth: depth.stages)
    ]  # fmt: skip
    return Table(
        "Cascading randomisation",
        (
            "explanation",
            "stages forgotten",
            "down to",
            "Dice",
            "less that of the trained [95 %]",
            "rank correlation with the trained",
        ),
        tuple(lines),
        "The stages nearest to the output forget first. An explanation that hardly changes shows "
        "what no weights are needed for (Adebayo et al. 2018). One draw of each stage.",
    )


def tabulate_refused(comparison: Comparison) -> Table:
    """What was not done."""
    lines = tuple((one.bundle, one.method, one.reason) for one in comparison.refused)
    return Table("What could not be done", ("bundle", "method", "why"), lines)


def tabulate_published() -> Table:
    """The published numbers."""
    return Table(
        "Published numbers",
        ("method", "data", "number", "source", "caveat"),
        tuple(tuple(one) for one in PUBLISHED),
        "Not comparable with ours or with one another: other data, other splits, other rules.",
    )


def _show_p(p: float) -> str:
    if math.isnan(p):
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
