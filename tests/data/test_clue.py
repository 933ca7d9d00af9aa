"""What lies beside a scan tells more than its name: sidecars and tables."""

import json

import numpy as np
import pytest

from heatmask.data.recognition import find_clue
from heatmask.data.scan import get_warnings, load_scan
from heatmask.errors import InputError
from helpers.scan_files import write_nifti

pytestmark = pytest.mark.fault("D")


def write_json(path, content):
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize(
    ("sidecar", "sequence"),
    [
        ({"SeriesDescription": "t2_tirm_tra_dark-fluid"}, "FLAIR"),
        ({"ProtocolName": "Ax T1 FLAIR"}, "T1"),
        ({"SeriesDescription": "T1", "ContrastBolusIngredient": "GADOLINIUM"}, "T1-Gd"),
        # Times are in s, the codes joined by dcm2niix
        ({"EchoTime": 0.12, "InversionTime": 2.5, "RepetitionTime": 9}, "FLAIR"),
        ({"ScanningSequence": "GR_IR", "EchoTime": 0.0023, "InversionTime": 0.9}, "T1"),
        ({"ScanningSequence": "SE", "EchoTime": 0.1, "RepetitionTime": 4}, "T2"),
        ({"ScanningSequence": "EP\\SE", "EchoTime": 0.1, "RepetitionTime": 4}, "unknown"),
        # ... or in ms by other programs
        ({"EchoTime": 120, "InversionTime": 2500, "RepetitionTime": 9000}, "FLAIR"),
        ({"EchoTime": "0.12", "InversionTime": None}, "unknown"),
        ({"Modality": "CT"}, "CT"),
        ({"labels": []}, "unknown"),
        ([1, 2], "unknown"),
    ],
)
def test_sidecars(tmp_path, sidecar, sequence):
    write_json(tmp_path / "p1_7.json", sidecar)
    assert find_clue(tmp_path / "p1_7.nii.gz").sequence == sequence


def test_a_sidecar_that_contradicts_the_name_counts_and_the_report_says_so(tmp_path):
    voxels = np.random.default_rng(0).normal(100, 20, (5, 6, 4)).astype(np.float32)
    path = write_nifti(tmp_path / "p1_flair.nii.gz", voxels, np.eye(4))
    write_json(tmp_path / "p1_flair.json", {"SeriesDescription": "t1_mprage"})
    ((clue, volume),) = load_scan(path)
    assert clue.sequence == "T1"
    assert clue.source == "the sidecar 'p1_flair.json' (SeriesDescription 't1_mprage')"
    assert get_warnings(volume) == [
        "The file name 'p1_flair.nii.gz' says FLAIR, but the sidecar 'p1_flair.json' "
        "(SeriesDescription 't1_mprage') says T1, which counts."
    ]


def test_a_damaged_sidecar_is_none(tmp_path):
    (tmp_path / "p1_flair.json").write_bytes(b"{\xff")
    assert find_clue(tmp_path / "p1_flair.nii").sequence == "FLAIR"


def test_a_sidecar_is_looked_for_beside_the_link(tmp_path):
    (tmp_path / "objects").mkdir()
    (tmp_path / "objects" / "x_t2.nii").touch()
    write_json(tmp_path / "objects" / "x_t2.json", {"SeriesDescription": "T2"})
    (tmp_path / "p1_7.nii").symlink_to(tmp_path / "objects" / "x_t2.nii")
    assert find_clue(tmp_path / "p1_7.nii").sequence == "unknown"
    write_json(tmp_path / "p1_7.json", {"SeriesDescription": "Ax FLAIR"})
    assert find_clue(tmp_path / "p1_7.nii").sequence == "FLAIR"


@pytest.mark.parametrize(
    ("name", "sequence", "source"),
    [
        ("P1_0000.nii.gz", "T1-Gd", "dataset.json (channel 0 is 'T1ce')"),
        ("P1_flair_0000.nii.gz", "T1-Gd", "dataset.json (channel 0 is 'T1ce')"),
        ("P1_0001.nii.gz", "CT", "dataset.json (channel 1 is 'CT')"),
        # Not named there, or in no such file
        ("P1_flair_0002.nii.gz", "FLAIR", "the file name 'P1_flair_0002.nii.gz'"),
        ("P1_0003.nii.gz", "unknown", ""),
        ("P1_flair.nii.gz", "FLAIR", "the file name 'P1_flair.nii.gz'"),
        ("P1_000.nii.gz", "unknown", ""),
    ],
)
def test_tables_of_channels(tmp_path, name, sequence, source):
    names = {"0": "T1ce", "1": "CT", "2": "noNorm"}
    write_json(tmp_path / "dataset.json", {"channel_names": names})
    clue = find_clue(tmp_path / "imagesTr" / name)
    assert (clue.sequence, clue.source) == (sequence, source)


def test_a_table_that_changes_is_read_again(tmp_path):
    for name, sequence in (("T2", "T2"), ("T2-FLAIR", "FLAIR")):
        write_json(tmp_path / "dataset.json", {"channel_names": {"0": name}})
        assert find_clue(tmp_path / "P1_0000.nii").sequence == sequence


def test_a_damaged_table_is_refused(tmp_path):
    (tmp_path / "dataset.json").write_text("{")
    assert find_clue(tmp_path / "p1_t2.nii").sequence == "T2"
    with pytest.raises(InputError, match="does not name the channels"):
        find_clue(tmp_path / "P1_0000.nii")


def test_a_pointer_is_no_damaged_scan(tmp_path):
    path = tmp_path / "p1_flair.nii.gz"
    path.symlink_to(".git/annex/objects/1/2/k.nii.gz")
    with pytest.raises(InputError, match="git annex get"):
        load_scan(path)
