"""From corrected masks in a store to the next bundle: published, refused, stopped, brought back."""

import json
import resource
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from heatmask.cli import app
from heatmask.errors import InputError, NotFoundError, OutputError
from heatmask.learning import held_out, status
from heatmask.learning.learn import Learner
from heatmask.learning.reading import ExampleReader
from heatmask.learning.settings import LearnSettings
from heatmask.learning.status import begin_training, read_status, stop_training
from heatmask.learning.versions import LearnedVersions, read_record
from heatmask.pipeline import Pipeline
from heatmask.serving.learning import (
    find_corrected_store,
    find_learned,
    find_patient,
    list_learn_scans,
)
from heatmask.serving.store import Store
from helpers.learning import AXIAL, PATIENTS, SMALL, make_work_folder, write_mask
from helpers.serving_stub import write_scan

runner = CliRunner()
LEARNED = "stub_segmentation_learned"


def read_files(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def submit(work: Path, patient: str, mask: Path, info: dict) -> None:
    flat = find_corrected_store(work).flat
    store = Store(flat, flat / "store")
    try:
        store.submit(f"{patient}-flair", mask, info, "ann", "ann/1", "stub")
    finally:
        store.close()


def test_what_is_learnt_is_published_with_what_it_was_learnt_from(
    work: Path, learn, tmp_path: Path
) -> None:
    outcome, said = learn(work, learning_rate=0.05)
    assert min(outcome.dice.values()) > 0.5 > max(outcome.served_dice.values())
    assert outcome.bundle is not None
    assert "Published as stub_segmentation_learned, version 1." in said[-1]
    record = read_record(outcome.bundle)
    assert record.source == "stub_segmentation"
    assert set(record.folds) == {"p1-flair", "p2-flair", "p3-flair"}
    assert record.labels["p1-flair"]["version"] == 1
    found = Pipeline.from_bundle(outcome.bundle, device="cpu")
    lesion = write_scan(tmp_path / "new.nii.gz")
    mask = np.asarray(found(str(tmp_path / "new.nii.gz")).mask[0]) > 0
    assert 2 * (mask & lesion).sum() / (mask.sum() + lesion.sum()) > 0.5
    card = (outcome.bundle / "docs/README.md").read_text(encoding="utf-8")
    assert "corrected masks of 3 patients" in card
    # Nobody but who runs the server reads what came from patients.
    assert (
        LearnedVersions(find_learned(find_corrected_store(work).flat)).folder.stat().st_mode & 0o077
        == 0
    )


def test_worse_weights_are_not_published_and_earlier_ones_can_be_brought_back(
    work: Path, learn, monkeypatch
) -> None:
    first = learn(work, learning_rate=0.05)[0].bundle
    read: list[str] = []
    load = held_out.load_weights
    monkeypatch.setattr(
        held_out, "load_weights", lambda net, path: (read.append(path.name), load(net, path))[1]
    )
    outcome, said = learn(
        work, way="segmentation", attribution_augmentation=True, start_epochs=0, max_epochs=1
    )
    assert outcome.bundle is None
    assert "worse and were not published" in said[-1]
    # What is served is judged by those of its weights that have not seen the patient either.
    assert sorted(read) == ["0.pt", "1.pt", "2.pt"]
    versions = LearnedVersions(find_learned(find_corrected_store(work).flat))
    assert versions.find_current(LEARNED) == first.resolve()
    second = versions.publish(LEARNED, lambda folder: shutil.copytree(first, folder))
    assert versions.find_current(LEARNED) == second.resolve()
    call = ["learned", str(work), "--restore", LEARNED]
    assert runner.invoke(app, [*call, "1"]).exit_code == 0
    assert versions.find_current(LEARNED) == first.resolve()
    missing = runner.invoke(app, [*call, "9"])
    assert isinstance(missing.exception, NotFoundError)
    assert "no version 9 of 'stub_segmentation_learned'. Its versions: 1, 2." in str(
        missing.exception
    )
    listed = runner.invoke(app, ["learned", str(work)]).output
    assert "1  3 patients, Dice 0.9" in listed
    assert listed.count("current") == 1


@pytest.mark.parametrize(("method", "way"), [("inherent", "joint"), ("grad_cam", "segmentation")])
def test_the_way_is_joint_where_the_network_carries_its_heatmap(
    work: Path, bundle: Path, method: str, way: str
) -> None:
    path = bundle / "configs/inference.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | {"method": method}), encoding="utf-8")
    store = find_corrected_store(work)
    folder = find_learned(store.flat)
    with begin_training(folder, "stub", {}) as training:
        scans = list_learn_scans(store, None)
        learner = Learner(bundle, scans, folder, LearnSettings(**SMALL), training, "cpu")
    assert learner.settings.way == way


def test_one_corrected_patient_is_not_enough(tmp_path: Path, learn) -> None:
    work = make_work_folder(tmp_path, corrected=("p1",))
    with pytest.raises(
        InputError, match=r"At least two patients with a corrected mask .* There is 1"
    ):
        learn(work)


def test_a_label_that_does_not_name_the_finding_is_left_out_and_named(
    tmp_path: Path, learn
) -> None:
    work = make_work_folder(tmp_path)
    mask = write_mask(tmp_path / "other.nii.gz", value=2)
    submit(work, "p2", mask, {"label_info": [{"name": "Oedema", "idx": 2}]})
    outcome, said = learn(work, max_epochs=1)
    assert set(outcome.dice) == {"p1-flair", "p3-flair"}
    assert any("p2-flair must name 'tumour'" in text and "'Oedema'" in text for text in said)
    submit(work, "p1", mask, {"label_info": [{"name": "Oedema", "idx": 2}]})
    with pytest.raises(InputError, match="At least two patients"):
        learn(work)


def test_values_go_by_their_names_and_others_are_not_learnt(
    tmp_path: Path, work: Path, bundle: Path
) -> None:
    """The viewer renumbers segments: the finding may have any value."""
    mask = write_scan(tmp_path / "scan.nii.gz").astype(np.uint8) * 7
    affine = nib.load(tmp_path / "scan.nii.gz").affine
    mask[1, 10:20, 10:20] = 1
    nib.save(nib.Nifti1Image(mask, affine), tmp_path / "mask.nii.gz")
    named = [{"name": "oedema", "idx": 1}, {"name": "Tumour", "idx": 7}]
    submit(work, "p1", tmp_path / "mask.nii.gz", {"label_info": named})
    scan = next(s for s in list_learn_scans(find_corrected_store(work)) if s.name == "p1-flair")
    reader = ExampleReader(Pipeline.from_bundle(bundle, device="cpu"), (64, 64))
    corrected, warnings = reader.correct(scan, reader.read(scan))
    assert warnings == []
    # Where the scan is twice as bright as the head, on the network's grid, is the lesion.
    bright = corrected.images.float() > 2
    assert 2 * (bright & corrected.masks).sum() / (bright.sum() + corrected.masks.sum()) > 0.9
    assert corrected.labels.bool().tolist() == corrected.masks.flatten(1).any(1).tolist()


def write_labels(path: Path, count: int, positive: range = range(0)) -> Path:
    lines = [f"{p},{n},{int(n in positive)}" for p in PATIENTS for n in range(count)]
    path.write_text("\n".join(["patient,slice,tumour", *lines]) + "\n", encoding="utf-8")
    return path


def test_a_mask_that_contradicts_the_labels_counts_and_is_named(
    tmp_path: Path, bundle: Path, learn
) -> None:
    work = make_work_folder(tmp_path, affine=AXIAL)
    labels = write_labels(tmp_path / "labels.csv", 52, range(8, 20))
    scans = list_learn_scans(find_corrected_store(work), labels)
    reader = ExampleReader(Pipeline.from_bundle(bundle, device="cpu"), (64, 64))
    assert [reader.correct(scan, reader.read(scan))[1] for scan in scans] == [[], [], []]
    labels = write_labels(tmp_path / "labels.csv", 52)
    said = learn(work, labels, max_epochs=1)[1]
    text = "12 slices are marked otherwise than their labels say. The mask counts."
    assert [f"p{n}-flair: {text}" in " ".join(said) for n in (1, 2, 3)] == [True] * 3
    labels = write_labels(tmp_path / "labels.csv", 50)
    with pytest.raises(
        InputError, match="has 52 slices along its third axis, and the table labels 50"
    ):
        learn(work, labels)


def test_a_disk_that_fills_while_weights_are_written_leaves_all_as_it_was(
    work: Path, learn
) -> None:
    flat = find_corrected_store(work).flat
    versions, labels = LearnedVersions(find_learned(flat)), read_files(flat / "store/labels")
    served = versions.publish(LEARNED, lambda folder: (folder / "configs").mkdir(parents=True))
    before = read_files(versions.folder / "versions")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, hard))
    try:
        with pytest.raises(OutputError, match="File too large"):
            learn(work, learning_rate=0.05, seed=5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert read_files(versions.folder / "versions") == before
    assert versions.find_current(LEARNED) == served.resolve()
    assert read_files(flat / "store/labels") == labels
    assert read_status(versions.folder).status in ("ERROR", "DONE")
    assert not list(versions.folder.rglob(".draft-*"))


def test_two_trainings_at_once_are_refused(work: Path, learn) -> None:
    folder = find_learned(find_corrected_store(work).flat)
    with begin_training(folder, "stub", {}):
        with pytest.raises(InputError, match="A training is running already"):
            learn(work)
        assert read_status(folder).status == "RUNNING"
    assert read_status(folder).status == "DONE"
    assert not stop_training(folder)


def test_a_training_that_was_killed_is_not_running(tmp_path: Path) -> None:
    with begin_training(tmp_path, "stub", {}) as training:
        training.write()
        content = (tmp_path / "training.json").read_text(encoding="utf-8")
    (tmp_path / "training.json").write_text(content, encoding="utf-8")  # as a kill leaves it
    status = read_status(tmp_path)
    assert json.loads(content)["status"] == "RUNNING"
    assert (status.status, status.details[-1]) == (
        "ERROR",
        "It was killed. Start it again and it goes on.",
    )


def test_a_training_that_ends_while_it_is_looked_at_is_not_said_to_be_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with begin_training(tmp_path, "stub", {}) as training:

        def end_first(folder: Path) -> bool:
            training.end("DONE")
            return False

        monkeypatch.setattr(status, "is_running", end_first)
        assert read_status(tmp_path).status == "DONE"


def test_images_of_a_patient_are_found_by_the_table_or_by_bids() -> None:
    assert find_patient("TCGA-1-t2f", ["TCGA", "TCGA-1"]) == "TCGA-1"
    assert (
        find_patient("sub-07_ses-2_FLAIR", []) == find_patient("sub-07_ses-1_FLAIR", []) == "sub-07"
    )
    assert find_patient("scan7", ["scan"]) == "scan7"
