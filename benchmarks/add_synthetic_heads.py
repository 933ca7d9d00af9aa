"""A folder of training data with synthetic heads beside its own patients.

``python benchmarks/add_synthetic_heads.py DATA OUT``: for sets in which every head has a tumour. A
network that has seen no healthy head calls healthy heads tumour; half of these have no lesion,
in any contrast. Their labels are known, and the seeds are none that the tests or figures use.
"""

import csv
from pathlib import Path
from typing import Annotated

import nibabel as nib
import numpy as np
import typer
from phantom import make_phantom
from rich.progress import track

_KNOTS = (0.0, 0.15, 0.35, 0.5, 0.7, 1.0)
"""Grey levels, of 1, that a random contrast moves."""


def main(
    data: Annotated[Path, typer.Argument(help="Folder with patients.csv and slice_labels.csv.")],
    out: Annotated[Path, typer.Argument(help="Folder to make; scans of DATA are linked in it.")],
    first: Annotated[int, typer.Option(help="First seed.")] = 1100,
    count: Annotated[int, typer.Option(min=2, help="Number of heads, every other healthy.")] = 24,
    sequence: Annotated[str, typer.Option(help="End of the names of scans.")] = "t2f",
) -> None:
    """Link the scans, draw the heads and join the tables."""
    out.mkdir(parents=True)
    patients, labels = (read_table(data / f"{n}.csv") for n in ("patients", "slice_labels"))
    patients = [{name: row[name] for name in ("patient", "split")} for row in patients]
    for row in patients:
        name = f"{row['patient']}/{row['patient']}-{sequence}.nii.gz"
        (out / name).parent.mkdir()
        (out / name).symlink_to((data / name).resolve())
    for number in track(range(count), "Drawing heads"):
        name, healthy = f"synthetic{first + number}", number % 2 == 0
        phantom = make_phantom(first + number, (256, 256, 28), lesion=not healthy)
        image = draw_contrast(phantom.image, first + number) if healthy else phantom.image
        (out / name).mkdir()
        nib.save(nib.Nifti1Image(image, phantom.affine), out / name / f"{name}-{sequence}.nii.gz")
        patients.append({"patient": name, "split": "train"})
        labels += [
            {"patient": name, "slice": str(index), "tumour": str(int(label))}
            for index, label in enumerate(phantom.slice_labels)
        ]
    write_table(out / "patients.csv", patients)
    write_table(out / "slice_labels.csv", labels)


def draw_contrast(image: np.ndarray, seed: int) -> np.ndarray:
    """Map the greys of an image by a random curve; in two of five images as they are."""
    random = np.random.default_rng(seed)
    if random.random() < 0.4:
        return image
    top = np.percentile(image, 99.5)
    levels = np.concatenate([[0.0], random.random(len(_KNOTS) - 1)])
    levels = np.sort(levels) if random.random() < 0.5 else levels
    curve = np.interp((image / top).clip(0, 1), _KNOTS, levels / levels.max())
    return (curve * top).astype(np.float32)


def read_table(path: Path) -> list[dict[str, str]]:
    """Read the rows of a CSV."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_table(path: Path, rows: list[dict[str, str]]) -> None:
    """Write the rows to a CSV."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    typer.run(main)
