"""Join synthetic heads to a set of FLAIR volumes, so that training meets heads without a tumour.

``python benchmarks/join_heads.py DATA OUTPUT``: DATA is the LGG set; OUTPUT holds links to its
files, and the heads as further training patients. Every patient of the set has a tumour: without
whole heads that have none, a network calls them all. Some of the heads have a drawn lesion, lest
all that is drawn be healthy; half of those without one come in a random contrast. Labels are those
of slices.
"""

from pathlib import Path
from typing import Annotated

import nibabel as nib
import numpy as np
import pandas as pd
import typer
from numpy.typing import NDArray
from phantom import STUDY_SEEDS, make_phantom
from rich.progress import track

FIRST = STUDY_SEEDS[100]  # `phantoms.py` measures on others
SHAPE = (256, 256, 28)


def draw_contrast(image: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Map grey values through a random curve from 0 to at most 255; the background stays dark."""
    random = np.random.default_rng(seed)
    knots = np.sort(np.array([0, 0.15, 0.35, 0.5, 0.7, 1]) + random.normal(0, 0.04, 6))
    heights = random.random(6)
    if random.random() < 0.5:
        heights.sort()
    heights[0], knots[0] = 0, 0
    curve = np.interp(image / max(image.max(), 1), knots, heights / heights.max())
    return (255 * curve).astype(np.float32)


def main(
    data: Path,
    output: Path,
    healthy: Annotated[int, typer.Option(help="Heads without a lesion.")] = 14,
    ill: Annotated[int, typer.Option(help="Heads with one.")] = 6,
) -> None:
    """Write the joined set."""
    patients = pd.read_csv(data / "patients.csv")
    labels = pd.read_csv(data / "slice_labels.csv")
    output.mkdir(parents=True)
    for patient in patients.patient:
        (output / patient).mkdir()  # a folder that is a link would be passed over
        for file in (data / patient).iterdir():
            (output / patient / file.name).symlink_to(file.resolve())
    for number in track(range(healthy + ill), "Drawing heads"):
        name, lesion = f"synthetic-{FIRST + number}", number >= healthy
        head = make_phantom(FIRST + number, SHAPE, lesion=lesion)
        image = head.image if lesion or number % 2 else draw_contrast(head.image, number)
        (output / name).mkdir()
        nifti = nib.Nifti1Image(image.round().astype(np.uint8), head.affine)
        nib.save(nifti, output / name / f"{name}-t2f.nii.gz")
        tumour = head.slice_labels
        rows = {"patient": name, "slice": range(len(tumour)), "tumour": tumour}
        labels = pd.concat([labels, pd.DataFrame(rows)])
        facts = {"patient": name, "split": "train", "n_slices": len(tumour), "modalities": "t2f"}
        patients = pd.concat([patients, pd.DataFrame([facts])])
    patients.to_csv(output / "patients.csv", index=False)
    labels.to_csv(output / "slice_labels.csv", index=False)


if __name__ == "__main__":
    typer.run(main)
