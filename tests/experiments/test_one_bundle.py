"""`heatmask evaluate`: a bundle against reference masks, on phantoms whose lesions are known."""

import csv
import json
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from heatmask.bundle import read_bundle, run_bundle
from heatmask.cli import app
from heatmask.errors import InputError
from heatmask.experiments.auroc import slice_auroc
from heatmask.experiments.cases import Place
from heatmask.experiments.one_bundle import evaluate_bundle
from heatmask.experiments.one_bundle_page import write_evaluation
from helpers.phantom import make_phantom, write_phantom
from helpers.planted import store_as

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


def get_dice(comparison, name):
    return next(row.scores["dice"] for row in comparison.rows if row.name == name)


def test_evaluate_scores_what_the_mask_files_say(bundle_dir, archive, tmp_path):
    found = evaluate_bundle(bundle_dir, Place(str(archive), device="cpu"))
    write_evaluation(found, tmp_path / "scores")
    options = {"input": str(archive), "pattern": "P[23]-t2f.nii.gz", "output_dir": str(tmp_path)}
    run_bundle(read_bundle(bundle_dir, options=options), "evaluator").run()
    patients = [case.name for case in found.cases.cases]
    for patient, dice in zip(patients, get_dice(found, "GP-UNet"), strict=True):
        case = f"{patient}-t2f"
        mask = np.asarray(nib.load(tmp_path / case / f"{case}_mask.nii.gz").dataobj) > 0
        lesion = np.asarray(nib.load(archive / patient / f"{patient}-seg.nii.gz").dataobj) > 0
        assert dice == pytest.approx(2 * (mask & lesion).sum() / (mask.sum() + lesion.sum()))
    assert patients == ["P2", "P3"]
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
    found = evaluate_bundle(bundle_dir, Place(str(archive), device="cpu"), {}, [weights])
    one, two = (get_dice(found, name) for name in ("GP-UNet", "GP-UNet, network 2"))
    np.testing.assert_array_equal(one, two)
    mean = get_dice(found, "GP-UNet, mean of 2 networks")
    np.testing.assert_allclose(mean, (one + two) / 2)
    first = found.predictions[0]
    auroc = f"slice AUROC {slice_auroc(first.labels, first.any_class):.3f}"
    assert sum(auroc in note for note in found.notes) == 2
    names = [row.name.removeprefix("GP-UNet") for row in found.rows[:9]]
    rules = ("", ", not snapped", ", paper preset")
    networks = ("", ", network 2")
    wanted = [f", mean of 2 networks{rule}" for rule in rules]
    assert names == wanted + [network + rule for rule in rules for network in networks]


def test_without_any_reference_nothing_is_scored(bundle_dir, archive, tmp_path):
    words = ["evaluate", str(archive), "--bundle", str(bundle_dir), "-o", str(tmp_path / "scores")]
    done = CliRunner().invoke(app, [*words, "--set", "reference_pattern=*-nothing.nii.gz"])
    assert isinstance(done.exception, InputError)
    assert re.search(r"none of 2 has.*\n  P2: .*one reference mask \*-not", str(done.exception))
    assert not (tmp_path / "scores").exists()


def test_an_evaluate_json_of_an_earlier_bundle_is_not_read(bundle_dir, archive, tmp_path):
    bundle = Path(shutil.copytree(bundle_dir, tmp_path / "mine_segmentation"))
    config = {"scorer": {"_target_": "heatmask.scoring.Scorer"}, "run": ["$@scorer.run()"]}
    (bundle / "configs" / "evaluate.json").write_text(json.dumps(config), encoding="utf-8")
    found = evaluate_bundle(bundle, Place(str(archive), device="cpu"))
    assert len(found.cases.cases) == 2


def save(path, array, affine):
    nib.save(nib.Nifti1Image(array, affine), path)


@pytest.fixture(scope="module")
def odd_archive(archive, tmp_path_factory):
    """One scan under several names, each with another reference mask."""
    root = tmp_path_factory.mktemp("odd")
    scan, seg = (archive / "P2" / f"P2-{name}.nii.gz" for name in ("t2f", "seg"))
    mask, affine = np.asarray(nib.load(seg).dataobj), nib.load(seg).affine
    flipped, moved = store_as(mask, affine, "SLP")
    references = {
        "good": lambda path: save(path, mask, affine),
        "swapped": lambda path: save(path, flipped, moved),
        "four": lambda path: save(path, mask[..., None], affine),
        "float": lambda path: save(path, mask * 0.99999998, affine),
        "identity": lambda path: save(path, mask, np.eye(4)),
        "coarse": lambda path: save(path, mask[:, ::2], affine @ np.diag([1, 2, 1, 1])),
        "empty": lambda path: path.write_bytes(b""),
        "cut": lambda path: path.write_bytes(seg.read_bytes()[:900]),
        "missing": lambda path: None,
        "scanless": lambda path: save(path, mask, affine),
    }
    labels, rows = ["patient,slice,tumour"], ["patient,split"]
    for name, write in references.items():
        (root / name).mkdir()
        shutil.copyfile(scan, root / name / f"{name}-t2f.nii.gz")
        write(root / name / f"{name}-seg.nii.gz")
        labels += [f"{name},{i},{int(s.any())}" for i, s in enumerate(np.moveaxis(mask, 2, 0))]
        rows.append(f"{name},test")
    rows.append("known,train")
    labels += [line.replace("good", "known") for line in labels if line.startswith("good")]
    shutil.copytree(root / "good", root / "known")
    (root / "known" / "good-t2f.nii.gz").rename(root / "known" / "known-t2f.nii.gz")
    (root / "scanless" / "scanless-t2f.nii.gz").write_bytes(scan.read_bytes()[:5000])
    for name, lines in (("slice_labels", labels), ("patients", rows)):
        (root / f"{name}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


@pytest.mark.fault("E")
def test_an_odd_reference_is_read_rightly_or_named_and_stops_no_other(
    bundle_dir, odd_archive, tmp_path
):
    words = ["--bundle", str(bundle_dir), "-o", str(tmp_path), "--device", "cpu"]
    done = CliRunner().invoke(app, ["evaluate", str(odd_archive), *words])
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    reasons = summary["left_out"]
    assert summary["n_patients"] == 4
    with (tmp_path / "per_patient.csv").open(encoding="utf-8") as file:
        dice = {r["patient"]: r["dice"] for r in csv.DictReader(file) if r["method"] == "GP-UNet"}
    assert list(dice) == ["good", "swapped", "four", "float"]
    assert len(set(dice.values())) == 1, "the same mask, however it was stored"
    assert sorted(reasons) == ["coarse", "cut", "empty", "identity", "missing", "scanless"]
    assert "identity: it was saved without one" in reasons["identity"]
    assert "112 x 64 x 18 voxels" in reasons["coarse"]
    assert "there are 0" in reasons["missing"]
    assert "cut off" in reasons["scanless"]
    assert "Left out: 6 of 10 patients" in " ".join(done.output.split())
    assert str(done.exception).startswith("6 of 10 patients failed, the others are written:")
    assert done.exit_code == 1


@pytest.mark.parametrize("command", ["evaluate", "compare", "retrain"])
def test_without_the_libraries_one_sentence_says_what_to_install(
    command, archive, tmp_path, monkeypatch
):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = CliRunner().invoke(app, [command, str(archive), "-o", str(tmp_path / "out")])
    assert str(done.exception).endswith("python -m pip install 'heatmask[experiments]'.")
    assert not (tmp_path / "out").exists()
