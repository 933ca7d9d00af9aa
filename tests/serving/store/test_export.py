"""heatmask labels: what was stored, seen and brought back from the command line."""

import csv

import pytest
from typer.testing import CliRunner

from heatmask.cli import app
from heatmask.errors import HeatmaskError, InputError
from heatmask.serving.store import Store
from helpers.store_files import NAMED, write_image, write_label, write_studies


@pytest.fixture
def work(tmp_path):
    """A work folder in which two people submitted; the store is closed."""
    flat = write_studies(tmp_path / "work")
    store = Store(flat, flat / "store", lambda: 1_800_000_000.0)
    labels = [write_label(tmp_path / f"{n}.nii.gz", n) for n in range(3)]
    store.prelabel("p1", labels[0], {}, "unet", {})
    for person, label in zip(("ann", "bob"), labels[1:], strict=True):
        store.submit("p1", label, NAMED, person, f"{person}/1", "unet")
    sent = store.send_image(write_image(tmp_path / "up.nii.gz"), "=6: t2", "ann/1")
    store.submit(sent, labels[2], {}, "ann", "ann/1")
    store.submit("p2", labels[2], {}, "ann", "ann/1")
    store.remove_label("p2", "final", "eve")
    store.close()
    return tmp_path / "work"


def run(*arguments) -> str:
    result = CliRunner().invoke(app, ["labels", *map(str, arguments)])
    if isinstance(result.exception, HeatmaskError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_every_version_is_listed(work):
    lines = run(work).splitlines()
    assert lines[0] == f"In {work / 'flat'}:"
    assert lines[1:8] == [
        "p1",
        "  final 1  2027-01-15 08:00:00 UTC  by ann, from unet",
        "  final 2  2027-01-15 08:00:00 UTC  by bob, from unet, without having seen that of ann, "
        "current",
        "  original 1  2027-01-15 08:00:00 UTC  from unet, current",
        "p2",
        "  final 1  2027-01-15 08:00:00 UTC  by ann",
        "  final 2  2027-01-15 08:00:00 UTC  by eve, removed",
    ]
    assert lines[8].startswith("sent-")
    assert lines[8].endswith(" (sent as '=6: t2')")


def test_studies_without_labels_are_said_to_have_none(tmp_path):
    flat = write_studies(tmp_path / "work")
    Store(flat, flat / "store").close()
    assert run(tmp_path / "work").splitlines() == [f"In {flat}:", "  no labels yet"]


def test_a_version_is_restored(work, monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: "admin")
    assert "final 3" in run(work, "--restore", "p1", 1)
    assert "by admin, from unet, restored from 1, current" in run(work)
    with pytest.raises(InputError, match="No label of 'p9'"):
        run(work, "--restore", "p9", 1)


def test_beside_a_server_it_lists_and_exports_but_does_not_restore(work, tmp_path):
    store = Store(work / "flat", work / "flat" / "store")
    assert "by bob" in run(work)
    run(work, "--export", tmp_path / "out")
    with pytest.raises(InputError, match="Only one server"):
        run(work, "--restore", "p1", 1)
    store.close()


def test_current_labels_are_exported_with_a_table(work, tmp_path):
    output = run(work, "--export", tmp_path / "new" / "out")
    assert output.startswith("2 labels and labels.csv")
    with (tmp_path / "new/out/labels.csv").open(encoding="utf-8", newline="") as file:
        first, second = csv.DictReader(file)
    assert first["file"] == "p1.nii.gz"
    assert (first["version"], first["versions"], first["person"]) == ("2", "2", "bob")
    assert (first["model"], first["conflict"]) == ("unet", "ann")
    assert second["name"] == "'=6: t2", "no spreadsheet runs it as a formula"
    exported = (tmp_path / "new/out/p1.nii.gz").read_bytes()
    assert exported == (tmp_path / "2.nii.gz").read_bytes()
    assert len(list((tmp_path / "new/out").iterdir())) == 3
    with pytest.raises(InputError, match=r"exists\. Give another"):
        run(work, "--export", tmp_path / "new" / "out")


def test_a_damaged_label_is_not_exported_in_silence(work, tmp_path):
    (work / "flat/store/labels/p1/final/2/mask.nii.gz").write_bytes(b"damaged")
    with pytest.raises(InputError, match="is not what was stored"):
        run(work, "--export", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_one_name_in_two_folders_of_studies(work, tmp_path):
    flat = write_studies(tmp_path / "more")
    store = Store(flat, flat / "store")
    store.submit("p1", write_label(tmp_path / "o.nii.gz", 1), {}, "ann", "ann/1")
    store.close()
    flat.rename(work / "other")
    with pytest.raises(InputError, match=r"Several folders have labels of 'p1'.*flat.*other"):
        run(work, "--restore", "p1", 1)
    run(work / "other", "--restore", "p1", 1)
    run(work, "--export", tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"p1.nii.gz", "other-p1.nii.gz"} < names


def test_a_folder_no_server_worked_in(tmp_path):
    with pytest.raises(InputError, match="none has worked in"):
        run(tmp_path)
