"""The flat folder of links that the host lists."""

import hashlib
import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from heatmask.data.recognition import find_clue
from heatmask.data.recognition.sequence import SEQUENCES
from heatmask.errors import InputError, OutputError
from heatmask.serving.store.links import find_scan, read_siblings
from heatmask.serving.studies import index_studies
from heatmask.serving.task import list_scans
from helpers.serving_stub import write_scan

FLAIRS = {"p1-t2f.nii.gz", "p2-t2f.nii.gz"}


@pytest.fixture
def studies(tmp_path) -> Path:
    """Two patients with FLAIR, sibling modalities and a mask, in sub-folders."""
    folder = tmp_path / "studies"
    for patient in ("p1", "p2"):
        for kind in ("t2f", "t1c", "seg", "other"):
            path = folder / "site" / patient / f"{patient}-{kind}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
    return folder


def list_names(folder: Path) -> set[str]:
    """What lies in the flat folder, without what the server keeps."""
    return {path.name for path in folder.iterdir()} - {"store"}


def test_reference_scans_are_linked_siblings_and_masks_are_not(studies, tmp_path):
    index = index_studies(studies, tmp_path / "work")
    assert list_names(index) == FLAIRS | {"modalities"}
    assert (index / "p2-t2f.nii.gz").resolve() == (studies / "site/p2/p2-t2f.nii.gz").resolve()


def test_siblings_are_linked_below_and_found_again(studies, tmp_path):
    index = index_studies(studies, tmp_path / "work")
    source = studies.resolve() / "site/p1/p1-t1c.nii.gz"
    assert read_siblings(index / "p1-t2f.nii.gz") == {"T1-Gd": str(source)}
    source.unlink()
    (studies / "site/p1/p1-t2w.nii").write_bytes(b"")
    index_studies(studies, tmp_path / "work")
    assert list(read_siblings(index / "p1-t2f.nii.gz")) == ["T2"]
    (index / "uploaded.nii.gz").write_bytes(b"")
    assert read_siblings(index / "uploaded.nii.gz") == {}


def annex(path: Path, key: str) -> Path:
    """Replace a scan by a link to a file named by a hash."""
    target = path.parents[2] / ".git" / "annex" / "objects" / f"SHA256E-s0--{key}.nii.gz"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.touch()
    path.unlink(missing_ok=True)
    path.symlink_to(target)
    return path


@pytest.mark.fault("D")
def test_a_scan_that_is_a_link_keeps_its_name(studies, tmp_path):
    for end in ("t2f", "t1c"):
        annex(studies / f"site/p1/p1-{end}.nii.gz", end[::-1])
    index = index_studies(studies, tmp_path / "work")
    image = index / "p1-t2f.nii.gz"
    own = {end: str(studies / f"site/p1/p1-{end}.nii.gz") for end in ("t2f", "t1c")}
    assert str(find_scan(image)) == own["t2f"]
    assert read_siblings(image) == {"T1-Gd": own["t1c"]}
    scans = {"T1-Gd": own["t1c"], "FLAIR": own["t2f"]}
    assert list_scans(image) == (scans, "p1-t2f.nii.gz", "FLAIR")
    assert list_scans(index / "p2-t2f.nii.gz")[2] == "FLAIR"


@pytest.mark.fault("D")
def test_a_lone_scan_that_is_a_link_is_served_under_its_name(tmp_path):
    link = tmp_path / "set" / "site" / "p1" / "p1-t1c.nii.gz"
    link.parent.mkdir(parents=True)
    annex(link, "0123")
    index = index_studies(tmp_path / "set", tmp_path / "work", ("FLAIR", "T1-Gd"))
    assert list_scans(index / "p1-t1c.nii.gz") == (str(link), "p1-t1c.nii.gz", None)
    assert find_clue(list_scans(index / "p1-t1c.nii.gz")[0]).sequence == "T1-Gd"


@pytest.mark.fault("D")
def test_content_that_is_elsewhere_is_named_and_the_others_are_served(studies, tmp_path, caplog):
    annex(studies / "site/p1/p1-t2f.nii.gz", "gone").resolve().unlink()
    index = index_studies(studies, tmp_path / "work")
    assert "p2-t2f.nii.gz" in list_names(index)
    assert "p1-t2f.nii.gz" not in list_names(index)
    assert "git annex get" in caplog.text


@pytest.mark.fault("D")
def test_a_linked_folder_of_studies_is_the_same_folder(studies, tmp_path):
    """Labels stay with their scans, whichever way these are reached, or stored."""
    index = index_studies(studies, tmp_path / "work")
    label = index / "labels/final/p1-t2f.nrrd"
    label.parent.mkdir(parents=True)
    label.write_bytes(b"corrected")
    (tmp_path / "mine").symlink_to(studies)
    assert index_studies(tmp_path / "mine", tmp_path / "work") == index
    assert (index / "p1-t2f.nii.gz").readlink() == tmp_path / "mine/site/p1/p1-t2f.nii.gz"
    (index / "p1-t2f.nii.gz").unlink()
    annexed = annex(studies / "site/p1/p1-t2f.nii.gz", "0123").resolve()
    (index / "p1-t2f.nii.gz").symlink_to(annexed)  # As former versions linked it
    index_studies(studies, tmp_path / "work")
    assert (index / "p1-t2f.nii.gz").readlink() == studies / "site/p1/p1-t2f.nii.gz"


@pytest.mark.fault("D")
def test_nnunets_channels_are_served_as_one_study(tmp_path):
    for number in range(2):
        write_scan(tmp_path / "imagesTs" / f"P1_000{number}.nii.gz")
    (tmp_path / "dataset.json").write_text('{"channel_names": {"0": "T1ce", "1": "Flair"}}')
    index = index_studies(tmp_path / "imagesTs", tmp_path / "work")
    scans, _, reference = list_scans(index / "P1_0001.nii.gz")
    assert reference == "FLAIR"
    assert {s: Path(p).name for s, p in scans.items()} == {
        "FLAIR": "P1_0001.nii.gz",
        "T1-Gd": "P1_0000.nii.gz",
    }


def test_every_sequence_has_a_link_that_says_it(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    for sequence in SEQUENCES:
        (folder / f"p1_{sequence.replace('*', 'star')}.nii").write_bytes(b"")
    index = index_studies(folder, tmp_path / "work")
    assert not any("*" in path.name for path in index.rglob("*"))
    siblings = read_siblings(index / "p1_FLAIR.nii")
    assert {"FLAIR", *siblings} == set(SEQUENCES)
    for sequence, path in siblings.items():
        assert Path(path).stem == f"p1_{sequence.replace('*', 'star')}"


def test_the_first_sequence_that_a_study_has_is_its_reference(studies, tmp_path):
    (studies / "site/p2/p2-t2f.nii.gz").unlink()
    index = index_studies(studies, tmp_path / "work", ("FLAIR", "T1-Gd"))
    assert list_names(index) == {"p1-t2f.nii.gz", "p2-t1c.nii.gz", "modalities"}


def test_a_folder_that_cannot_be_written_is_served(studies, tmp_path):
    before = sorted(studies.rglob("*"))
    for folder in (studies, *(p for p in before if p.is_dir())):
        folder.chmod(0o555)
    try:
        index_studies(studies, tmp_path / "work")
    finally:
        for folder in (studies, *(p for p in before if p.is_dir())):
            folder.chmod(0o755)
    assert sorted(studies.rglob("*")) == before


def test_scans_that_no_name_tells_about_are_studies_where_no_reference_lies(tmp_path):
    folder = tmp_path / "mine"
    write_scan(folder / "a" / "scan1.nii")
    write_scan(folder / "b" / "scan1.nii")
    write_scan(folder / "b" / "t1.nii")
    index = index_studies(folder, tmp_path / "work")
    assert list_names(index) == {"a_scan1.nii", "b_scan1.nii"}


def test_a_pattern_chooses_the_studies(studies, tmp_path):
    index = index_studies(studies, tmp_path / "work", pattern="*-t1c*")
    assert list_names(index) == {"p1-t1c.nii.gz", "p2-t1c.nii.gz"}


def write_picture(path: Path, level: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((6, 8), level, np.uint8)).save(path)
    return path


def test_pictures_are_served_as_volumes_of_one_slice(tmp_path):
    folder = tmp_path / "mine"
    write_picture(folder / "a" / "p1-flair.png", 7)
    write_picture(folder / "a" / "p1-t1c.png", 8)
    picture = write_picture(folder / "b" / "slice.png", 9)
    before = sorted(folder.rglob("*"))
    index = index_studies(folder, tmp_path / "work", pattern="*.png")
    assert list_names(index) == {"p1-flair.nii.gz", "slice.nii.gz", "modalities"}
    volume = nib.load(index / "slice.nii.gz")
    assert volume.shape == (8, 6, 1)
    assert (volume.get_fdata() == 9).all()
    (sibling,) = read_siblings(index / "p1-flair.nii.gz").items()
    assert sibling[0] == "T1-Gd"
    assert (nib.load(sibling[1]).get_fdata() == 8).all()
    assert sorted(folder.rglob("*")) == before

    copy = (index / "slice.nii.gz").resolve()
    written = copy.stat().st_mtime_ns
    index_studies(folder, tmp_path / "work", pattern="*.png")
    assert copy.stat().st_mtime_ns == written
    write_picture(picture, 10)
    os.utime(picture, ns=(1, 1))
    index_studies(folder, tmp_path / "work", pattern="*.png")
    assert (nib.load(index / "slice.nii.gz").get_fdata() == 10).all()


def test_a_labelled_picture_may_be_copied_anew(tmp_path):
    picture = write_picture(tmp_path / "mine" / "slice.png", 9)
    index = index_studies(tmp_path / "mine", tmp_path / "work", pattern="*.png")
    label = index / "labels" / "final" / "slice.nrrd"
    label.parent.mkdir(parents=True)
    label.write_bytes(b"corrected")
    os.utime(picture, ns=(1, 1))
    index_studies(tmp_path / "mine", tmp_path / "work", pattern="*.png")
    assert label.read_bytes() == b"corrected"


def test_a_damaged_picture_is_named_and_left_out(tmp_path, caplog):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "bad.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="none of 1 can"):
        index_studies(tmp_path / "mine", tmp_path / "work", pattern="*.png")
    write_picture(tmp_path / "mine" / "good.png", 9)
    index = index_studies(tmp_path / "mine", tmp_path / "work", pattern="*.png")
    assert list_names(index) == {"good.nii.gz"}
    assert "bad.png" in caplog.text


def test_indexing_again_follows_the_studies_and_keeps_labels(studies, tmp_path):
    index = index_studies(studies, tmp_path / "work")
    label = index / "labels/final/p1-t2f.nii.gz"
    label.parent.mkdir(parents=True)
    label.write_bytes(b"corrected")
    (index / "uploaded.nii.gz").write_bytes(b"sent by a client")
    shutil.rmtree(studies / "site/p2")
    write_scan(studies / "site/p3/p3-t2f.nii.gz")
    assert index_studies(studies, tmp_path / "work") == index
    expected = {"p1-t2f.nii.gz", "p3-t2f.nii.gz", "uploaded.nii.gz", "labels", "modalities"}
    assert list_names(index) == expected
    assert label.read_bytes() == b"corrected"


def test_a_label_never_passes_to_another_scan(studies, tmp_path):
    index = index_studies(studies, tmp_path / "work")
    label = index / "labels/final/p1-t2f.nrrd"
    label.parent.mkdir(parents=True)
    label.write_bytes(b"corrected")
    shutil.move(studies / "site/p1", studies / "p1")
    with pytest.raises(InputError, match=r"study with a label must stay.*p1-t2f"):
        index_studies(studies, tmp_path / "work")
    assert (index / "p1-t2f.nii.gz").readlink().parent.parent.name == "site"
    label.unlink()
    index_studies(studies, tmp_path / "work")
    assert (index / "p1-t2f.nii.gz").resolve() == (studies / "p1/p1-t2f.nii.gz").resolve()


def test_other_studies_get_another_folder(studies, tmp_path):
    other = tmp_path / "elsewhere" / "studies"
    write_scan(other / "flair.nii.gz")
    work = tmp_path / "work"
    assert index_studies(studies, work) != index_studies(other, work)


def test_a_missing_folder_is_refused_and_not_made(tmp_path):
    with pytest.raises(InputError, match="STUDIES must name a folder"):
        index_studies(tmp_path / "missing", tmp_path / "work")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_scans_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="There is no scan in"):
        index_studies(tmp_path / "empty", tmp_path / "work")


def test_a_folder_of_other_sequences_is_refused_and_they_are_listed(tmp_path):
    write_scan(tmp_path / "t1only" / "p1-t1c.nii.gz")
    with pytest.raises(InputError, match=r"must hold a FLAIR scan.*1 T1-Gd"):
        index_studies(tmp_path / "t1only", tmp_path / "work")


def test_scans_in_several_files_are_refused(tmp_path):
    folder = tmp_path / "detached"
    folder.mkdir()
    (folder / "flair.nhdr").write_text("NRRD0004\n")
    with pytest.raises(InputError, match="single files"):
        index_studies(folder, tmp_path / "work")


def test_a_work_folder_that_cannot_be_made_is_refused(studies, tmp_path):
    (tmp_path / "work").write_text("a file")
    with pytest.raises(OutputError, match="work folder must be writable"):
        index_studies(studies, tmp_path / "work")


def test_the_lgg_set_is_served_as_it_is(lgg, tmp_path):
    index = index_studies(lgg, tmp_path / "work")
    assert list_names(index) == {path.name for path in lgg.glob("*/*-t2f.nii.gz")} | {"modalities"}
    assert len(list(index.glob("modalities/*/T1-Gd.nii.gz"))) == len(
        list(lgg.glob("*/*-t1c.nii.gz"))
    )


def test_the_index_of_a_folder_keeps_its_name(studies, tmp_path):
    digest = hashlib.sha256(str(studies.resolve()).encode()).hexdigest()[:8]
    assert index_studies(studies, tmp_path / "work").name == f"studies-{digest}"


def test_a_name_that_is_no_text_is_not_served(studies, tmp_path, caplog):
    """It could not be sent to a client, nor read by ITK: an internal error at the next sample."""
    os.rename(studies / "site/p2", os.fsencode(studies / "site") + b"/p2\xff")
    assert list_names(index_studies(studies, tmp_path / "work")) == {"p1-t2f.nii.gz", "modalities"}
    assert "no UTF-8" in caplog.text
