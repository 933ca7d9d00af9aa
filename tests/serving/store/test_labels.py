"""Every submit is a version; what was stored stays."""

import re

import nibabel as nib
import numpy as np
import pytest

from heatmask.errors import InputError, NotFoundError
from heatmask.serving.store import FINAL, ORIGINAL, Store
from heatmask.serving.store.durable import measure_sha256
from helpers.scan_files import write_nifti, write_nrrd
from helpers.serving_stub import tilt_affine
from helpers.store_files import NAMED, SHAPE, read_tree, write_label


def submit(store, label, person="ann", client="", image="p1", info=NAMED):
    return store.submit(image, label, info, person, client or f"{person}/1", "unet")


def test_a_version_says_who_when_and_from_which_model(store, tmp_path):
    label = write_label(tmp_path / "a.nii.gz", 3)
    version = submit(store, label)
    assert (version.image, version.tag, version.number) == ("p1", FINAL, 1)
    assert (version.person, version.model, version.conflict) == ("ann", "unet", None)
    assert version.time == "2027-01-15T08:00:00.000+00:00"
    assert version.sha256 == measure_sha256(label) == measure_sha256(version.path)
    assert version.info == NAMED
    assert label.is_file()


def test_every_submit_is_a_new_version_and_the_last_is_current(store, tmp_path):
    files = [write_label(tmp_path / f"{n}.nii.gz", n) for n in range(3)]
    versions = [submit(store, file) for file in files]
    assert store.list_versions("p1") == versions
    assert [v.path.read_bytes() for v in versions] == [f.read_bytes() for f in files]
    assert store.get_label_uri("p1", FINAL) == str(versions[-1].path)


def test_one_label_is_current_whatever_the_file_type(store, tmp_path):
    submit(store, write_label(tmp_path / "a.nii.gz", 1))
    mask = np.zeros(SHAPE, np.float32)
    mask[0, 0, 0] = 1
    nrrd = submit(store, write_nrrd(tmp_path / "b.nrrd", mask, tilt_affine()))
    assert store.list_current("p1") == {FINAL: nrrd}
    assert store.json()["objects"]["p1"]["labels"][FINAL]["ext"] == ".nrrd"


def test_a_restored_version_is_a_new_one_with_the_old_content(store, tmp_path):
    first = submit(store, write_label(tmp_path / "a.nii.gz", 1))
    submit(store, write_label(tmp_path / "b.nii.gz", 2), "bob")
    again = store.restore("p1", 1, "eve")
    assert (again.number, again.person, again.restored_from) == (3, "eve", 1)
    assert again.path.read_bytes() == first.path.read_bytes()
    assert store.list_current("p1")[FINAL] == again
    assert len(store.list_versions("p1")) == 3


def test_a_version_that_is_not_there_or_damaged_is_not_restored(store, tmp_path):
    first = submit(store, write_label(tmp_path / "a.nii.gz", 1))
    with pytest.raises(NotFoundError, match=r"one of those of 'p1' \(1\), got 7"):
        store.restore("p1", 7, "eve")
    with pytest.raises(NotFoundError, match=r"\(none\)"):
        store.restore("p2", 1, "eve")
    first.path.write_bytes(b"changed by hand")
    with pytest.raises(InputError, match="Version 1 of 'p1' is damaged"):
        store.restore("p1", 1, "eve")
    assert len(store.list_versions("p1")) == 1


def test_a_removed_label_can_be_restored(store, tmp_path):
    submit(store, write_label(tmp_path / "a.nii.gz", 1))
    store.remove_label("p1", FINAL, "eve")
    assert store.get_label_uri("p1", FINAL) == ""
    assert store.get_unlabeled_images() == ["p1", "p2"]
    with pytest.raises(NotFoundError, match="no label under the tag 'final'"):
        store.remove_label("p1", FINAL, "eve")
    with pytest.raises(NotFoundError, match="got 2"):
        store.restore("p1", 2, "eve")
    store.restore("p1", 1, "eve")
    assert store.get_labeled_images() == ["p1"]
    assert [v.removed for v in store.list_versions("p1")] == [False, True, False]


def test_a_model_never_touches_the_final_label(store, tmp_path):
    mine = submit(store, write_label(tmp_path / "a.nii.gz", 1))
    theirs = write_label(tmp_path / "b.nii.gz", 2)
    store.prelabel("p1", theirs, {}, "unet", {"p": 0.9})
    assert store.list_current("p1")[FINAL] == mine
    assert store.get_label_info("p1", ORIGINAL)["params"] == {"p": 0.9}
    assert store.save_label("p2", str(theirs), ORIGINAL, {"model": "unet", "params": {}}) == "p2"
    assert store.get_unlabeled_images() == ["p2"]
    for tag in (FINAL, "../../outside", "/tmp/outside", "..", "", "x" * 300):
        with pytest.raises(InputError, match="label_tag must be 'original'"):
            store.save_label("p1", str(theirs), tag, {"model": "unet"})
    assert store.list_current("p1")[FINAL] == mine


def test_more_said_of_a_label_is_a_version_too(store, tmp_path):
    first = submit(store, write_label(tmp_path / "a.nii.gz", 1))
    store.update_label_info("p1", FINAL, {"quality": "good"}, "ann", "ann/1")
    info = store.get_label_info("p1", FINAL)
    assert (info["quality"], info["label_info"], info["version"]) == (
        "good",
        NAMED["label_info"],
        2,
    )
    assert store.list_versions("p1")[0] == first
    with pytest.raises(InputError, match="1 is not in it"):
        store.update_label_info("p1", FINAL, {"label_info": []}, "ann", "ann/1")


class TestConflicts:
    @pytest.fixture
    def files(self, tmp_path):
        return [write_label(tmp_path / f"{n}.nii.gz", n) for n in range(4)]

    def test_a_submit_over_a_version_not_seen_keeps_both_and_says_whose(self, store, files):
        assert submit(store, files[0], "ann").conflict is None
        over = submit(store, files[1], "bob")
        assert over.conflict == "ann"
        assert [v.person for v in store.list_versions("p1")] == ["ann", "bob"]

    def test_a_version_that_was_shown_is_no_conflict(self, store, files):
        submit(store, files[0], "ann")
        store.note_seen("p1", "bob/1")
        assert submit(store, files[1], "bob").conflict is None
        assert submit(store, files[2], "bob").conflict is None
        assert submit(store, files[3], "ann").conflict == "bob"

    def test_two_windows_of_one_person_are_two_clients(self, store, files):
        submit(store, files[0], "ann", "ann/1")
        assert submit(store, files[1], "ann", "ann/2").conflict == "ann"

    def test_all_whose_versions_were_not_seen_are_named(self, store, files):
        for person in ("ann", "bob"):
            submit(store, files[0], person)
        store.restore("p1", 1, "eve")
        assert submit(store, files[1], "zoe").conflict == "ann, bob, eve"

    def test_a_client_has_seen_its_own_also_before_a_restart(self, store, flat, files):
        submit(store, files[0], "ann")
        submit(store, files[1], "bob")
        store.close()
        again = Store(flat, flat / "store")
        assert submit(again, files[2], "bob").conflict is None
        assert submit(again, files[3], "ann").conflict == "bob"
        again.close()


class TestChecks:
    """What is no label of its image is refused, and the earlier one stays."""

    @pytest.fixture
    def refuse(self, store, tmp_path):
        kept = submit(store, write_label(tmp_path / "kept.nii.gz", 1))
        before = read_tree(store._folder)

        def refuse(file, text, info=NAMED):
            with pytest.raises(InputError, match=text) as error:
                submit(store, file, "bob", info=info)
            assert str(tmp_path) not in str(error.value)
            assert store.list_versions("p1") == [kept]
            assert read_tree(store._folder) == before
            return str(error.value)

        return refuse

    @pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.nrrd"])
    @pytest.mark.parametrize("content", [b"", b"13 bytes long", b"NRRD0004\n"])
    def test_garbage(self, refuse, tmp_path, name, content):
        (tmp_path / name).write_bytes(content)
        text = refuse(tmp_path / name, "cannot be read")
        assert "an earlier one is kept" in text

    def test_a_label_that_is_cut_off(self, refuse, tmp_path):
        whole = write_label(tmp_path / "a.nii.gz", *range(0, 200, 3)).read_bytes()
        (tmp_path / "b.nii.gz").write_bytes(whole[:-20])
        refuse(tmp_path / "b.nii.gz", "cut off or damaged")

    @pytest.mark.parametrize("name", ["a.txt", "a", "a.nii.gz.exe", "a.png", ".."])
    def test_another_kind_of_file(self, refuse, tmp_path, name):
        path = tmp_path / name
        if not path.is_dir():
            write_label(tmp_path / "good.nii.gz", 1).rename(path)
        refuse(path, "must end in .nii.gz, .nii, .nrrd")

    def test_another_grid(self, refuse, tmp_path):
        small = np.zeros((10, 10, 4), np.uint8)
        refuse(write_nifti(tmp_path / "a.nii.gz", small, tilt_affine()), "10 x 10 x 4 voxels")
        mask = np.zeros(SHAPE, np.uint8)
        refuse(write_nifti(tmp_path / "b.nii.gz", mask, np.eye(4)), "affine is the identity")
        moved = tilt_affine()
        moved[0, 3] += 5
        refuse(write_nifti(tmp_path / "c.nii.gz", mask, moved), "5 mm apart")
        deep = np.zeros((*SHAPE, 2), np.uint8)
        refuse(write_nifti(tmp_path / "d.nii.gz", deep, tilt_affine()), "3D label map")

    def test_a_header_that_claims_much_is_refused_before_the_voxels_are_read(
        self, refuse, tmp_path
    ):
        header = nib.Nifti1Image(np.zeros((1, 1, 1), np.uint8), tilt_affine()).header
        header["dim"][1:4] = 30_000
        header["vox_offset"] = 352
        (tmp_path / "a.nii").write_bytes(header.binaryblock + bytes(4))
        refuse(tmp_path / "a.nii", "3e\\+04 x 3e\\+04 x 3e\\+04 voxels|30000 x 30000")

    def test_values_that_are_no_labels(self, refuse, tmp_path):
        mask = np.zeros(SHAPE, np.float32)
        mask[0] = 0.3
        refuse(write_nifti(tmp_path / "a.nii.gz", mask, tilt_affine()), "probability map")
        refuse(write_label(tmp_path / "b.nii.gz", 1, value=-1, dtype=np.int16), "whole numbers")
        named = {"label_info": [{"name": "x", "idx": 256}]}
        large = write_label(tmp_path / "c.nii.gz", 1, value=256, dtype=np.int16)
        refuse(large, "at most 255, got 256", named)

    def test_values_that_are_not_named(self, refuse, tmp_path):
        label = write_label(tmp_path / "a.nii.gz", 1, value=2)
        refuse(label, "name every value of the label; 2 is not in it")
        refuse(label, "2 is not in it", {"label_info": []})
        for wrong in ("tumour", 7, [1], [{"name": "x"}], [{"name": 1, "idx": 2}], [{"idx": "2"}]):
            refuse(label, "label_info must be a list like", {"label_info": wrong})

    def test_a_link(self, store, tmp_path):
        (tmp_path / "link.nii.gz").symlink_to(write_label(tmp_path / "a.nii.gz", 1))
        with pytest.raises(Exception, match="Nothing was stored"):
            submit(store, tmp_path / "link.nii.gz")

    def test_an_image_that_there_is_not(self, store, tmp_path):
        label = write_label(tmp_path / "a.nii.gz", 1)
        for name in ("p9", "", "..", "../p1", "/etc/passwd", "x" * 300):
            with pytest.raises(NotFoundError, match="one of the 2 that the server lists"):
                submit(store, label, image=name)


def test_a_label_without_names_may_hold_any_whole_numbers(store, tmp_path):
    label = write_label(tmp_path / "a.nii.gz", 1, value=255)
    assert submit(store, label, info={}).number == 1


def test_nothing_marked_is_a_label_and_so_is_another_order_of_voxels(store, tmp_path):
    assert submit(store, write_label(tmp_path / "a.nii.gz"), info={"label_info": []}).number == 1
    affine = tilt_affine() @ np.array([[-1, 0, 0, 4], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    flipped = write_nifti(tmp_path / "b.nii.gz", np.zeros(SHAPE, np.uint8)[::-1], affine)
    assert submit(store, flipped).number == 2


def test_folders_and_files_are_the_users_alone(store, tmp_path):
    submit(store, write_label(tmp_path / "a.nii.gz", 1))
    modes = {
        (path.is_dir(), path.stat().st_mode & 0o777)
        for path in [store._folder, *store._folder.rglob("*")]
    }
    assert modes == {(True, 0o700), (False, 0o600)}


def test_everything_is_found_again(store, flat, tmp_path):
    submit(store, write_label(tmp_path / "a.nii.gz", 1))
    submit(store, write_label(tmp_path / "b.nii.gz", 2), "bob")
    store.remove_label("p1", FINAL, "eve")
    store.restore("p1", 2, "eve")
    store.prelabel("p2", write_label(tmp_path / "c.nii.gz", 2), {}, "unet", {})
    before = [store.list_versions(image) for image in ("p1", "p2")]
    store.close()
    again = Store(flat, flat / "store")
    assert [again.list_versions(image) for image in ("p1", "p2")] == before
    again.close()


def test_what_was_said_of_a_version_may_be_lost_but_not_the_version(store, flat, tmp_path, caplog):
    submit(store, write_label(tmp_path / "a.nii.gz", 1))
    second = submit(store, write_label(tmp_path / "b.nii.gz", 2))
    for content in (
        '{"time": "20', "[]", "null", '{"image": "/etc/passwd", "path": "/etc"}',
        '{"time": 7, "info": null, "removed": "no", "number": 9}',
    ):  # fmt: skip
        second.path.with_name("about.json").write_text(content)
        store.refresh()
        (_, kept) = store.list_versions("p1")
        assert (kept.number, kept.path, kept.image) == (2, second.path, "p1")
        assert store.get_label_info("p1", FINAL)["version"] == 2
    second.path.with_name("about.json").unlink()
    store.refresh()
    assert store.list_versions("p1")[1].sha256 == second.sha256
    assert "is not known any more" in caplog.text
    second.path.unlink()
    store.refresh()
    assert [v.number for v in store.list_versions("p1")] == [1]
    assert "it holds no label" in caplog.text


def test_numbers_are_never_used_twice(store, flat, tmp_path):
    first = submit(store, write_label(tmp_path / "a.nii.gz", 1))
    (first.path.parent.parent / "7").mkdir()
    assert submit(store, write_label(tmp_path / "b.nii.gz", 2)).number == 8
    assert re.fullmatch(r"mask\.nii\.gz", first.path.name)
