"""Finding scans: what counts as one, what it is called, and what is refused."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from heatmask.data.finding import scans as finding
from heatmask.data.finding.masks import is_mask
from heatmask.data.finding.scans import Scan, name_cases
from heatmask.errors import InputError, OptionError
from helpers.scan_files import write_dicom_series

ARRAY = np.arange(4 * 5 * 3).reshape(4, 5, 3)


def find_scans(path: Path | str, pattern: str | None = None) -> list[Scan]:
    return finding.find_scans(path, pattern).scans


def find_notes(path: Path, pattern: str | None = None) -> str:
    return "\n".join(finding.find_scans(path, pattern).notes)


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
    with pytest.raises(InputError, match="is a mask by its name"):
        find_scans(folder / "labelsTr" / "BRATS_001.nii.gz")
    with pytest.raises(InputError, match="no scan in"):
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
    with pytest.raises(InputError, match="no scan in"):
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
        ("missing.nii.gz", "no scan at"),
        ("table.csv", "is no scan"),
        ("x-seg.nii.gz", "is a mask by its name"),
        ("empty", "no scan in"),
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
        "import sys; from heatmask.data.finding.scans import find_scans; find_scans(sys.argv[1]);"
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


def test_a_bad_series_is_left_out_of_an_archive_and_named(tmp_path, monkeypatch):
    touch(tmp_path / "a_flair.nii.gz", tmp_path / "series" / "1.dcm")
    monkeypatch.setattr(
        "heatmask.data.finding.scans.is_dicom_folder", lambda folder: folder.name == "series"
    )

    def refuse(folder):
        raise InputError(f"{folder} holds two series.")

    monkeypatch.setattr("heatmask.data.finding.scans.read_only_series", refuse)
    assert [scan.case for scan in find_scans(tmp_path)] == ["a_flair"]
    assert "Left out: " in find_notes(tmp_path)
    assert "holds two series" in find_notes(tmp_path)
    with pytest.raises(InputError, match="holds two series"):
        find_scans(tmp_path / "series")


def test_an_archive_of_bad_series_alone_is_refused(tmp_path):
    for name in "ab":
        for number in range(2):
            write_dicom_series(tmp_path / name, ARRAY, np.eye(4), f".{number}")
    with pytest.raises(InputError, match=r"None of the 2 DICOM folders in .* can") as caught:
        find_scans(tmp_path)
    assert str(caught.value).count("holds 2") == 2


@pytest.mark.fault("D")
@pytest.mark.parametrize(
    "name",
    "p1_FLAIR_label p1_FLAIR_lesion p1_FLAIR_ROI p1_FLAIR_mask p1_FLAIR_brainmask "
    "1-LesionSeg-Flair p1_FLAIR.seg p1-seg p1_SEG p1_seg_x labels Segmentation-label "
    "p1_tumor_mask tumorMask BrainExtractionMask tumor_segmentation sub-01_dseg "
    "sub-01_label-GM_probseg sub-01_space-MNI_desc-brain_mask x_groundtruth x_ground_truth p1_gt "
    "patient01_consensus_gt x_annotation p1_roi_left p1_lesion_1 p1_FLAIR_lesions_manual 01_mask1 "
    "p1_heatmap aseg p1_FLAIR_pred Mask_FLAIR t1mask p1_msk GlistrBoost "
    "p1_FLAIR_prob p1_FLAIR_probmap p1_pve_0 p1_FLAIR_WMH p1_VOI p1_FLAIR_parcellation".split(),
)
def test_names_of_masks(name):
    assert is_mask(Path(f"{name}.nii.gz"))


@pytest.mark.fault("D")
@pytest.mark.parametrize(
    "name",
    "sub-01_Segal_FLAIR Seger_FLAIR Segura_P_T2 Labelle_J_flair p1_Maskell_T1 DeRoi_FLAIR "
    "Le_Roi_FLAIR GT_01_FLAIR sub-Mask01_FLAIR sub-seg_ses-label_T1w MSLesion_01_FLAIR "
    "FLAIR_masked T1_lesion_filled p1_no_lesion_FLAIR lesion-free_FLAIR label-free_t1 "
    "nonlesional_FLAIR heatmask_FLAIR lesion_FLAIR patient_12 "
    "WMH_01_FLAIR Probst_FLAIR FLAIR_Probst".split(),
)
def test_names_of_scans(name):
    assert not is_mask(Path(f"{name}.nii.gz"))


@pytest.mark.fault("D")
def test_folders_of_masks(tmp_path):
    """By the folder alone where the name tells nothing; a scan may lie among its masks."""
    touch(*(tmp_path / folder / "p1.nii" for folder in ("images", "masks", "labels")))
    touch(tmp_path / "masks" / "p2_FLAIR.nii", tmp_path / "labelsTr" / "p3_FLAIR.nii")
    assert [scan.case for scan in find_scans(tmp_path)] == ["p1", "p2_FLAIR"]


@pytest.mark.fault("D")
def test_what_was_passed_over_is_listed(tmp_path):
    touch(tmp_path / "p1_FLAIR.nii", tmp_path / "out" / "overview.png")
    touch(*(tmp_path / f"p{n}_FLAIR_seg.nii" for n in range(5)), tmp_path / "x.png")
    (tmp_path / "p2").symlink_to(tmp_path / "out")
    (tmp_path / "p2_flair").symlink_to(tmp_path / "p1_FLAIR.nii")
    assert find_notes(tmp_path) == (
        f"Passed over below '{tmp_path}': 2 as pictures, which need a pattern such as '*.png' "
        "(overview.png, x.png); 1 linked as folders, give the folder itself (p2); "
        "1 linked under a name without suffix, rename the link (p2_flair); "
        "5 named like masks or results (p0_FLAIR_seg.nii, p1_FLAIR_seg.nii, p2_FLAIR_seg.nii, ...)."
    )
    assert "named like masks" not in find_notes(tmp_path, "p1_FLAIR.nii")
    with pytest.raises(InputError, match=r"no scan in .*Passed over: 1 as pictures"):
        find_scans(tmp_path / "out")
    with pytest.raises(InputError, match=r"Give the link the suffix \.nii"):
        find_scans(tmp_path / "p2_flair")


def test_own_overviews_are_no_pictures_to_work_on(tmp_path):
    touch(tmp_path / "a.png", tmp_path / "out" / "overview.png", tmp_path / "out" / "report.json")
    assert [scan.case for scan in find_scans(tmp_path, "*.png")] == ["a"]


ANNEX = "fetch it with `git annex get`"
POINTERS = [
    ("/annex/objects/SHA256E-s123--0123.nii.gz\n", ANNEX),
    ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
]


@pytest.mark.fault("D")
@pytest.mark.parametrize(("text", "fix"), POINTERS)
def test_pointers_to_content_that_is_elsewhere(tmp_path, text, fix):
    touch(tmp_path / "p1_FLAIR.nii")
    (tmp_path / "p2_FLAIR.nii.gz").write_text(text)
    assert [scan.case for scan in find_scans(tmp_path)] == ["p1_FLAIR"]
    assert "1 without content" in find_notes(tmp_path)
    assert fix in find_notes(tmp_path)
    with pytest.raises(InputError, match=fix):
        find_scans(tmp_path / "p2_FLAIR.nii.gz")


@pytest.mark.fault("D")
@pytest.mark.parametrize(
    ("target", "fix"),
    [(".git/annex/objects/1/2/k.nii.gz", ANNEX), ("/gone/k.nii.gz", "leads nowhere")],
)
def test_links_that_lead_nowhere(tmp_path, target, fix):
    touch(tmp_path / "p1_FLAIR.nii")
    for name in ("p2_FLAIR.nii", "series/1.dcm"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(target)
    assert [scan.case for scan in find_scans(tmp_path)] == ["p1_FLAIR"]
    assert "2 without content" in find_notes(tmp_path)
    assert "(1.dcm, p2_FLAIR.nii)" in find_notes(tmp_path)
    with pytest.raises(InputError, match=fix):
        find_scans(tmp_path / "p2_FLAIR.nii")
    with pytest.raises(InputError, match=rf"no scan in .*{fix}"):
        find_scans(tmp_path / "series")


@pytest.mark.fault("D")
def test_a_series_of_which_slices_were_not_fetched_is_no_shorter_series(tmp_path):
    folder = write_dicom_series(tmp_path / "series", ARRAY, np.eye(4))
    slice_, *_ = folder.iterdir()
    slice_.unlink()
    slice_.symlink_to("../.git/annex/objects/1/2/k.dcm")
    with pytest.raises(InputError, match=ANNEX):
        find_scans(folder)
    touch(tmp_path / "p1_FLAIR.nii")
    assert [scan.case for scan in find_scans(tmp_path)] == ["p1_FLAIR"]
    assert f"{slice_.name} (a link to a file that is not there: {ANNEX}" in find_notes(tmp_path)


@pytest.mark.fault("D")
def test_a_link_is_known_by_its_own_name_and_place(tmp_path):
    """Also a folder, also where two have one name and their folders tell them apart."""
    touch(tmp_path / "objects" / "x_t1c.nii")
    for patient in ("p1", "p2"):
        link = tmp_path / patient / "flair.nii"
        link.parent.mkdir()
        link.symlink_to(tmp_path / "objects" / "x_t1c.nii")
    scans = find_scans(tmp_path)[1:]
    assert [(s.case, s.clue.sequence) for s in scans] == [
        ("p1_flair", "FLAIR"),
        ("p2_flair", "FLAIR"),
    ]
    folder = write_dicom_series(tmp_path / "series7", ARRAY, np.eye(4))
    (tmp_path / "Ax FLAIR").symlink_to(folder)
    (scan,) = find_scans(tmp_path / "Ax FLAIR")
    assert (scan.case, scan.clue.sequence) == ("Ax_FLAIR", "FLAIR")


@pytest.mark.fault("D")
@pytest.mark.parametrize("name", ["sub-01_T1map", "sub-01_magnitude1", "sub-01_bold"])
def test_what_is_passed_over_in_a_folder_is_refused_alone(tmp_path, name):
    path = tmp_path / f"{name}.nii.gz"
    path.touch()
    with pytest.raises(InputError, match="a field map or a parameter map"):
        find_scans(path)
