"""Draw the Dice of each case over the size of its lesion, and why the worst masks are poor.

``python benchmarks/draw_causes.py EVALUATION/per_picture.csv OUTPUT.png``: the table is one that
``heatmask evaluate`` wrote, or its ``per_patient.csv``; the first method in it is drawn.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import typer

WORST = 10


def name_cause(case: pd.Series) -> str:
    """Say in a word or two why a mask is poor."""
    if not case["mask"]:
        return "not found"
    if not case["dice"]:
        return "beside"
    ratio = case["mask"] / case["reference"]
    return "too large" if ratio > 1.5 else "too small" if ratio < 2 / 3 else "other border"


def main(table: Path, output: Path) -> None:
    """Draw, and print how often each cause is behind a Dice below 0.5."""
    cases = pd.read_csv(table)
    cases = cases[(cases.method == cases.method[0]) & cases.dice.notna()]
    (unit,) = {name.removeprefix("mask_") for name in cases.columns if name.startswith("mask_")}
    cases = cases.rename(columns={f"{part}_{unit}": part for part in ("mask", "reference")})
    cases["cause"] = cases.apply(name_cause, axis=1)
    worst = cases.nsmallest(WORST, "dice").index
    figure, axis = plt.subplots(figsize=(6.5, 4), constrained_layout=True)
    for cause, part in cases.groupby("cause"):
        label = f"{cause}: {len(part)}, {part.index.isin(worst).sum()} of the worst {WORST}"
        axis.scatter(part.reference, part.dice, s=14, label=label)
    axis.set(xscale="log", xlabel=f"lesion, {unit}", ylabel="Dice")
    figure.legend(fontsize=8, loc="outside lower center", ncols=2)
    figure.savefig(output, dpi=110)
    print(cases[cases.dice < 0.5].cause.value_counts().to_string())


if __name__ == "__main__":
    typer.run(main)
