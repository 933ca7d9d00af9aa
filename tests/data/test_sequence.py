"""Sequences by header and by name: what is known is named, what is not stays unknown."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydicom import Dataset

from heatmask.data.recognition import find_clue
from heatmask.data.recognition.sequence import (
    SEQUENCES,
    SequenceClue,
    check_sequences,
    describe_mismatch,
)
from heatmask.errors import OptionError


@pytest.mark.fault("H")
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
        # vendors
        ("t2_spc_da-fl_sag", "FLAIR"),
        ("Ax_T2_FLR", "FLAIR"),
        ("t2_tirm_tra_dark-fluid", "FLAIR"),
        ("t2_space_dark-fluid_sag_p2_iso", "FLAIR"),
        ("Fluid_attenuated_inversion_recovery", "FLAIR"),
        ("T2-weighted-Fluid-Attenuated", "FLAIR"),
        ("t2_spc_ir_ns_sag", "FLAIR"),
        ("T2W_FLAIR", "FLAIR"),
        ("FLAIR_LongTR", "FLAIR"),
        ("CUBE_T2_FLAIR", "FLAIR"),
        ("BRAINVIEW_FLAIR", "FLAIR"),
        ("t1_tirm_tra_dark-fluid", "T1"),
        ("T1_MPRAGE_post", "T1-Gd"),
        ("t1_mprage_sag_p2_iso_+GD", "T1-Gd"),
        ("BRAVO+C", "T1-Gd"),
        ("FSPGR", "T1"),
        ("ADNI_002_MR_MP-RAGE_br_raw", "T1"),
        ("VIBE", "T1"),
        ("T1_SE_KM", "T1-Gd"),
        ("T1_nativ", "T1"),
        ("T1_ohne_KM", "T1"),
        ("T1w_Gadovist", "T1-Gd"),
        ("3D_T1_TFE_Gd", "T1-Gd"),
        ("POST_GAD_AX_3D_T1", "T1-Gd"),
        ("T1_GADO", "T1-Gd"),
        ("t1wce", "T1-Gd"),
        ("CT1", "T1-Gd"),
        ("T1_precontrast", "T1"),
        ("T1_postcontrast", "T1-Gd"),
        ("t2_fl2d_tra_hemo", "T2*"),
        ("T1_GRE", "T1"),
        ("TOF_3D", "angiography"),
        ("Ax_SWAN", "SWI"),
        # the patient's words and the scan's
        ("diffuse_glioma_01_flair", "FLAIR"),
        ("diffuse_glioma_01", "unknown"),
        ("angiomatous_meningioma_2_t1c", "T1-Gd"),
        ("angiomatous_meningioma_2", "unknown"),
        ("sub1_posttreatment_t1", "T1"),
        ("post_treatment_T1", "T1"),
        ("T1_post_op_Gd", "T1-Gd"),
        ("Swan_J_flair", "FLAIR"),
        ("Swan_J_t1", "T1"),
        ("admission_in_2019_flair", "FLAIR"),
        ("referred_to_us_t1", "T1"),
        ("t1_visit_to_clinic_flair", "FLAIR"),
        ("t1_post_fossa", "T1"),
        ("PD_01_T1w", "T1"),
        ("Gd_01_T1", "T1"),
        ("Ce_Li_t1", "T1"),
        ("Gadot_t1", "T1"),
        ("brain_injury_T1", "T1"),
        ("P1_T2_T1", "T1"),
        ("P1_T1_T2", "T2"),
        # registered
        ("T1_in_FLAIR_space", "T1"),
        ("t1_to_p1_flair", "T1"),
        ("t1_brain_reg_flair", "T1"),
        ("T1toFLAIR", "T1"),
        ("flair2t1", "FLAIR"),
        ("flair_in_T1_space", "FLAIR"),
        ("t1ce_to_flair", "T1-Gd"),
        # BIDS: the suffix says it
        ("sub-FLAIR01_T1w", "T1"),
        ("sub-01_acq-FLAIR_T1w", "T1"),
        ("sub-01_space-FLAIR_T1w", "T1"),
        ("sub-01_ses-T1_FLAIR", "FLAIR"),
        ("sub-01_acq-postGd_T1w", "T1-Gd"),
        ("sub-01_ce-none_T1w", "T1"),
        ("sub-swan_ce-gd_run-1_T1w", "T1-Gd"),
        ("sub-t1_task-rest_bold", "unknown"),
        # a "t1" inside a word is no sequence
        ("patient1.nii.gz", "unknown"),
        ("part12.nrrd", "unknown"),
        ("case_0000.nii.gz", "unknown"),
        ("OTMultiClass.nii.gz", "unknown"),
    ],
)
def test_names(name, sequence):
    assert find_clue(name).sequence == sequence


@pytest.mark.parametrize(
    ("header", "sequence"),
    [
        ({"SeriesDescription": "anat-T1w"}, "T1"),
        ({"SeriesDescription": "t2_tirm_tra_dark-fluid"}, "FLAIR"),
        ({"SeriesDescription": "Sag T1 FLAIR"}, "T1"),  # General Electric's T1
        ({"SeriesDescription": "Ax T1 FLAIR +C"}, "T1-Gd"),
        ({"SeriesDescription": "Ax T2 FLAIR"}, "FLAIR"),
        ({"SeriesDescription": "t1_tirm_tra_dark-fluid"}, "T1"),
        ({"SeriesDescription": "diffuse glioma T1"}, "T1"),
        ({"SeriesDescription": "t2_spc_sag", "InversionTime": 1800, "EchoTime": 390}, "FLAIR"),
        ({"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]}, "DWI"),
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
    assert find_clue("series_7", dataset).sequence == sequence
    assert find_clue("series_7", header).sequence == sequence  # a dict does as well


def test_the_header_beats_the_name_and_the_name_fills_in():
    header = {"SeriesDescription": "anat-T1w"}
    clue = find_clue("x_flair", header)
    assert clue == SequenceClue("T1", "the DICOM header (SeriesDescription 'anat-T1w')")
    assert find_clue("/t1/x_flair.nii", {}).source == "the file name 'x_flair.nii'"


def test_a_header_that_contradicts_the_name_says_so():
    clue = find_clue("x_flair.nii", {"SeriesDescription": "anat-T1w"})
    assert clue.conflict == (
        "The file name 'x_flair.nii' says FLAIR, but the DICOM header (SeriesDescription "
        "'anat-T1w') says T1, which counts."
    )
    for name in ("x_t1", "series7"):
        assert find_clue(name, {"SeriesDescription": "anat-T1w"}).conflict == ""


def test_a_header_without_word_of_contrast_does_not_deny_it():
    for text, sequence in (("T1 MPRAGE", "T1-Gd"), ("T1 pre", "T1"), ("t1_nativ", "T1")):
        clue = find_clue("pre_x_t1c.nii", {"SeriesDescription": text})
        assert clue.sequence == sequence
    assert find_clue("x_t1", {"SeriesDescription": "T1+C"}).conflict == ""


patients = st.from_regex(r"[b-eg-rv-z][a-z]{3,9}oma_[0-9]{1,3}", fullmatch=True)


@given(patients, st.sampled_from(["flair", "t1", "t1ce", "t2", "dwi", "swi", "mra"]))
@example("diffuse_astrocytoma_1", "t1")
def test_patients_do_not_change_what_a_scan_is(patient, word):
    clue = find_clue(f"{patient}_{word}.nii.gz")
    assert (clue.sequence, clue.token) == (find_clue(word).sequence, word)
    assert clue.head == find_clue(f"{patient}_flair.nii.gz").head


def test_mismatch_names_its_source_and_unknown_is_silent():
    clue = find_clue("x-t1c.nii.gz")
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
        (("sub-01_ses-1_acq-tse_run-1_FLAIR", "sub-01_ses-1_ce-gd_T1w"), "sub 01 ses 1"),
        (("p1_T2_FLAIR", "p1_T1_Gd", "p1_T1_pre", "p1_T2"), "p1"),
        (("Swan_J_flair", "Swan_J_t1_post"), "swan j"),
        (("p1_pre_op_t1_gd", "p1_pre_op_flair"), "p1 pre op"),
        # What merely looks like a sequence stays
        (("p2_at1_t1", "p2 at1 flair"), "p2 at1"),
        (("case_0001",), "case 0001"),
    ],
)
def test_names_without_the_sequence_are_those_of_the_head(names, words):
    assert {find_clue(name).head for name in names} == {words}


def test_other_heads_keep_other_names():
    names = ["p1_flair", "p2_t1", "p1_postop_t1", "p1_flair_2", "t1_visit_flair"]
    assert len({find_clue(name).head for name in names}) == len(names)


def test_sequences_of_a_network():
    assert check_sequences("FLAIR") == ("FLAIR",)
    assert check_sequences(["T1-Gd", "FLAIR"]) == ("T1-Gd", "FLAIR")
    assert check_sequences(SEQUENCES) == SEQUENCES
    assert check_sequences(["unknown"]) == ("unknown",)
    for wrong in ([], ["flair"], ["T1", "T1"], None):
        with pytest.raises(OptionError, match="sequences must name each channel"):
            check_sequences(wrong)
