"""`heatmask evaluate`: a bundle against reference masks, on phantoms whose lesions are known."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from heatmask.bundle import read_bundle, run_bundle
from heatmask.cli import app
from heatmask.data.phantom import make_phantom, write_phantom
from heatmask.errors import InputError

PATIENTS = {"P1": ("train", 71), "P2": ("test", 72), "P3": ("test", 73)}


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Three phantoms laid out as the LGG set is."""
    root = tmp_path_factory.mktemp("archive")
    labels = [("patient", "slice", "tumour")]
    for patient, (_, seed) in PATIENTS.items():
        phantom = make_phantom(seed, shape=(112, 128, 18), spacing_mm=(2.0, 2.0, 6.0))
        (root / patient).mkdir()
        scan, reference = (root / patient / f"{patient}-{n}.nii.gz" for n in ("t2f", "seg"))
        write_phantom(phantom, scan, reference)
        labels += [(patient, i, int(label)) for i, label in enumerate(phantom.slice_labels)]
    splits = [("patient", "split"), *((p, split) for p, (split, _) in PATIENTS.items())]
    for name, rows in (("slice_labels", labels), ("patients", splits)):
        with open(root / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
    return root


def evaluate(bundle_dir, archive, output, **knobs):
    settings = {"dataset_dir": str(archive), "output_dir": str(output), "device": "cpu", **knobs}
    (evaluation,) = run_bundle(read_bundle(bundle_dir, ("inference", "evaluate"), settings))
    return evaluation


def test_evaluate_scores_what_the_mask_files_say(bundle_dir, archive, tmp_path):
    evaluation = evaluate(bundle_dir, archive, tmp_path / "scores")
    knobs = {"input": str(archive), "pattern": "P[23]-t2f.nii.gz", "output_dir": str(tmp_path)}
    run_bundle(read_bundle(bundle_dir, knobs=knobs), "evaluator").run()
    for patient, dice in zip(evaluation.patients, evaluation.column("GP-UNet"), strict=True):
        case = f"{patient}-t2f"
        mask = np.asarray(nib.load(tmp_path / case / f"{case}_mask.nii.gz").dataobj) > 0
        lesion = np.asarray(nib.load(archive / patient / f"{patient}-seg.nii.gz").dataobj) > 0
        assert dice == pytest.approx(2 * (mask & lesion).sum() / (mask.sum() + lesion.sum()))
    assert evaluation.patients == ["P2", "P3"]
    summary = json.loads((tmp_path / "scores" / "summary.json").read_text())
    assert "GP-UNet" in json.dumps(summary)
    assert (tmp_path / "scores" / "evaluation.png").stat().st_size > 10_000


def test_the_command_prints_what_it_wrote(bundle_dir, archive, tmp_path):
    options = ["--bundle", str(bundle_dir), "-o", str(tmp_path), "--device", "cpu"]
    done = CliRunner().invoke(app, ["evaluate", str(archive), *options])
    assert done.exit_code == 0, done.output
    words = " ".join(done.output.split())
    assert "Dice per volume, 2 patients, every slice" in words
    assert "evaluation.md, evaluation.png, per_patient.csv" in words
    assert (tmp_path / "per_patient.csv").is_file()


def test_mean_of_networks_is_the_mean_patient_by_patient(bundle_dir, archive, tmp_path):
    weights = str(bundle_dir / "models" / "model.pt")
    evaluation = evaluate(bundle_dir, archive, tmp_path, further_weights=[weights])
    one, two = (evaluation.column(name) for name in ("GP-UNet", "GP-UNet, network 2"))
    np.testing.assert_array_equal(one, two)
    mean = evaluation.column("GP-UNet, mean of 2 networks")
    np.testing.assert_allclose(mean, (one + two) / 2)
    auroc = f"slice AUROC {evaluation.slice_scores['auroc']:.3f}"
    assert sum(auroc in note for note in evaluation.notes) == 2


def test_a_patient_without_reference_is_refused(bundle_dir, archive, tmp_path):
    with pytest.raises(InputError, match=r"one reference mask.*P2 has 0"):
        evaluate(bundle_dir, archive, tmp_path, reference_pattern="*-nothing.nii.gz")
