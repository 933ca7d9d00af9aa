"""Masks and heatmaps as DICOM: written by `heatmask segment`, read back by other software."""

import json
import subprocess
from pathlib import Path

import highdicom as hd
import nibabel as nib
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.sr.coding import Code
from scipy.spatial import cKDTree
from typer.testing import CliRunner

from heatmask.cli import app
from heatmask.errors import InputError
from heatmask.report.dicom import Making, find_code, make_seg, read_source
from helpers.dicom_studies import draw_head, write_study
from helpers.scan_files import RAS_TO_LPS, write_enhanced_mr, write_nifti
from helpers.serving_stub import write_bundle

KINDS = ("a file for each slice", "enhanced MR")


@pytest.fixture(scope="module", params=KINDS)
def segmented(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The series, and what `heatmask segment` wrote of it."""
    folder = tmp_path_factory.mktemp("segmented")
    series = folder / "head_flair"
    if request.param == "enhanced MR":
        array, affine, _ = draw_head()
        order = [*range(1, array.shape[2], 2), *range(0, array.shape[2], 2)]
        path = write_enhanced_mr(series / "IM1", array, affine, order, [1.0] * len(order))
        dataset = dcmread(path)
        dataset.StudyInstanceUID, dataset.PatientID = "1.2.3.4", "synthetic-1"
        dataset.save_as(path)
    else:
        write_study(series)
    bundle = write_bundle(folder / "stub_segmentation")
    arguments = ["segment", str(series), "-o", str(folder / "out"), "--bundle", str(bundle)]
    answer = CliRunner().invoke(app, [*arguments, "--dicom-seg"])
    assert answer.exit_code == 0, answer.output
    out = folder / "out" / "head_flair"
    return {"series": series, **{path.name.split("_")[-1]: path for path in out.iterdir()}}


def look_up(volume: hd.Volume, nifti: Path) -> np.ndarray:
    """Return the voxels of a DICOM volume at the places of a NIfTI's voxels, 0 outside it."""
    image = nib.load(nifti)
    indices = np.indices(image.shape[:3]).reshape(3, -1)
    points = RAS_TO_LPS @ image.affine @ np.vstack([indices, np.ones(indices.shape[1])])
    ours = np.rint(np.linalg.inv(volume.affine) @ points)[:3].astype(int)
    array = volume.array
    inside = np.all((ours >= 0) & (ours < np.array(array.shape[:3])[:, None]), axis=0)
    values = np.zeros(indices.shape[1], array.dtype)
    values[inside] = array[tuple(ours[:, inside])]
    return values.reshape(image.shape[:3])


def test_highdicom_finds_the_mask_where_the_nifti_has_it(segmented: dict[str, Path]) -> None:
    expected = np.asarray(nib.load(segmented["mask.nii.gz"]).dataobj)
    assert expected.any()
    volume = hd.seg.segread(segmented["mask.dcm"]).get_volume(
        combine_segments=True, allow_missing_positions=True
    )
    np.testing.assert_array_equal(look_up(volume, segmented["mask.nii.gz"]), expected)


def test_the_parametric_map_is_the_heatmap(segmented: dict[str, Path]) -> None:
    expected = np.asarray(nib.load(segmented["heatmap.nii.gz"]).dataobj)
    volume = hd.imread(segmented["heatmap.dcm"]).get_volume()
    np.testing.assert_allclose(look_up(volume, segmented["heatmap.nii.gz"]), expected, atol=1e-6)
    written = dcmread(segmented["heatmap.dcm"])
    assert written.SOPClassUID.name == "Parametric Map Storage"
    assert np.unique(expected).size > 2


def test_pydicom_finds_study_frame_of_reference_and_sources(segmented: dict[str, Path]) -> None:
    sources = [dcmread(path) for path in segmented["series"].iterdir()]
    uids = {source.SOPInstanceUID for source in sources}
    for name in ("mask.dcm", "heatmap.dcm"):
        written = dcmread(segmented[name])
        for keyword in ("StudyInstanceUID", "PatientID", "FrameOfReferenceUID"):
            assert written[keyword].value == sources[0][keyword].value
        (series,) = written.ReferencedSeriesSequence
        assert series.SeriesInstanceUID == sources[0].SeriesInstanceUID
        assert {i.ReferencedSOPInstanceUID for i in series.ReferencedInstanceSequence} == uids
        assert written.SeriesInstanceUID != sources[0].SeriesInstanceUID
        assert written.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    for frame in dcmread(segmented["mask.dcm"]).PerFrameFunctionalGroupsSequence:
        assert check_source(frame, sources)


def check_source(frame: Dataset, sources: list[Dataset]) -> bool:
    """Whether a frame names the source that lies in the same place."""
    (derivation,) = frame.DerivationImageSequence
    (named,) = derivation.SourceImageSequence
    position = frame.PlanePositionSequence[0].ImagePositionPatient
    (source,) = (s for s in sources if s.SOPInstanceUID == named.ReferencedSOPInstanceUID)
    if "ImagePositionPatient" in source:
        return np.allclose(source.ImagePositionPatient, position, atol=1e-4)
    number = int(named.ReferencedFrameNumber)
    place = source.PerFrameFunctionalGroupsSequence[number - 1].PlanePositionSequence[0]
    return np.allclose(place.ImagePositionPatient, position, atol=1e-4)


def test_the_segment_is_coded_tracked_and_says_which_model(segmented: dict[str, Path]) -> None:
    seg = hd.seg.segread(segmented["mask.dcm"])
    (number,) = seg.segment_numbers
    segment = seg.get_segment_description(number)
    assert segment.segment_label == segment.tracking_id == "tumour"
    assert segment.segmented_property_category.value == "49755003"
    kind = segment.segmented_property_type
    assert (kind.value, kind.scheme_designator, kind.meaning) == ("108369006", "SCT", "Neoplasm")
    assert segment.algorithm_type.value == "AUTOMATIC"
    (algorithm,) = segment.algorithm_identification
    assert algorithm.AlgorithmName == "stub_segmentation"
    assert algorithm.AlgorithmVersion == "0.0.1"
    assert "weights=" in algorithm.AlgorithmParameters


def test_dcmqi_reads_the_same(segmented: dict[str, Path], tmp_path: Path) -> None:
    dcmqi = pytest.importorskip("dcmqi", reason="needs dcmqi to read the SEG back")
    program = next(Path(dcmqi.__file__).parent.rglob("segimage2itkimage"), None)
    assert program is not None
    subprocess.run(
        [program, "--inputDICOM", segmented["mask.dcm"], "--outputDirectory", tmp_path,
         "-t", "nifti"],
        check=True, capture_output=True,
    )  # fmt: skip
    (image,) = (nib.load(path) for path in tmp_path.glob("*.nii.gz"))
    expected = nib.load(segmented["mask.nii.gz"])
    ours, theirs = list_points(expected), list_points(image)
    assert len(ours) == len(theirs) > 0
    apart_mm, _ = cKDTree(ours).query(theirs)
    assert apart_mm.max() < 1e-2
    about = json.loads(next(tmp_path.glob("*meta.json")).read_text())
    ((described,),) = about["segmentAttributes"]
    assert described["SegmentedPropertyTypeCodeSequence"]["CodeValue"] == "108369006"
    assert described["TrackingIdentifier"] == "tumour"


def list_points(image: nib.Nifti1Image) -> np.ndarray:
    """Return where the marked voxels lie, in mm (N, 3)."""
    return nib.affines.apply_affine(image.affine, np.argwhere(np.asarray(image.dataobj)))


def test_an_empty_mask_is_a_seg_too(tmp_path: Path) -> None:
    series = write_study(tmp_path / "series")
    source = read_source(series)
    seg = make_seg(source, np.zeros(draw_head()[0].shape, int), {1: "tumour"}, Making("b", "1"))
    seg.save_as(tmp_path / "empty.dcm")
    assert not hd.seg.segread(tmp_path / "empty.dcm").pixel_array.any()


def test_values_with_gaps_are_numbered_anew_and_keep_their_names(tmp_path: Path) -> None:
    series = write_study(tmp_path / "series")
    mask = np.zeros(draw_head()[0].shape, int)
    mask[3:5, 3:5, 2], mask[6:9, 6:9, 3] = 2, 7
    corrected = Making("bundle", "1", "Anna", is_corrected=True)
    seg = make_seg(read_source(series), mask, {2: "meningioma", 7: "ring"}, corrected)
    labels = [seg.get_segment_description(n).segment_label for n in seg.segment_numbers]
    assert labels == ["meningioma", "ring"]
    assert seg.get_segment_description(1).algorithm_type.value == "SEMIAUTOMATIC"
    assert seg.ContentCreatorName == "Anna"
    volume = seg.get_volume(combine_segments=True, allow_missing_positions=True)
    assert np.bincount(volume.array.ravel())[1:].tolist() == [4, 9]


def test_the_same_lesion_keeps_its_tracking_uid(tmp_path: Path) -> None:
    source = read_source(write_study(tmp_path / "series"))
    mask = np.ones(draw_head()[0].shape, int)
    first, second = (make_seg(source, mask, {1: "tumour"}, Making("b", v)) for v in ("1", "2"))
    other = make_seg(source, mask, {1: "oedema"}, Making("b", "1"))
    uid, same, another = (s.get_segment_description(1).tracking_uid for s in (first, second, other))
    assert uid == same != another
    assert first.SOPInstanceUID != second.SOPInstanceUID


@pytest.mark.parametrize(
    ("name", "code"),
    [("tumour", "108369006"), ("pituitary tumour", "108369006"), ("oedema", "79654002"),
     ("infarct", "52988006"), ("Enhancing_Tumor", "108369006")],
)  # fmt: skip
def test_classes_are_coded_by_their_words(name: str, code: str) -> None:
    found = find_code(name)
    assert isinstance(found, Code)
    assert (found.value, found.scheme_designator) == (code, "SCT")


def test_what_is_no_dicom_or_has_no_frame_of_reference_is_refused(tmp_path: Path) -> None:
    array, affine, _ = draw_head()
    nifti = write_nifti(tmp_path / "scan.nii.gz", array.astype(np.float32), affine)
    with pytest.raises(InputError, match="leave --dicom-seg out"):
        read_source(nifti)
    series = write_study(tmp_path / "series")
    for path in series.iterdir():
        dataset = dcmread(path)
        del dataset.FrameOfReferenceUID
        dataset.save_as(path)
    with pytest.raises(InputError, match="has no FrameOfReferenceUID"):
        read_source(series)
