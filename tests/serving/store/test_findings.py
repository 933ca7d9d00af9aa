"""The holes of the store that earlier versions took from MONAI Label, by their numbers there.

Where MONAI Label's interface has the call, it is made through it, as its endpoints did.
"""

import numpy as np
import pytest

from heatmask.errors import HeatmaskError, InputError, NotFoundError
from heatmask.serving.store import FINAL, ORIGINAL
from helpers.scan_files import write_nifti
from helpers.serving_stub import tilt_affine
from helpers.store_files import SHAPE, read_tree, write_image, write_label


@pytest.mark.parametrize(
    ("name", "file"), [("p1.nii", "x.gz"), ("p1.nii.gz", "x"), ("p1", "x.nii.gz"), ("p1", "x.gz")]
)
def test_1_no_upload_replaces_the_scan_behind_a_link(store, tmp_path, name, file):
    before = read_tree(tmp_path / "scans")
    write_label(tmp_path / "other.nii.gz", 1).rename(tmp_path / file)
    try:
        store.add_image(name, str(tmp_path / file), {})
    except HeatmaskError:
        assert not file.endswith(".nii.gz")
    assert read_tree(tmp_path / "scans") == before
    assert (store.find_image("p1")).is_symlink()


def test_3_no_path_of_the_machine_is_an_image_or_deleted(store, tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir()
    write_image(victim / "meta.info.nii.gz")
    for name in (str(victim), f"{victim}/", "../../victim", str(victim / "meta.info.nii.gz")):
        assert store.get_image_uri(name) == ""
        with pytest.raises(NotFoundError):
            store.remove_image(name)
        with pytest.raises(NotFoundError):
            store.resolve(name, "ann/1")
        store.end_session(name)
    assert (victim / "meta.info.nii.gz").is_file()


def test_4_two_people_keep_both_labels_and_do_not_get_the_same_study(store, tmp_path):
    assert store.lease("p1", "ann/1")
    assert not store.lease("p1", "bob/1")
    a, b = write_label(tmp_path / "a.nii.gz", 1), write_label(tmp_path / "b.nii", 2)
    store.submit("p1", a, {}, "ann", "ann/1")
    assert store.submit("p1", b, {}, "bob", "bob/1").conflict == "ann"
    contents = [version.path.read_bytes() for version in store.list_versions("p1", FINAL)]
    assert contents == [a.read_bytes(), b.read_bytes()]


def test_5_what_a_model_makes_never_becomes_the_final_label(store, tmp_path):
    mine, models = write_label(tmp_path / "a.nii.gz", 1), write_label(tmp_path / "b.nii.gz", 2)
    store.submit("p1", mine, {}, "ann", "ann/1")
    with pytest.raises(InputError, match="stored by Submit alone"):
        store.save_label("p1", str(models), FINAL, {"model": "unet", "params": {}})
    store.save_label("p1", str(models), ORIGINAL, {"model": "unet", "params": {}})
    assert store.get_label("p1", FINAL).getvalue() == mine.read_bytes()


def test_6_what_is_no_label_of_the_image_is_refused(store, tmp_path):
    good = write_label(tmp_path / "good.nii.gz", 1)
    store.submit("p1", good, {}, "ann", "ann/1")
    bad = [tmp_path / f"{n}.nii.gz" for n in range(4)]
    bad[0].write_bytes(b"")
    bad[1].write_bytes(b"13 of garbage")
    write_nifti(bad[2], np.zeros((10, 10, 4), np.uint8), tilt_affine())
    write_nifti(bad[3], np.zeros(SHAPE, np.uint8), np.eye(4))
    for file in bad:
        with pytest.raises(InputError, match="an earlier one is kept"):
            store.submit("p1", file, {}, "ann", "ann/1")
    assert store.get_label("p1", FINAL).getvalue() == good.read_bytes()


def test_7_there_is_no_index_that_could_be_torn(store, tmp_path):
    """Full disks and kills: test_durable.py."""
    store.submit("p1", write_label(tmp_path / "a.nii.gz", 1), {}, "ann", "ann/1")
    before = read_tree(store._folder)
    store.submit("p2", write_label(tmp_path / "b.nii.gz", 2), {}, "ann", "ann/1")
    after = read_tree(store._folder)
    assert {name: after[name] for name in before} == before, "no file was written in place"
    assert sorted(after.keys() - before.keys()) == [
        "labels/p2/final/1/about.json",
        "labels/p2/final/1/mask.nii.gz",
    ]


def test_8_what_a_client_says_of_an_image_does_not_change_which_it_is(store):
    before = store.get_image_info("p1")
    store.update_image_info("p1", {"id": "p2", "name": "../../..", "path": "/etc/passwd"})
    assert store.get_image_info("p1") == before
    assert store.get_image_uri("p1") == before["path"]


def test_10_other_files_are_not_read_and_refused_ones_leave_nothing(store, tmp_path):
    secret = write_image(tmp_path / "secret.nii.gz")
    for name in (str(secret), "../../secret", "../../secret.nii.gz", "../scans/p1/scan"):
        assert store.get_image(name) is None
        assert store.get_label(name, FINAL) is None
        assert store.get_label("p1", f"../../{name}") is None
    before = read_tree(store._folder)
    (tmp_path / "bad.nii.gz").write_bytes(b"no image")
    with pytest.raises(InputError):
        store.send_image(tmp_path / "bad.nii.gz", "mine", "ann/1")
    link = tmp_path / "link.nii.gz"
    link.symlink_to(secret)
    with pytest.raises(HeatmaskError):
        store.send_image(link, "mine", "ann/1")
    assert read_tree(store._folder) == before
    assert secret.is_file()
    with pytest.raises(InputError, match="not handed out as a whole"):
        store.get_dataset_archive(None)
