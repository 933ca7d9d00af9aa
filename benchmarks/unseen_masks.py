"""How a bundle's masks are on a split: lesions masked, images without a finding masked, worst ten.

``python benchmarks/unseen_masks.py BUNDLE DATA OUTPUT --split test``: DATA holds ``labels.csv``
(pictures: image, mask, lesion, split, group) or ``patients.csv`` and a folder a patient (volumes).
Writes ``masks.csv``, ``causes.png`` and ``worst.png``, which shows patients. Dice is the mean over
what has a finding, 0 for an empty mask; intervals are bootstraps over groups or patients. Without
the gate everything is masked. For bundles whose gate is one for the whole volume or picture.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import typer
from numpy.typing import NDArray
from rich.progress import track
from sklearn.metrics import roc_auc_score

from heatmask.data.readers.reference import read_reference
from heatmask.experiments.bootstrap import bootstrap_clusters
from heatmask.experiments.metrics import score_surface
from heatmask.experiments.overlap import score_mask
from heatmask.geometry import measure_spacing_mm
from heatmask.pipeline import Pipeline

Mask = NDArray[np.bool_]
WORST = 10
TOLERANCE = 2.0  # mm, or pixels of pictures


def list_cases(
    data: Path, split: str, pattern: str
) -> Iterator[tuple[str, str, Path, Path | None]]:
    """Give name, cluster, image and reference mask, None where there is no finding."""
    if (data / "labels.csv").exists():
        for row in pd.read_csv(data / "labels.csv").query("split == @split").itertuples():
            yield row.image, row.group, data / row.image, data / row.mask if row.lesion else None
        return
    for patient in pd.read_csv(data / "patients.csv").query("split == @split").patient:
        (scan,) = (data / patient).glob(pattern)
        (reference,) = (data / patient).glob("*-seg.nii.gz")
        yield patient, patient, scan, reference


def name_cause(mask: Mask, reference: Mask) -> str:
    """Say in a word or two why a mask is poor."""
    if not mask.any():
        return "not found"
    if not (mask & reference).any():
        return "beside"
    ratio = mask.sum() / reference.sum()
    return "too large" if ratio > 1.5 else "too small" if ratio < 2 / 3 else "other border"


def show_worst(cases: list[tuple[float, str, NDArray, Mask, Mask]], path: Path) -> None:
    """Draw the worst cases in the slice with most of the lesion: reference green, mask red."""
    figure, axes = plt.subplots(2, WORST // 2, figsize=(12, 5.4), constrained_layout=True)
    worst = sorted(cases, key=lambda case: case[0])[:WORST]
    for axis, (dice, name, image, mask, reference) in zip(axes.flat, worst, strict=False):
        index = reference.sum((0, 1)).argmax()
        axis.imshow(image[..., index].T, cmap="gray")
        for part, colour in ((reference, "lime"), (mask, "red")):
            if part[..., index].any():
                axis.contour(part[..., index].T, [0.5], colors=colour, linewidths=1)
        axis.set_title(f"{name_cause(mask, reference)}, Dice {dice:.2f}\n{name}", fontsize=8)
    for axis in axes.flat:
        axis.axis("off")
    figure.savefig(path, dpi=110)


def draw_causes(found: pd.DataFrame, path: Path) -> None:
    """Draw the Dice of each case over the size of its lesion, and why the worst are poor."""
    figure, axis = plt.subplots(figsize=(6.5, 4), constrained_layout=True)
    worst = found.nsmallest(WORST, ["dice", "ungated"]).index
    for cause, part in found.groupby("cause"):
        of_worst = part.index.isin(worst).sum()
        label = f"{cause}: {len(part)}, {of_worst} of the worst {WORST}"
        axis.scatter(part.reference_ml, part.dice, s=14, label=label)
    axis.set(xscale="log", xlabel="lesion, ml (pictures: 1000 pixels)", ylabel="Dice")
    figure.legend(
        *axis.get_legend_handles_labels(), fontsize=8, loc="outside lower center", ncols=3
    )
    figure.savefig(path, dpi=110)


def main(
    bundle: str,
    data: Path,
    output: Path,
    split: str = "test",
    pattern: Annotated[str, typer.Option(help="File names of volumes.")] = "*-t2f.nii.gz",
    weights: Annotated[str | None, typer.Option(help="Instead of the bundle's.")] = None,
) -> None:
    """Score a bundle with and without its gate."""
    options = {"weights": weights} if weights else {}
    with_gate, without_gate = (
        Pipeline.from_bundle(bundle, {**options, "gate": gate}) for gate in (True, False)
    )
    output.mkdir(parents=True, exist_ok=True)
    rows, shown = [], []
    for name, cluster, image, file in track(list(list_cases(data, split, pattern)), "Masks"):
        gated = with_gate(str(image), name)
        scan, mask = np.asarray(gated.scan[0]), np.asarray(gated.mask[0]) > 0
        probability = float(gated.probabilities.max())
        row = {"case": name, "cluster": cluster, "p": probability, "masked": mask.any()}
        if file is not None:
            reference = read_reference(file)[0]
            spacing = measure_spacing_mm(np.asarray(gated.scan.affine))
            # The gate lets through all or nothing.
            every = mask if mask.any() else np.asarray(without_gate(str(image), name).mask[0]) > 0
            row |= score_mask(mask, reference, spacing, gated.slice_axis)
            row |= score_surface(mask, reference, spacing, TOLERANCE)
            row |= {"ungated": score_mask(every, reference, spacing)["dice"]}
            row |= {"cause": name_cause(mask, reference)}
            shown.append((row["dice"], name, scan, mask, reference))
        rows.append(row)
    table = pd.DataFrame(rows)
    table.to_csv(output / "masks.csv", index=False)
    show_worst(shown, output / "worst.png")
    draw_causes(table[table.dice.notna()], output / "causes.png")
    print_scores(table)


def print_scores(table: pd.DataFrame) -> None:
    """Print what the table of cases says."""
    finding = table.dice.notna()
    found, healthy = table[finding], table[~finding]
    for column in ("dice", "ungated"):
        values = found[column].to_numpy()
        mean, low, high = bootstrap_clusters(lambda i, v=values: v[i].mean(), found.cluster)
        print(f"{column}: {mean:.3f} [{low:.3f}, {high:.3f}], n = {len(found)}")
    print(f"lesions not masked: {(~found.masked).sum()}; causes below Dice 0.5:")
    print(found[found.dice < 0.5].cause.value_counts().to_string())
    if len(healthy):
        print(f"without finding, masked: {healthy.masked.sum()} of {len(healthy)}")
        print(f"AUROC {roc_auc_score(finding, table.p):.3f}")
    else:
        print(f"HD95 {found.hd95.mean():.1f} mm, median {found.hd95.median():.1f}")
        print(f"on slices without tumour: {found.tumour_free_slices_ml.mean():.2f} ml")


if __name__ == "__main__":
    typer.run(main)
