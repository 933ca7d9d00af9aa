"""Finding scans: what counts as one, what it is called, and what is refused."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scan_files import write_dicom_series

from heatmask.data.find import Scan, find_scans, name_cases
from heatmask.errors import InputError, OptionError

ARRAY = np.arange(4 * 5 * 3).reshape(4, 5, 3)


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize("name", ["a.b.nii.gz", "a.b.nii", "a.b.nrrd", "a.b.nhdr", "a.b.NII.GZ"])
def test_one_file(tmp_path, name):
    touch(tmp_path / name)
    assert find_scans(tmp_path / name) == [Scan("a.b", tmp_path / name)]
    assert find_scans(str(tmp_path)) == [Scan("a.b", tmp_path / name)]


def test_folder_is_searched_deeply_without_masks_and_hidden_files(tmp_path):
    wanted = tmp_path / "p1" / "mri" / "p1-t2f.nii.gz"
    touch(
        wanted,
        *(tmp_path / "p1" / name for name in ("p1-seg.nii.gz", "p1_SEG.nii", "p1_seg_x.nrrd")),
        *(tmp_path / "p1" / name for name in ("p1_mask.nii.gz", "p1_heatmap.nii.gz")),
        tmp_path / "p1" / "._p1-t2f.nii.gz",
        tmp_path / ".trash" / "p2-t2f.nii.gz",
        tmp_path / "notes.txt",
        tmp_path / "picture.png",
    )
    assert find_scans(tmp_path) == [Scan("p1-t2f", wanted)]


def test_a_pattern_chooses_among_modalities(tmp_path):
    touch(*(tmp_path / p / f"{p}-{m}.nii.gz" for p in "abc" for m in ("t2f", "t1c")))
    touch(tmp_path / "a" / "a-t1n.nii.gz", tmp_path / "a" / "a-seg.nii.gz")
    assert len(find_scans(tmp_path)) == 7
    assert [scan.case for scan in find_scans(tmp_path, "*-t2f.nii.gz")] == [
        "a-t2f",
        "b-t2f",
        "c-t2f",
    ]
    with pytest.raises(InputError, match="matches none of the 7 scans"):
        find_scans(tmp_path, "*-seg.nii.gz")


def test_the_decathlons_masks_are_no_scans(tmp_path):
    """They have the names of the scans; the folder tells them apart."""
    folder = tmp_path / "Task01_BrainTumour"
    names = (
        "imagesTr/BRATS_001",
        "imagesTs/BRATS_485",
        "labelsTr/BRATS_001",
        "imagesTr/._BRATS_001",
    )
    touch(*(folder / f"{name}.nii.gz" for name in names), folder / "dataset.json")
    assert [scan.case for scan in find_scans(folder)] == ["BRATS_001", "BRATS_485"]
    with pytest.raises(InputError, match="must not be a mask"):
        find_scans(folder / "labelsTr" / "BRATS_001.nii.gz")
    with pytest.raises(InputError, match="found none"):
        find_scans(folder / "labelsTr")


def test_scans_of_unknown_sequence_are_one_group(tmp_path):
    touch(tmp_path / "one.nii.gz", tmp_path / "two.nii.gz")
    assert [scan.case for scan in find_scans(tmp_path)] == ["one", "two"]


def test_pictures_are_scans_where_they_are_asked_for(tmp_path):
    touch(tmp_path / "a_flair.nii", tmp_path / "b" / "1.png", tmp_path / "b" / "overview.PNG")
    assert [scan.case for scan in find_scans(tmp_path)] == ["a_flair"]
    assert [scan.case for scan in find_scans(tmp_path, "[0-9].png")] == ["1"]
    assert [scan.case for scan in find_scans(tmp_path, "*")] == ["a_flair"]
    assert find_scans(tmp_path / "b/1.png") == [Scan("1", tmp_path / "b/1.png")]
    with pytest.raises(InputError, match="found none"):
        find_scans(tmp_path / "b")


@pytest.mark.parametrize("suffix", [".dcm", ""])
def test_dicom_folder(tmp_path, suffix):
    folder = write_dicom_series(tmp_path / "Head 1", ARRAY, np.eye(4), suffix)
    touch(folder / "README")
    assert find_scans(folder) == [Scan("Head_1", folder)]
    assert find_scans(tmp_path, "Head*") == [Scan("Head_1", folder)]


def test_one_dicom_file_is_one_slice(tmp_path):
    write_dicom_series(tmp_path, ARRAY[..., :1], np.eye(4), SeriesDescription="T1w Gd")
    (file,) = tmp_path.iterdir()
    (scan,) = find_scans(file)
    assert (scan.path, scan.clue.sequence) == (file, "T1-Gd")


def test_dicom_series_are_known_by_their_headers(tmp_path):
    for number, name in enumerate(("FLAIR", "T1w")):
        write_dicom_series(tmp_path / str(number), ARRAY, np.eye(4), SeriesDescription=name)
    assert [scan.clue.sequence for scan in find_scans(tmp_path)] == ["FLAIR", "T1"]


def test_two_series_in_one_folder_are_listed(tmp_path):
    write_dicom_series(tmp_path, ARRAY, np.eye(4), ".a", SeriesDescription="Ax FLAIR")
    write_dicom_series(tmp_path, ARRAY[..., :2], np.eye(4), ".b", SeriesDescription="scout")
    with pytest.raises(InputError, match="holds 2") as caught:
        find_scans(tmp_path)
    assert "'Ax FLAIR' (3 files)" in str(caught.value)
    assert "'scout' (2 files)" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.nii.gz", "must exist"),
        ("table.csv", "must be a NIfTI"),
        ("x-seg.nii.gz", "must not be a mask"),
        ("empty", "found none"),
    ],
)
def test_refusals(tmp_path, name, reason):
    (tmp_path / "empty").mkdir()
    touch(tmp_path / "table.csv", tmp_path / "x-seg.nii.gz", tmp_path / "empty" / "notes.txt")
    with pytest.raises(InputError, match=reason) as caught:
        find_scans(tmp_path / name)
    assert name in str(caught.value)


@pytest.mark.parametrize("pattern", ["", "p1/*.nii.gz", 3])
def test_pattern_must_be_a_glob_on_names(tmp_path, pattern):
    with pytest.raises(OptionError, match="glob on file names"):
        find_scans(tmp_path, pattern)


def test_cases_are_unique_and_safe():
    paths = ["a/flair.nii", "b/FLAIR.nii.gz", "b/flair.nrrd", "c/Müller: 1*?.nii", "d/...nii"]
    cases = [scan.case for scan in name_cases(map(Path, paths))]
    assert cases[0] == "a_flair"
    assert cases[3:] == ["M_ller_1", "scan"]
    assert all(re.fullmatch(r"(?i)flair_[0-9a-f]{8}", case) for case in cases[1:3])
    assert len({case.casefold() for case in cases}) == len(cases)


def test_discovery_does_not_import_torch(tmp_path):
    write_dicom_series(tmp_path, ARRAY, np.eye(4))
    code = (
        "import sys; from heatmask.data.find import find_scans; find_scans(sys.argv[1]);"
        "sys.exit(any(name in sys.modules for name in ('torch', 'monai', 'itk')))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == 0


def test_a_name_never_passes_to_another_scan():
    """Labels are kept under the name: a new scan must not take the name of an old one."""
    before = {s.case: s.path for s in name_cases([Path("p1/flair/scan.nii"), Path("p2/scan.nii")])}
    paths = [Path("p0/flair/scan.nii"), Path("p1/flair/scan.nii"), Path("p2/scan.nii")]
    after = {s.case: s.path for s in name_cases(paths)}
    assert sorted(after) == ["p0_flair_scan", "p1_flair_scan", "p2_scan"]
    assert all(after[case] == path for case, path in before.items() if case in after)


def test_a_bad_series_is_left_out_of_an_archive_and_named(tmp_path, monkeypatch, caplog):
    touch(tmp_path / "a_flair.nii.gz", tmp_path / "series" / "1.dcm")
    monkeypatch.setattr(
        "heatmask.data.find.is_dicom_folder", lambda folder: folder.name == "series"
    )

    def refuse(folder):
        raise InputError(f"{folder} holds two series.")

    monkeypatch.setattr("heatmask.data.find.read_only_series", refuse)
    assert [scan.case for scan in find_scans(tmp_path)] == ["a_flair"]
    assert "holds two series" in caplog.text
    with pytest.raises(InputError, match="holds two series"):
        find_scans(tmp_path / "series")


def test_an_archive_of_bad_series_alone_is_refused(tmp_path, caplog):
    for name in "ab":
        for number in range(2):
            write_dicom_series(tmp_path / name, ARRAY, np.eye(4), f".{number}")
    with pytest.raises(InputError, match=r"of the 2 DICOM folders in .* none can"):
        find_scans(tmp_path)
    assert caplog.text.count("holds 2") == 2
