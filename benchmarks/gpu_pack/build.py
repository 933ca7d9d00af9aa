"""Write the GPU pack: one folder with all that a bare CUDA machine needs to measure or to train.

``make gpu-pack`` writes ``gpu-pack/``: the package, the bundles, the benchmarks, wheels of the
libraries that such a machine lacks, and four scans as arrays. There, without a network:
``bash gpu-pack/run.sh``. ``make gpu-pack ARGS=--training`` takes the LGG set along instead, for
``bash gpu-pack/train.sh``. The folder is never committed: the scans are not ours to give away.
"""

import csv
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import nibabel as nib
import numpy as np
import typer
from monai.data import MetaTensor
from phantom import STUDY_SEEDS, make_phantom
from rich.progress import track

from heatmask.transforms import ResampleInPlaned

PROJECT = Path(__file__).resolve().parents[2]
LIMIT_MB = 50
LACKING = "monai nibabel captum pydicom pytorch-ignite zennit fire termcolor".split()
"""What is missing beside Python 3.12, torch, torchvision and the common scientific packages."""

WHEELS_FOR = (
    "--no-deps --only-binary=:all: --python-version 3.12 --implementation cp "
    "--platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform any"
).split()
SEQUENCES = {"FLAIR": "t2f", "T1-Gd": "t1c"}
SCANS = 4
Scan = dict[str, np.ndarray]
"""Arrays (X, Y, Z) by sequence, on one grid, and its affine."""

TRAINING_SPACING_MM = 2.0
"""In-plane, of the training scans: what the bundles resample to, and a quarter of the size."""


def main(
    output: Annotated[Path, typer.Argument(help="The folder to write; it is replaced.")],
    data: Annotated[Path | None, typer.Option(help="The LGG set; without it, phantoms.")] = None,
    wheels: Annotated[bool, typer.Option(help="Download the wheels.")] = True,
    training: Annotated[bool, typer.Option(help="For train.sh instead of run.sh.")] = False,
) -> None:
    """Write the pack and say how large it is."""
    partial = output.with_name(output.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    script = "train.sh" if training else "run.sh"
    copy_code(partial, script, "*gp_*" if training else "*")
    if wheels:
        download_wheels(partial / "wheels")
    found = data if data and (data / "patients.csv").is_file() else None
    if training:
        archive_training_data(found, partial / "lgg")
    else:
        (partial / "scans").mkdir()
        for name, scan in list_scans(found) if found else draw_scans():
            np.savez_compressed(partial / "scans" / f"{name}.npz", **scan)
    size_mb = sum(path.stat().st_size for path in partial.rglob("*")) / 1e6
    if size_mb > LIMIT_MB:
        raise SystemExit(f"The pack must stay below {LIMIT_MB} MB, and is {size_mb:.1f} MB.")
    shutil.rmtree(output, ignore_errors=True)
    partial.rename(output)
    print(f"{output}: {size_mb:.1f} MB; on the CUDA machine: bash {output.name}/{script}")


def copy_code(pack: Path, script: str, bundles: str) -> None:
    """Copy the package, bundles without their pages, the benchmarks, and the script to start."""
    caches = shutil.ignore_patterns("__pycache__")
    pages = shutil.ignore_patterns("*.png", "*.md")
    shutil.copytree(PROJECT / "src", pack / "src", ignore=caches)
    shutil.copytree(PROJECT / "benchmarks", pack / "benchmarks", ignore=caches)
    for config in (PROJECT / "bundles").glob(f"{bundles}/configs/inference.json"):
        bundle = config.parents[1]
        shutil.copytree(bundle, pack / "bundles" / bundle.name, ignore=pages)
    for name in (script, "environment.sh"):
        shutil.copy(Path(__file__).parent / name, pack)


def download_wheels(folder: Path) -> None:
    """Download the wheels in the versions of constraints.txt."""
    pins = ["-c", str(PROJECT / "constraints.txt"), "-d", str(folder)]
    command = [sys.executable, "-m", "pip", "download", "--quiet", *WHEELS_FOR, *pins, *LACKING]
    subprocess.run(command, check=True)


def read_patients(data: Path) -> list[dict[str, str]]:
    """Return the rows of patients.csv."""
    with (data / "patients.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def list_scans(data: Path) -> Iterator[tuple[str, Scan]]:
    """Yield the scans of four test patients, from the fewest slices to the most."""
    tested = [row for row in read_patients(data) if row["split"] == "test"]
    tested.sort(key=lambda row: int(row["n_slices"]))
    for place in np.linspace(0, len(tested) - 1, SCANS).round().astype(int):
        patient = tested[place]["patient"]
        stem = data / patient / patient
        images = {name: nib.load(f"{stem}-{end}.nii.gz") for name, end in SEQUENCES.items()}
        arrays = {name: np.asarray(image.dataobj) for name, image in images.items()}
        yield patient, {**arrays, "affine": images["FLAIR"].affine}


def draw_scans() -> Iterator[tuple[str, Scan]]:
    """Yield synthetic heads, each standing for every sequence."""
    for seed in STUDY_SEEDS[:SCANS]:
        phantom = make_phantom(seed)
        arrays = dict.fromkeys(SEQUENCES, phantom.image.astype(np.float16))
        yield f"phantom {seed}", {**arrays, "affine": phantom.affine}


def archive_training_data(data: Path | None, folder: Path) -> None:
    """Write the LGG set as `heatmask train` and `evaluate` read it, as one small archive.

    Training and validation scans are resampled in their slices, test scans come as they are, with
    the reference masks that score them; no other mask is taken along.
    """
    if data is None:
        raise SystemExit("To train, the LGG set is needed: make gpu-pack DATA=path/to/lgg.")
    for row in track(read_patients(data), "Training data"):
        patient, tested = row["patient"], row["split"] == "test"
        (folder / patient).mkdir(parents=True)
        for end in ("t2f", "seg") if tested else SEQUENCES.values():
            path = data / patient / f"{patient}-{end}.nii.gz"
            if path.is_file():
                image = nib.load(path) if tested else shrink_scan(path)
                nib.save(image, folder / patient / path.with_suffix("").name)
    for table in ("patients.csv", "slice_labels.csv"):
        shutil.copy(data / table, folder)
    shutil.make_archive(str(folder), "bztar", folder)
    shutil.rmtree(folder)


def shrink_scan(path: Path) -> nib.Nifti1Image:
    """Return a scan of whole numbers with larger pixels."""
    image = nib.load(path)
    volume = MetaTensor(np.asarray(image.dataobj, np.float32)[None], affine=image.affine)
    small = ResampleInPlaned("image", TRAINING_SPACING_MM).change(volume)
    array = np.asarray(small[0]).round().clip(0, 255).astype(np.uint8)
    return nib.Nifti1Image(array, np.asarray(small.affine))


if __name__ == "__main__":
    typer.run(main)
