"""Masks and heatmaps as DICOM objects that refer to the series they were made from.

Written by highdicom: a DICOM SEG of the mask (PS3.3, A.51), a parametric map of the heatmap
(A.75). Both lie in the frame of reference of the series and name its instances, so that a PACS
files them with the study and a viewer lays them over the scan.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
from highdicom.color import CIELabColor
from highdicom.pm import ParametricMap, RealWorldValueMapping
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentDescription
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from heatmask.data.readers.dicom_files import DicomSlice, is_dicom
from heatmask.data.readers.dicom_series import read_only_series, read_only_slice, sort_slices
from heatmask.errors import InputError
from heatmask.result import Result

_CATEGORY = Code("49755003", "SCT", "Morphologically Abnormal Structure")
_TYPES = {
    "neoplasm": ("tumour", "tumor", "meningioma", "glioma", "neoplasm", "metastasis"),
    "edema": ("oedema", "edema"),
    "necrosis": ("necrosis", "necrotic"),
    "hemorrhage": ("haemorrhage", "hemorrhage", "bleeding"),
    "cyst": ("cyst",),
}
"""Property types of CID 7159, by the words that a class is named with; else it is a lesion."""
_CODES = {
    "neoplasm": Code("108369006", "SCT", "Neoplasm"),
    "edema": Code("79654002", "SCT", "Edema"),
    "necrosis": Code("6574001", "SCT", "Necrosis"),
    "hemorrhage": Code("50960005", "SCT", "Hemorrhage"),
    "cyst": Code("367643001", "SCT", "Cyst"),
    "lesion": Code("52988006", "SCT", "Lesion"),
}
_TYPE_2 = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID",
    "StudyDate", "StudyTime", "ReferringPhysicianName",
)  # fmt: skip
"""Attributes that must be there and may be empty; an anonymised series may lack them."""
_LONGEST = 64
_COLOURS = ("deepskyblue", "orange", "limegreen", "magenta", "yellow", "tomato")
"""Of the segments in a viewer; it would choose some itself."""


@dataclass(frozen=True)
class Making:
    """How a mask came to be.

    Attributes
    ----------
    bundle, version : of the model; empty if there was none
    person : who corrected or drew it; empty if nobody did
    is_corrected : whether a person has corrected or drawn it
    parameters : of the model, as texts by name
    key : what tells this mask from others: written again, it gets the same UIDs, and a PACS does
        not keep it twice; by default they are new
    """

    bundle: str = ""
    version: str = ""
    person: str = ""
    is_corrected: bool = False
    parameters: Mapping[str, str] = field(default_factory=dict)
    key: str = ""


@dataclass(frozen=True)
class SourceSeries:
    """The series that a mask lies on.

    Attributes
    ----------
    images : headers of its files, in the order of space; of a multi-frame series the only one
    order : for each frame of the object to be written, the slice of the volume that it shows
    """

    images: Sequence[Dataset]
    order: Sequence[int]

    def arrange(self, volume: NDArray[Any]) -> NDArray[Any]:
        """Return a volume (X, Y, Z), or (X, Y, Z, K), as frames (frames, rows, columns[, K])."""
        return np.ascontiguousarray(np.swapaxes(volume, 0, 2)[list(self.order)])


def is_dicom_scan(path: Path) -> bool:
    """Whether a scan is a DICOM series or file, which masks in DICOM can refer to."""
    return path.is_dir() or (path.is_file() and is_dicom(path))


def read_source(path: Path) -> SourceSeries:
    """Read the headers of the series that a scan was read from.

    Raises
    ------
    InputError
        It is no DICOM series, or does not say in which frame of reference it lies.
    """
    if not is_dicom_scan(path):
        raise InputError(
            f"A mask is written as DICOM for scans that are DICOM; '{path}' is not. Give the "
            "series, or leave --dicom-seg out."
        )
    slices = sort_slices(read_only_series(path) if path.is_dir() else read_only_slice(path))
    files = dict.fromkeys(one.path for one in slices)
    images = [_read_header(file) for file in files]
    order = range(len(slices))
    if slices[0].frame is not None:
        order = np.argsort([one.frame or 0 for one in slices]).tolist()
    _correct_spacing(images, slices)
    return SourceSeries(images, order)


def make_seg(
    source: SourceSeries, mask: NDArray[np.integer], names: Mapping[int, str], making: Making
) -> Segmentation:
    """Return a mask as a DICOM SEG.

    Parameters
    ----------
    source
        The series that the mask lies on.
    mask
        (X, Y, Z) on the grid that `heatmask.data.readers.dicom` reads from the series. An empty
        one becomes a SEG without marked voxels.
    names
        Of its values. A value that has none is a segment too.
    making
        How it came to be.

    Notes
    -----
    The tracking UID of a segment depends on the series and the segment's name alone: it is the
    same lesion in every version of its mask.
    """
    values = sorted({*names, *np.unique(mask[mask > 0]).tolist()} - {0})
    if not values:
        raise InputError("A DICOM SEG needs a segment: the mask is empty and no value is named.")
    numbers = np.zeros(max(values) + 1, np.uint8)
    numbers[values] = np.arange(1, len(values) + 1)
    segments = [
        _describe_segment(number, names.get(value, f"segment {value}"), source, making)
        for number, value in enumerate(values, 1)
    ]
    described = "Corrected by a person" if making.is_corrected else "Pseudo-mask, to be corrected"
    return Segmentation(
        source.images,
        source.arrange(numbers[mask]),
        hd.seg.SegmentationTypeValues.BINARY,
        segments,
        content_label="HEATMASK",
        content_description=described,
        content_creator_name=_name_person(making.person),
        series_description=_shorten(
            f"Heatmask {', '.join(names[v] for v in values if v in names)}"
        ),
        **_identify(source, making, 1),
    )


def make_parametric_map(
    source: SourceSeries, heatmap: NDArray[np.floating], names: Sequence[str], making: Making
) -> ParametricMap:
    """Return a heatmap as a DICOM parametric map.

    Parameters
    ----------
    source, making
        As `make_seg`.
    heatmap
        (K, X, Y, Z) in [0, 1], a channel for each class.
    names
        Of the classes.
    """
    mappings = [
        RealWorldValueMapping(
            lut_label=f"HEATMAP{number}",
            lut_explanation=_shorten(f"Heatmap of {name}, 0 to 1"),
            unit=codes.UCUM.NoUnits,
            value_range=(0.0, 1.0),
            slope=1.0,
            intercept=0.0,
        )
        for number, name in enumerate(names, 1)
    ]
    frames = source.arrange(np.moveaxis(heatmap, 0, -1).astype(np.float32))
    return ParametricMap(
        source.images,
        frames,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[[mapping] for mapping in mappings],
        voi_lut_transformations=[hd.VOILUTTransformation(window_center=0.5, window_width=1.0)],
        content_label="HEATMASK",
        content_description="Heatmap of an image-level classifier",
        series_description=_shorten(f"Heatmask heatmap {', '.join(names)}"),
        **_identify(source, making, 2),
    )


def list_objects(result: Result) -> dict[str, Dataset]:
    """Return the mask and the heatmap of a result as DICOM, under ``mask`` and ``heatmap``.

    Raises
    ------
    InputError
        Its scan is no DICOM series.
    """
    source, made = read_source(Path(result.image)), result.provenance
    making = Making(made.bundle, made.version, parameters={"weights": made.weights_sha256 or ""})
    mask = np.asarray(result.mask[0]).astype(np.uint8)
    names = dict(enumerate(result.class_names, 1))
    heatmap = np.asarray(result.display)
    return {
        "mask": make_seg(source, mask, names, making),
        "heatmap": make_parametric_map(source, heatmap, result.class_names, making),
    }


def find_code(name: str) -> Code:
    """Return the coded property type (CID 7159) of a class, a lesion where none fits."""
    words = name.lower().replace("-", " ").replace("_", " ").split()
    fits = (kind for kind, known in _TYPES.items() if {*words} & {*known})
    return _CODES[next(fits, "lesion")]


def _correct_spacing(images: Sequence[Dataset], slices: Sequence[DicomSlice]) -> None:
    """Say how far slices are apart by where they lie: what headers say is often wrong."""
    if len(slices) < 2:
        return
    ends = (np.array(s.header.ImagePositionPatient, float) for s in (slices[0], slices[-1]))
    apart_mm = float(np.linalg.norm(np.subtract(*ends))) / (len(slices) - 1)
    for image in images:
        (shared,) = image.get("SharedFunctionalGroupsSequence") or [Dataset()]
        (measures,) = shared.get("PixelMeasuresSequence") or [image]
        measures.SpacingBetweenSlices = f"{apart_mm:.10g}"
        if not measures.get("SliceThickness"):
            measures.SliceThickness = measures.SpacingBetweenSlices


def _read_header(path: Path) -> Dataset:
    header = dcmread(path, stop_before_pixels=True, force=True)
    for keyword in _TYPE_2:
        if keyword not in header:
            setattr(header, keyword, "")
    needed = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")
    missing = [keyword for keyword in needed if not header.get(keyword)]
    if missing:
        raise InputError(
            f"'{path.name}' has no {', '.join(missing)}, which a mask in DICOM must refer to. "
            "Export the series again, or leave --dicom-seg out."
        )
    return header


def _describe_segment(
    number: int, name: str, source: SourceSeries, making: Making
) -> SegmentDescription:
    kind, algorithm = SegmentAlgorithmTypeValues.MANUAL, None
    if making.bundle:
        kind = SegmentAlgorithmTypeValues.AUTOMATIC
        if making.is_corrected:
            kind = SegmentAlgorithmTypeValues.SEMIAUTOMATIC
        algorithm = hd.AlgorithmIdentificationSequence(
            name=_shorten(making.bundle),
            family=codes.DCM.ArtificialIntelligence,
            version=_shorten(making.version or "unknown"),
            source="Heatmask",
            parameters=dict(making.parameters) or None,
        )
    series = source.images[0].SeriesInstanceUID
    return SegmentDescription(
        segment_number=number,
        segment_label=_shorten(name),
        segmented_property_category=_CATEGORY,
        segmented_property_type=find_code(name),
        algorithm_type=kind,
        algorithm_identification=algorithm,
        tracking_id=_shorten(name),
        tracking_uid=generate_uid(entropy_srcs=["heatmask", series, name]),
        display_color=CIELabColor.from_string(_COLOURS[(number - 1) % len(_COLOURS)]),
    )


def _identify(source: SourceSeries, making: Making, offset: int) -> dict[str, Any]:
    """Return UIDs, numbers and names of a new object, in a series of its own."""
    from heatmask import __version__

    series, instance = (
        generate_uid(entropy_srcs=[making.key, kind, str(offset)] if making.key else None)
        for kind in ("series", "instance")
    )
    return {
        "series_instance_uid": series,
        "series_number": 100 * int(source.images[0].get("SeriesNumber") or 0) + offset,
        "sop_instance_uid": instance,
        "instance_number": 1,
        "manufacturer": "Heatmask",
        "manufacturer_model_name": _shorten(making.bundle or "Heatmask"),
        "software_versions": __version__,
        "device_serial_number": __version__,
    }


def _name_person(name: str) -> str | None:
    """Return a user's name as DICOM takes it, None for nobody."""
    return _shorten(name.replace("^", " ").replace("=", " ").replace("\\", " ")) or None


def _shorten(text: str) -> str:
    return text.replace("\\", " ")[:_LONGEST]
