"""Slice labels made from reference masks, on request."""

import csv

import numpy as np
import pytest
from typer.testing import CliRunner

from heatmask.cli import app
from heatmask.data.labels import list_labelled_volumes, read_slice_labels, read_split
from heatmask.data.tables.derive import derive_slice_labels, find_reference_masks
from heatmask.errors import InputError, OutputError
from helpers.planted import make_affine
from helpers.scan_files import write_nifti

AFFINE = make_affine((1.2, 0.9, 4.0), "PSL", (5.0, 9.0, -3.0))


def write_mask(path, tumour, label=1, dtype=np.uint8):
    """A mask (6, 5, n) whose slices along the third axis have a tumour or not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.zeros((6, 5, len(tumour)), dtype)
    array[2, 3] = np.asarray(tumour) * label
    return write_nifti(path, array, AFFINE)


@pytest.mark.parametrize(
    "name", ["{}/{}_seg.nii.gz", "{}/{}-seg.nii.gz", "{}_SEG.nii", "labelsTr/{}.nii.gz"]
)
def test_labels_of_public_layouts(tmp_path, name):
    for patient, tumour in (("A-01", (0, 1, 1, 0)), ("B_02", (1, 0, 0))):
        write_mask(tmp_path / name.format(patient, patient), tumour, label=4)
    write_mask(tmp_path / "imagesTr" / "A-01.nii.gz", (1, 1, 1, 1))
    write_mask(tmp_path / "labelsTr" / "._A-01.nii.gz", (1, 1, 1, 1))
    table = tmp_path / "slice_labels.csv"
    assert derive_slice_labels(tmp_path, table) == {"A-01": 2, "B_02": 1}
    assert read_slice_labels(table) == {"A-01": (0, 1, 1, 0), "B_02": (1, 0, 0)}
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert {row["source"] for row in rows} == {"derived from a reference mask"}
    assert [p.name for p in tmp_path.iterdir() if "partial" in p.name] == []


def test_the_labels_fit_the_scans_beside(tmp_path):
    """From a BraTS folder to what training reads, all four sequences together."""
    for patient in ("P1", "P2"):
        write_mask(tmp_path / patient / f"{patient}_seg.nii.gz", (0, 1, 0))
        for end in ("flair", "t1", "t1ce", "t2"):
            (tmp_path / patient / f"{patient}_{end}.nii.gz").touch()
    derive_slice_labels(tmp_path, tmp_path / "labels.csv")
    (tmp_path / "patients.csv").write_text("patient,split\nP1,train\nP2,val\n")
    (volume,) = list_labelled_volumes(
        tmp_path,
        None,
        tmp_path / "labels.csv",
        tmp_path / "patients.csv",
        "train",
        ["FLAIR", "T1-Gd"],
    )
    assert volume.slice_labels == (0, 1, 0)
    assert volume.path == tmp_path / "P1" / "P1_flair.nii.gz"
    assert volume.image == {
        "FLAIR": str(tmp_path / "P1" / "P1_flair.nii.gz"),
        "T1-Gd": str(tmp_path / "P1" / "P1_t1ce.nii.gz"),
    }


def test_resampled_ones_count(tmp_path):
    path = write_mask(tmp_path / "A_seg.nii.gz", (0, 1), 0.99999998, np.float64)
    assert derive_slice_labels(path, tmp_path / "a.csv") == {"A": 1}


def test_a_table_is_never_replaced(tmp_path):
    write_mask(tmp_path / "A_seg.nii.gz", (0, 1))
    table = tmp_path / "a.csv"
    table.write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        derive_slice_labels(tmp_path, table)
    assert table.read_text() == "mine"


def test_a_folder_that_cannot_be_made(tmp_path):
    write_mask(tmp_path / "A_seg.nii.gz", (0, 1))
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"a\.csv cannot be written"):
        derive_slice_labels(tmp_path, tmp_path / "file" / "deep" / "a.csv")


def test_refusals(tmp_path):
    table = tmp_path / "a.csv"
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no reference mask in"):
        derive_slice_labels(tmp_path / "empty", table)
    for number, (label, dtype) in enumerate(
        ((0.4, np.float32), (-1, np.int16), (np.nan, np.float32))
    ):
        write_mask(tmp_path / str(number) / "A_seg.nii.gz", (1, 1), label, dtype)
        with pytest.raises(InputError, match=r"6 x 5 x 2.*label map of whole numbers"):
            derive_slice_labels(tmp_path / str(number), table)
    with pytest.raises(InputError, match=r"A has two reference masks, .*0/A_seg.*1/A_seg"):
        find_reference_masks(tmp_path)
    assert not table.exists()


def test_derived_labels_are_those_of_the_lgg_table(lgg, tmp_path):
    """The set's own table was made in the same way."""
    path = next(iter(sorted(lgg.glob("*/*-seg.nii.gz"))))
    derive_slice_labels(path, tmp_path / "a.csv")
    ((patient, labels),) = read_slice_labels(tmp_path / "a.csv").items()
    assert labels == read_slice_labels(lgg / "slice_labels.csv")[patient]


def test_the_table_is_that_of_the_splits_too(tmp_path):
    for number in range(15):
        write_mask(tmp_path / f"P{number}_seg.nii.gz", (0, 1, 0))
    tables = [tmp_path / f"{name}.csv" for name in ("first", "again", "other")]
    for table, seed in zip(tables, (0, 0, 1), strict=True):
        derive_slice_labels(tmp_path, table, seed)
    assert tables[0].read_bytes() == tables[1].read_bytes() != tables[2].read_bytes()
    splits = [read_split(tables[0], name) for name in ("train", "val", "test")]
    assert [len(names) for names in splits] == [10, 2, 3]
    assert len(set().union(*splits)) == 15


@pytest.mark.parametrize(("count", "expected"), [(1, (1, 0)), (2, (1, 1))])
def test_few_patients_leave_some_to_train_on(tmp_path, count, expected):
    for number in range(count):
        write_mask(tmp_path / f"P{number}_seg.nii.gz", (0, 1))
    derive_slice_labels(tmp_path, tmp_path / "labels.csv")
    rows = list(csv.DictReader((tmp_path / "labels.csv").open()))
    patients = {row["patient"]: row["split"] for row in rows}
    assert tuple(list(patients.values()).count(n) for n in ("train", "val")) == expected


def test_the_command_says_where_the_labels_come_from(tmp_path):
    write_mask(tmp_path / "masks" / "P1_seg.nii.gz", (0, 1, 1))
    table = tmp_path / "labels.csv"
    done = CliRunner().invoke(app, ["derive-labels", str(tmp_path / "masks"), str(table)])
    assert done.exit_code == 0, done.output
    words = " ".join(done.output.split())
    assert "1 patients, 2 slices with tumour, derived from reference masks" in words
    assert read_slice_labels(table) == {"P1": (0, 1, 1)}
