"""Sequences by header and by name: what is known is named, what is not stays unknown."""

import pytest
from pydicom import Dataset

from heatmask.data.sequence import (
    SEQUENCES,
    SequenceClue,
    check_sequences,
    describe_mismatch,
    find_sequence_clue,
    recognise_sequence,
    strip_sequence_words,
)
from heatmask.errors import OptionError


@pytest.mark.parametrize(
    ("name", "sequence"),
    [
        # BraTS 2020, BraTS 2023 and the LGG set
        ("BraTS20_Training_001_flair.nii.gz", "FLAIR"),
        ("BraTS20_Training_001_t1.nii.gz", "T1"),
        ("BraTS20_Training_001_t1ce.nii.gz", "T1-Gd"),
        ("BraTS20_Training_001_t2.nii.gz", "T2"),
        ("TCGA-CS-4942-t2f.nii.gz", "FLAIR"),
        ("TCGA-CS-4942-t1c.nii.gz", "T1-Gd"),
        ("TCGA-CS-4942-t1n.nii.gz", "T1"),
        ("BraTS-GLI-00000-000-t2w.nii.gz", "T2"),
        # other habits
        ("Flair_subtrMeanDivStd.nii.gz", "FLAIR"),
        ("T1c_subtrMeanDivStd.nii.gz", "T1-Gd"),
        ("sub-01_FLAIR.nii.gz", "FLAIR"),
        ("sub-01_ce-gadolinium_T1w.nii.gz", "T1-Gd"),
        ("sub-01_T1w.nii", "T1"),
        ("sub-01_T2star.nii", "T2*"),
        ("ax3dT1.nrrd", "T1"),
        ("t1_mprage_sag_p2_iso_km", "T1-Gd"),
        ("T1 pre contrast.nrrd", "T1"),
        ("T1_postop.nii", "T1"),
        ("t1_post.nii", "T1-Gd"),
        ("flair_to_t1.nii.gz", "FLAIR"),
        ("visit_t1_flair.nii.gz", "FLAIR"),
        ("ep2d_diff_b1000.nii", "DWI"),
        # a "t1" inside a word is no sequence
        ("patient1.nii.gz", "unknown"),
        ("part12.nrrd", "unknown"),
        ("case_0000.nii.gz", "unknown"),
        ("OTMultiClass.nii.gz", "unknown"),
    ],
)
def test_names(name, sequence):
    assert recognise_sequence(name) == sequence


@pytest.mark.parametrize(
    ("header", "sequence"),
    [
        ({"SeriesDescription": "anat-T1w"}, "T1"),
        ({"SeriesDescription": "t2_tirm_tra_dark-fluid"}, "FLAIR"),
        ({"SeriesDescription": "Sag T1 FLAIR"}, "T1"),  # General Electric's T1
        ({"SeriesDescription": "Ax T1 FLAIR +C"}, "T1-Gd"),
        ({"SeriesDescription": "Ax T2 FLAIR"}, "FLAIR"),
        ({"SeriesDescription": "brain", "ProtocolName": "T2 TSE"}, "T2"),
        ({"SeriesDescription": "T1", "ContrastBolusAgent": "Gadovist"}, "T1-Gd"),
        ({"SeriesDescription": "T1", "ContrastBolusAgent": "NONE"}, "T1"),
        ({"SeriesDescription": "FLAIR", "ContrastBolusAgent": "Gadovist"}, "FLAIR"),
        ({"ScanningSequence": ["SE", "IR"], "InversionTime": 2500, "EchoTime": 120}, "FLAIR"),
        ({"ScanningSequence": ["GR", "IR"], "InversionTime": 900, "EchoTime": 2.3}, "T1"),
        ({"ScanningSequence": "SE", "RepetitionTime": 500, "EchoTime": 14}, "T1"),
        ({"ScanningSequence": "SE", "RepetitionTime": 4000, "EchoTime": 100}, "T2"),
        ({"ScanningSequence": "SE", "RepetitionTime": 3000, "EchoTime": 14}, "unknown"),
        ({"ScanningSequence": ["EP", "SE"], "RepetitionTime": 4000, "EchoTime": 90}, "unknown"),
        ({"EchoTime": "", "RepetitionTime": None}, "unknown"),
        ({"Modality": "CT"}, "CT"),
        ({}, "unknown"),
    ],
)
def test_headers(header, sequence):
    dataset = Dataset()
    for keyword, value in header.items():
        setattr(dataset, keyword, value)
    assert recognise_sequence("series_7", dataset) == sequence
    assert recognise_sequence("series_7", header) == sequence  # a dict does as well


def test_the_header_beats_the_name_and_the_name_fills_in():
    header = {"SeriesDescription": "anat-T1w"}
    clue = find_sequence_clue("x_flair", header)
    assert clue == SequenceClue("T1", "the DICOM header (SeriesDescription 'anat-T1w')")
    assert find_sequence_clue("/t1/x_flair.nii", {}).source == "the file name 'x_flair.nii'"


def test_mismatch_names_its_source_and_unknown_is_silent():
    clue = find_sequence_clue("x-t1c.nii.gz")
    assert describe_mismatch(clue, ("FLAIR",)) == (
        "Expected a FLAIR scan; the file name 'x-t1c.nii.gz' says T1-Gd. The mask may mean nothing."
    )
    assert describe_mismatch(clue, ("FLAIR", "T1-Gd")) is None
    assert describe_mismatch(clue, ("unknown",)) is None
    assert describe_mismatch(SequenceClue("unknown"), ("FLAIR",)) is None


@pytest.mark.parametrize(
    ("names", "words"),
    [
        # BraTS 2020 and 2023, LGG, BraTS 2013, BIDS
        (
            ("BraTS20_001_flair", "BraTS20_001_t1", "BraTS20_001_t1ce", "BraTS20_001_t2"),
            "brats20 001",
        ),
        (("B-00-000-t2f", "B-00-000-t1n", "B-00-000-t1c", "B-00-000-t2w"), "b 00 000"),
        (("Flair_subtrMean", "T1c_subtrMean"), "subtrmean"),
        (("sub-01_FLAIR", "sub-01_T1w", "sub-01_ce-gadolinium_T1w"), "sub 01"),
        (("p1_T1_post", "P1-t2", "p1_flair_to_t1"), "p1"),
        (("flair", "T1 +c", "T2"), ""),
        # What merely looks like a sequence stays
        (("p2_at1_t1", "p2 at1 flair"), "p2 at1"),
        (("case_0001",), "case 0001"),
    ],
)
def test_names_without_the_sequence_are_those_of_the_head(names, words):
    assert {strip_sequence_words(name) for name in names} == {words}


def test_other_heads_keep_other_names():
    names = ["p1_flair", "p2_t1", "p1_postop_t1", "p1_flair_2", "t1_visit_flair"]
    assert len({strip_sequence_words(name) for name in names}) == len(names)


def test_sequences_of_a_network():
    assert check_sequences("FLAIR") == ("FLAIR",)
    assert check_sequences(["T1-Gd", "FLAIR"]) == ("T1-Gd", "FLAIR")
    assert check_sequences(SEQUENCES) == SEQUENCES
    assert check_sequences(["unknown"]) == ("unknown",)
    for wrong in ([], ["flair"], ["T1", "T1"], None):
        with pytest.raises(OptionError, match="sequences must name, each once"):
            check_sequences(wrong)
