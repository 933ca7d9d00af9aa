"""Which scans make a case: the layouts of public data sets, and what is no case."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatmask.data.cases import Study, find_studies, list_cases
from heatmask.data.finding.scans import Found, Scan
from heatmask.errors import InputError, OptionError
from helpers.scan_files import write_dicom_series

ARRAY = np.arange(4 * 5 * 3).reshape(4, 5, 3)
FOUR = ["FLAIR", "T1", "T1-Gd", "T2"]
BRATS_2020 = {"FLAIR": "_flair", "T1": "_t1", "T1-Gd": "_t1ce", "T2": "_t2"}
BRATS_2023 = {"FLAIR": "-t2f", "T1": "-t1n", "T1-Gd": "-t1c", "T2": "-t2w"}


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def list_names(cases: list[dict]) -> list:
    """The images of cases as file names."""
    images = [case["image"] for case in cases]
    return [
        Path(i).name if isinstance(i, str) else {s: Path(p).name for s, p in i.items()}
        for i in images
    ]


@pytest.mark.parametrize("ends", [BRATS_2020, BRATS_2023])
@pytest.mark.parametrize("in_folders", [True, False])
def test_brats_layouts(tmp_path, ends, in_folders):
    """A folder a patient, or all in one; the masks are no scans."""
    patients = ["BraTS-00001-000", "BraTS-00002-000"]
    for patient in patients:
        folder = tmp_path / patient if in_folders else tmp_path
        mask = next(iter(ends.values()))[0] + "seg"
        touch(*(folder / f"{patient}{end}.nii.gz" for end in (*ends.values(), mask)))
    cases = list_cases(tmp_path, sequences=FOUR)
    assert list_names(cases) == [
        {s: f"{patient}{end}.nii.gz" for s, end in ends.items()} for patient in patients
    ]
    assert [case["case"] for case in cases] == [p + ends["FLAIR"] for p in patients]
    assert [case["image_path"] for case in cases] == [case["image"]["FLAIR"] for case in cases]


def test_the_first_sequence_that_is_there_is_the_reference(tmp_path):
    touch(*(tmp_path / f"a-{end}.nii" for end in ("t2f", "t1c")), tmp_path / "b-t1c.nii")
    cases = list_cases(tmp_path, sequences=["T1-Gd", "FLAIR"])
    assert list_names(cases) == [{"T1-Gd": "a-t1c.nii", "FLAIR": "a-t2f.nii"}, "b-t1c.nii"]
    assert list(cases[0]["image"]) == ["T1-Gd", "FLAIR"]
    assert cases[0]["image_path"] == str(tmp_path / "a-t1c.nii")


def test_the_decathlon_layout(tmp_path):
    folder = tmp_path / "Task01_BrainTumour"
    names = [f"BRATS_00{number}.nii.gz" for number in (1, 2)]
    touch(*(folder / sub / name for name in names for sub in ("imagesTr", "labelsTr")))
    touch(folder / "dataset.json")
    assert list_names(list_cases(folder, sequences=FOUR)) == names


def test_siblings_in_a_folder_of_modalities(tmp_path):
    touch(tmp_path / "p1-t2f.nii.gz", tmp_path / "modalities" / "p1-t1c.nii.gz")
    (case,) = list_cases(tmp_path, sequences=["FLAIR", "T1-Gd"])
    assert list(case["image"]) == ["FLAIR", "T1-Gd"]


def test_siblings_that_the_network_does_not_take_are_named_once(tmp_path, caplog):
    """In the log for all, and in the case so that its report can say so."""
    touch(*(tmp_path / p / f"{p}-{m}.nii.gz" for p in "ab" for m in ("t2f", "t1c", "t1n")))
    touch(tmp_path / "c" / "c-t1n.nii.gz", tmp_path / "c" / "c-t2w.nii.gz")
    with caplog.at_level(logging.WARNING):
        cases = list_cases(tmp_path, sequences=["FLAIR"])
    assert [set(case["image"]) for case in cases] == [{"FLAIR", "T1-Gd", "T1"}] * 2
    first, second = caplog.messages
    assert cases.notes == [first, second]
    assert first == f"Not cases below '{tmp_path}': 1 T1 (c-t1n.nii.gz), 1 T2 (c-t2w.nii.gz)."
    assert second == "Left out, the network takes FLAIR: 2 T1, 2 T1-Gd."


def test_one_other_sequence_alone_is_taken(tmp_path):
    """The network warns; several are a question."""
    touch(tmp_path / "a-t1c.nii", tmp_path / "b-t1c.nii")
    assert list_names(list_cases(tmp_path)) == ["a-t1c.nii", "b-t1c.nii"]
    touch(tmp_path / "b-t2w.nii")
    with pytest.raises(InputError, match=r"no FLAIR below .*, but 2 T1-Gd") as caught:
        list_cases(tmp_path)
    message = str(caught.value)
    for part in ("2 T1-Gd (*-t1c.nii)", "1 T2 (*-t2w.nii)", '--pattern "*-t1c.nii".'):
        assert part in message
    assert list_names(list_cases(tmp_path, "*-t2w*")) == ["b-t2w.nii"]
    assert list_names(list_cases(tmp_path / "b-t2w.nii")) == ["b-t2w.nii"]


def test_a_pattern_limits_what_is_looked_at(tmp_path):
    touch(*(tmp_path / f"{p}-{m}.nii.gz" for p in "ab" for m in ("t2f", "t1c", "t2w")))
    assert list_names(list_cases(tmp_path, "*-t2f*", FOUR)) == ["a-t2f.nii.gz", "b-t2f.nii.gz"]
    (case,) = list_cases(tmp_path, "a-*", FOUR)
    assert list(case["image"]) == ["FLAIR", "T1-Gd", "T2"]
    # Nothing that fits is dropped where the network takes none of them
    assert len(list_cases(tmp_path, "a-t[12][cw]*", ["FLAIR"])) == 2


def test_scans_of_unknown_sequence_are_cases_where_no_other_lies_beside(tmp_path, caplog):
    touch(tmp_path / "a" / "scan.nii", tmp_path / "b" / "x_flair.nii", tmp_path / "b" / "atlas.nii")
    touch(tmp_path / "c" / "scan.nii", tmp_path / "c" / "t1.nii")
    assert [c["case"] for c in list_cases(tmp_path)] == ["a_scan", "x_flair", "c_scan"]
    assert "Not cases" in caplog.text
    assert "1 T1 (t1.nii), 1 unknown (atlas.nii)" in caplog.text


def test_where_a_sequence_is_there_twice_each_scan_stands_alone(tmp_path):
    touch(*(tmp_path / name for name in ("a_flair.nii", "a-FLAIR.nrrd", "a_t1c.nii")))
    cases = list_cases(tmp_path, sequences=["FLAIR", "T1-Gd"])
    assert list_names(cases) == ["a-FLAIR.nrrd", "a_flair.nii", "a_t1c.nii"]


def test_what_is_there_once_belongs_together_beside_what_is_there_twice(tmp_path):
    touch(*(tmp_path / f"a_{end}.nii" for end in ("flair", "t1", "t1c")), tmp_path / "a-T1.nrrd")
    (case,) = list_cases(tmp_path, sequences=["FLAIR", "T1-Gd"])
    assert list(case["image"]) == ["FLAIR", "T1-Gd"]


def test_other_heads_and_folders_do_not_mix(tmp_path):
    touch(
        tmp_path / "a" / "x_flair.nii", tmp_path / "b" / "x_t1c.nii", tmp_path / "a" / "y_t1c.nii"
    )
    assert len(list_cases(tmp_path, sequences=["FLAIR", "T1-Gd"])) == 3


def test_dicom_series_of_one_study(tmp_path):
    """Known by header alone, told apart by study and folder."""
    for patient, uid in (("p1", "1.2.3"), ("p2", "1.2.4"), ("p3", "1.2.4")):
        for number, name in enumerate(("T1 post", "FLAIR")):
            if (patient, name) != ("p3", "FLAIR"):
                folder = tmp_path / patient / f"s{number}"
                attributes = {"SeriesDescription": name, "StudyInstanceUID": uid}
                write_dicom_series(folder, ARRAY, np.eye(4), **attributes)
    cases = list_cases(tmp_path, sequences=["FLAIR", "T1-Gd"])
    assert list_names(cases) == [{"FLAIR": "s1", "T1-Gd": "s0"}] * 2 + ["s0"]
    assert [case["case"] for case in cases] == ["p1_s1", "p2_s1", "p3_s0"]


@given(
    st.dictionaries(
        st.from_regex(r"[b-eg-rv-z]{1,4}[0-9]{0,3}", fullmatch=True),
        st.sets(st.sampled_from(FOUR), min_size=1),
        min_size=1,
        max_size=5,
    ),
    st.lists(st.sampled_from(FOUR), min_size=1, unique=True),
    st.sampled_from([BRATS_2020, BRATS_2023]),
)
def test_every_scan_is_in_one_study_of_its_own_patient(patients, sequences, ends):
    from unittest.mock import patch

    scans = [
        Scan(f"{p}{ends[s]}", Path("/data", f"{p}{ends[s]}.nii.gz"))
        for p, own in patients.items()
        for s in own
    ]
    with patch("heatmask.data.cases.find_scans", lambda *_: Found(scans, [])):
        studies = find_studies("/data", "*", sequences)
    listed = [path for study in studies for path in study.paths.values()]
    assert sorted(listed) == sorted(scan.path for scan in scans)
    for study in studies:
        owners = {path.name.removesuffix(ends[s] + ".nii.gz") for s, path in study.paths.items()}
        assert len(owners) == 1
        wanted = [s for s in sequences if s in study.paths]
        assert list(study.paths)[: len(wanted)] == wanted
    assert len({study.case for study in studies}) == len(studies)


def test_select_keeps_the_reference():
    study = Study("a", {"FLAIR": Path("f"), "T1": Path("t"), "T2": Path("u")})
    assert study.select(["T2"]).image == {"FLAIR": "f", "T2": "u"}
    assert study.select([]).image == "f"


def test_no_input_and_wrong_sequences():
    with pytest.raises(OptionError, match="Give a scan or a folder"):
        list_cases(None)
    with pytest.raises(OptionError, match="sequences must name each channel"):
        list_cases("x", sequences=["flair"])


def test_listing_does_not_import_torch(tmp_path):
    write_dicom_series(tmp_path, ARRAY, np.eye(4))
    code = (
        "import sys; from heatmask.data.cases import list_cases; list_cases(sys.argv[1]);"
        "sys.exit(any(name in sys.modules for name in ('torch', 'monai', 'itk')))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == 0


@pytest.mark.fault("D")
@pytest.mark.parametrize("key", ["channel_names", "modality"])
@pytest.mark.parametrize("place", ["..", "."])
def test_nnunet_layout(tmp_path, key, place):
    """What the numbers mean stands in dataset.json, beside the scans or one folder above."""
    folder = tmp_path / "imagesTs"
    touch(*(folder / f"{case}_000{n}.nii.gz" for case in ("P_001", "P_002") for n in range(4)))
    touch(tmp_path / "labelsTr" / "P_001.nii.gz")
    names = {"0": "T1", "1": "T1ce", "2": "T2", "3": "Flair"}
    (folder / place / "dataset.json").write_text(json.dumps({key: names}))
    cases = list_cases(folder, sequences=["FLAIR", "T1-Gd"])
    assert list_names(cases) == [
        {"FLAIR": f"{case}_0003.nii.gz", "T1-Gd": f"{case}_0001.nii.gz",
         "T1": f"{case}_0000.nii.gz", "T2": f"{case}_0002.nii.gz"}
        for case in ("P_001", "P_002")
    ]  # fmt: skip
    assert len(list_cases(tmp_path)) == 2
    (alone,) = list_cases(folder / "P_001_0002.nii.gz")
    assert alone["image"] == str(folder / "P_001_0002.nii.gz")


@pytest.mark.fault("D")
def test_nnunet_channels_without_names_are_refused(tmp_path, caplog):
    touch(*(tmp_path / f"P_001_000{n}.nii.gz" for n in range(4)))
    with pytest.raises(InputError, match=r"4 files \(P_001_0000.*no dataset\.json"):
        list_cases(tmp_path)
    (note,) = list_cases(tmp_path, "*_0003*").notes
    assert note.startswith("Nothing says which sequence is in 1 file (P_001_0003.nii.gz)")
    assert list_cases(tmp_path / "P_001_0001.nii.gz").notes
    with pytest.raises(InputError, match="2 files"):
        list_cases(tmp_path, "*_000[13]*")
    touch(tmp_path / "x" / "p2_flair.nii")
    assert list_names(list_cases(tmp_path)) == ["p2_flair.nii"]
    assert "look like channels of one case" in caplog.text
    (tmp_path / "dataset.json").write_text('{"channel_names": {"zero": "T1"}}')
    with pytest.raises(InputError, match="does not name the channels"):
        list_cases(tmp_path)


@pytest.mark.parametrize("numbers", [[0], [*range(12)], [7, 8, 11], [1, 2, 3]])
def test_numbers_that_are_no_channels(tmp_path, numbers):
    """One channel each, and patients that are numbered."""
    touch(*(tmp_path / f"patient_{n:04d}.nii.gz" for n in numbers))
    cases = list_cases(tmp_path)
    assert (len(cases), cases.notes) == (len(numbers), [])


@pytest.mark.fault("D")
def test_bids_one_case_a_session(tmp_path, caplog):
    for session in ("1", "2"):
        start = f"sub-01_ses-{session}"
        folder = tmp_path / "sub-01" / f"ses-{session}"
        anat = ("acq-tse_run-1_FLAIR", "ce-gadolinium_run-01_T1w", "acq-mprage_T1w", "T2w")
        touch(*(folder / "anat" / f"{start}_{end}.nii.gz" for end in anat))
        touch(folder / "anat" / f"{start}_label-lesion_mask.nii.gz")
        touch(folder / "func" / f"{start}_task-rest_bold.nii.gz")
        touch(folder / "fmap" / f"{start}_phasediff.nii.gz")
    touch(tmp_path / "dataset_description.json")
    touch(tmp_path / "derivatives" / "prep" / "sub-01_space-MNI_FLAIR.nii.gz")
    cases = list_cases(tmp_path, sequences=["FLAIR", "T1-Gd"])
    assert [set(case["image"]) for case in cases] == [{"FLAIR", "T1-Gd", "T1", "T2"}] * 2
    assert [case["case"] for case in cases] == [
        f"sub-01_ses-{s}_acq-tse_run-1_FLAIR" for s in ("1", "2")
    ]
    for passed in ("2 named like masks", "4 named like functional", "1 beside the raw scans"):
        assert passed in caplog.text
    assert len(list_cases(tmp_path / "derivatives")) == 1


def test_bids_in_two_spaces_are_two_cases(tmp_path):
    touch(tmp_path / "sub-01_FLAIR.nii", tmp_path / "sub-01_space-MNI_ce-gd_T1w.nii")
    cases = list_cases(tmp_path, sequences=["FLAIR", "T1-Gd"])
    assert list_names(cases) == ["sub-01_FLAIR.nii", "sub-01_space-MNI_ce-gd_T1w.nii"]


@pytest.mark.fault("D")
def test_a_sidecar_tells_what_a_name_does_not(tmp_path):
    touch(tmp_path / "p1_5.nii.gz", tmp_path / "p1_6.nii.gz")
    (tmp_path / "p1_5.json").write_text('{"SeriesDescription": "t2_tirm_tra_dark-fluid"}')
    (tmp_path / "p1_6.json").write_text('{"ProtocolName": "t1_mprage", "EchoTime": 0.0023}')
    assert list_names(list_cases(tmp_path)) == ["p1_5.nii.gz"]


@pytest.mark.fault("D")
def test_annexed_links_are_what_they_are_called(tmp_path):
    for number, end in enumerate(("t2f", "t1c")):
        target = tmp_path / ".git" / "annex" / "objects" / f"SHA256E-s9--{number}flair.nii.gz"
        touch(target)
        for folder in ("sub-01", "sub-02"):
            link = tmp_path / folder / f"{folder}-{end}.nii.gz"
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(target)
    cases = list_cases(tmp_path, sequences=["FLAIR", "T1-Gd"])
    assert list_names(cases) == [
        {"FLAIR": f"{s}-t2f.nii.gz", "T1-Gd": f"{s}-t1c.nii.gz"} for s in ("sub-01", "sub-02")
    ]
    (tmp_path / "other").symlink_to(tmp_path / "sub-01")
    (case,) = list_cases(tmp_path / "other", sequences=["FLAIR", "T1-Gd"])
    assert case["image_path"] == str(tmp_path / "other" / "sub-01-t2f.nii.gz")


def test_a_ct_of_the_same_study_is_no_sibling(tmp_path):
    for modality, name in (("MR", "FLAIR"), ("CT", "head")):
        write_dicom_series(
            tmp_path / name, ARRAY, np.eye(4), SeriesDescription=name, Modality=modality
        )
    assert list_names(list_cases(tmp_path)) == ["FLAIR"]


def test_the_lgg_set_as_it_is(lgg):
    cases = list_cases(lgg, sequences=["FLAIR", "T1-Gd"])
    assert len(cases) == len(list(lgg.glob("*/*-t2f.nii.gz")))
    with_gd = [case for case in cases if "T1-Gd" in case["image"]]
    assert len(with_gd) == len(list(lgg.glob("*/*-t1c.nii.gz")))


def test_brats_2013_as_it_is(shared_data):
    """Brain mask and reference mask have names that tell nothing, and lie beside the scans."""
    (case,) = list_cases(shared_data / "brats2013", sequences=["FLAIR", "T1-Gd"])
    assert list(case["image"]) == ["FLAIR", "T1-Gd"]
