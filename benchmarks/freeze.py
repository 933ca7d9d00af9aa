"""What every bundle makes of ten scans and pictures, recorded, so that two states can be compared.

``python benchmarks/freeze.py record before.json`` runs the `heatmask` command of the package that
is installed, or that PYTHONPATH names, and ``python benchmarks/freeze.py compare before.json
after.json`` says what differs. Sentences may change; masks, heatmaps and numbers may not. Nothing
is timed.
"""

import csv
import hashlib
import json
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import nibabel as nib
import numpy as np
import typer
from rich.console import Console
from typer.testing import CliRunner

import heatmask.cli

app = typer.Typer(add_completion=False)
console = Console(highlight=False)
PROJECT = Path(__file__).resolve().parents[1]
FLAIR, TYPES = "TCGA-CS-4943 TCGA-CS-6186 TCGA-CS-6665".split(), "0026 0027".split()
SCORED = "brain_mri_gp_shuffle_unet_segmentation brain_mri_relevance3d_segmentation".split()
COMPARED = "brain_mri_gp_unet_segmentation brain_mri_resnet_attribution_segmentation".split()
METHODS = "inherent grad_cam guided_backprop".split()
SKIPPED = ("seconds", "output", "input", "versions", "parameters", "notice", "path", "page")
"""Keys of JSON reports whose values differ from run to run, or are sentences."""
Record = dict[str, Any]


@app.command()
def record(
    output: Annotated[Path, typer.Argument(help="JSON file to write.")],
    data: Annotated[Path, typer.Option(help="Folder of lgg, figshare, busi ...")] = (
        PROJECT.parent / "shared" / "data"
    ),
) -> None:
    """Run everything and write what came out."""
    found: Record = {}
    with tempfile.TemporaryDirectory() as folder:
        inputs = gather_inputs(data, Path(folder))
        for bundle in sorted(path.name for path in PROJECT.glob("bundles/brain_*")):
            for name, scan in inputs.items():
                found[f"{bundle} {name}"] = record_case(bundle, scan, Path(folder, bundle, name))
                output.write_text(json.dumps(found, indent=1), encoding="utf-8")
        for name, command in list_tables(data, Path(folder)):
            found[name] = record_tables(command, Path(folder, name))
            output.write_text(json.dumps(found, indent=1), encoding="utf-8")


def gather_inputs(data: Path, folder: Path) -> dict[str, Path]:
    """Return ten inputs by name: volumes of one and two sequences, a DICOM series, pictures."""
    inputs = {name: data / "lgg" / name / f"{name}-t2f.nii.gz" for name in FLAIR}
    inputs["flair and t1-gd"] = data / "lgg" / FLAIR[0]
    inputs["t1-gd"] = data / "lgg" / FLAIR[0] / f"{FLAIR[0]}-t1c.nii.gz"
    inputs["1 mm, two sequences"] = data / "brats2013" / "brats_2013_pat0001_1"
    with tarfile.open(data / "dicom_t1" / "dicom_t1.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    inputs["dicom"] = folder / "dicom_t1"
    inputs |= {f"picture {name}": data / "figshare" / "images" / f"{name}.jpg" for name in TYPES}
    first = sorted((data / "busi" / "images").iterdir())[0]
    return {**inputs, "ultrasound": first}


def record_case(bundle: str, scan: Path, folder: Path) -> list[Record] | int:
    """Return what one `heatmask segment` writes, case by case, or its exit status."""
    command = ["segment", str(scan), "--bundle", bundle, "-o", str(folder), "--device", "cpu"]
    status = run_heatmask(command)
    cases = [describe_case(path.parent) for path in sorted(folder.glob("*/report.json"))]
    return cases or status


def run_heatmask(arguments: list[str]) -> int:
    """Run a `heatmask` command and return its exit status."""
    console.print("heatmask", *arguments)
    done = CliRunner().invoke(heatmask.cli.app, arguments)
    return done.exit_code


def describe_case(folder: Path) -> Record:
    """Return the mask's hash, the heatmap's statistics and the report's numbers."""
    mask = nib.load(next(folder.glob("*_mask.nii.gz")))
    heatmap = nib.load(next(folder.glob("*_heatmap.nii.gz"))).get_fdata()
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return {
        "mask": hashlib.sha256(np.asarray(mask.dataobj).tobytes()).hexdigest()[:16],
        "shape": list(mask.shape),
        "affine": np.round(mask.affine, 5).tolist(),
        "heatmap": [
            float(f(heatmap.astype(np.float64))) for f in (np.min, np.max, np.mean, np.std)
        ],
        "warnings": len(report["warnings"]),
        **{key: value for key, value in keep_numbers(report).items() if key != "warnings"},
    }


def keep_numbers(value: Any) -> Any:
    """Return JSON without what may differ from run to run; sentences are left out too."""
    if isinstance(value, dict):
        kept = {key: keep_numbers(part) for key, part in value.items() if key not in SKIPPED}
        return {key: part for key, part in kept.items() if part is not None}
    if isinstance(value, list):
        return [keep_numbers(part) for part in value]
    return None if isinstance(value, str) and " " in value else value


def list_tables(data: Path, folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield the commands whose tables are recorded: `evaluate` of two bundles, one `compare`."""
    flair = ["--pattern", "*-t2f.nii.gz", "--device", "cpu"]
    for bundle in SCORED:
        yield f"evaluate {bundle}", ["evaluate", str(data / "lgg"), "--bundle", bundle, *flair]
    few = make_few(data / "lgg", folder / "few")
    options = [f"--bundle={name}" for name in COMPARED]
    options += [f"--method={name}" for name in METHODS]
    options += ["--without=few-masks", "--without=retraining"]
    yield "compare", ["compare", str(few), "--quick", *options, *flair]


def make_few(lgg: Path, folder: Path, count: int = 3) -> Path:
    """Copy so many patients of each split."""
    folder.mkdir()
    with (lgg / "patients.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    kept = [row for split in ("train", "val", "test")
            for row in [r for r in rows if r["split"] == split][:count]]  # fmt: skip
    with (folder / "patients.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(kept)
    names = {row["patient"] for row in kept}
    head, *lines = (lgg / "slice_labels.csv").read_text(encoding="utf-8").splitlines()
    lines = [line for line in lines if line.split(",")[0] in names]
    (folder / "slice_labels.csv").write_text("\n".join([head, *lines, ""]), encoding="utf-8")
    for name in names:
        shutil.copytree(lgg / name, folder / name)
    return folder


def record_tables(command: list[str], folder: Path) -> Record:
    """Return the numbers in the tables that a command writes."""
    status = run_heatmask([*command, "-o", str(folder)])
    tables: Record = {"status": status}
    for path in sorted(folder.glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            rows = [drop_measured(row) for row in csv.DictReader(file)]
        tables[path.name] = sorted(rows, key=lambda row: [str(value) for value in row.values()])
    return tables


def drop_measured(row: dict[str, str]) -> dict[str, str]:
    """Return a line of a table without seconds and memory."""
    return {name: text for name, text in row.items() if not re.search("second|memory", name)}


@app.command()
def compare(
    before: Annotated[Path, typer.Argument(help="JSON file of the earlier state.")],
    after: Annotated[Path, typer.Argument(help="JSON file of the later state.")],
) -> None:
    """Say what differs; exit status 1 if anything does."""
    old, new = (
        json.loads(path.read_text(encoding="utf-8").replace('"floor"', '"baseline"'))
        for path in (before, after)
    )
    differences = list(find_differences(old, new, ""))
    for line in differences:
        console.print(line)
    console.print(f"{len(old)} recorded, {len(differences)} differences")
    raise typer.Exit(bool(differences))


def find_differences(old: Any, new: Any, place: str) -> Iterator[str]:
    """Yield a line for each value that is not equal, with its place."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            yield from find_differences(old.get(key), new.get(key), f"{place} / {key}")
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, (left, right) in enumerate(zip(old, new, strict=True)):
            yield from find_differences(left, right, f"{place} / {number}")
    elif old != new:
        yield f"{place}: {old!r:.80} became {new!r:.80}"


if __name__ == "__main__":
    app()
