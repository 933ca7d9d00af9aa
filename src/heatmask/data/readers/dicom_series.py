"""DICOM series in a folder: which there are, and their slices in the order of space; single slices.

Headers only, and no torch: cheap enough to check a whole archive before a network is
loaded. Order, spacing and completeness come from ImagePositionPatient along the normal of
ImageOrientationPatient (DICOM PS3.3, C.7.6.2.1.1). InstanceNumber and
SpacingBetweenSlices are not trusted: series with every second slice removed, or numbered
against the axis, are common.

By hand, and not by ITK's or highdicom's readers of a series: ITK stacks slices across a gap with
a warning on the console, highdicom needs all pixels, and neither names the file that is at fault.
"""

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from heatmask.data.readers.dicom_files import DicomSlice, read_slice, read_slices
from heatmask.data.readers.dicom_frames import list_frames
from heatmask.errors import InputError

if TYPE_CHECKING:
    from pydicom import Dataset

# Irregular spacing above this share of the usual gap means that slices are missing.
MAX_GAP_DEVIATION = 0.05
# Slices that drift sideways by more than this are sheared: no affine grid holds them.
MAX_DRIFT_MM = 0.1


@dataclass(frozen=True)
class DicomSeries:
    """Slices of one SeriesInstanceUID, in no particular order."""

    slices: tuple[DicomSlice, ...]

    @property
    def header(self) -> "Dataset":
        """Header of one of the files."""
        return self.slices[0].header

    @property
    def files(self) -> set[Path]:
        """The files that the slices lie in."""
        return {one.path for one in self.slices}

    @property
    def uid(self) -> str:
        """SeriesInstanceUID; empty if there is none."""
        return find_uid(self.slices[0])

    @property
    def description(self) -> str:
        """What the scanner called the series."""
        return str(self.header.get("SeriesDescription") or "no description")


def find_uid(one: DicomSlice) -> str:
    """SeriesInstanceUID of a slice; empty if there is none."""
    return str(one.header.get("SeriesInstanceUID") or "")


def read_only_series(folder: Path) -> DicomSeries:
    """The one image series of a folder.

    Raises
    ------
    InputError
        If there is none, or more than one (the message lists them), or slices are damaged (see
        `heatmask.data.readers.dicom_files.read_slices`).
    """
    slices = [frame for one in read_slices(folder) for frame in list_frames(one)]
    slices.sort(key=find_uid)
    series = [DicomSeries(tuple(alike)) for _, alike in groupby(slices, find_uid)]
    if not series:
        raise InputError(
            f"There is no DICOM image in '{folder}'. Give the folder whose files are the slices."
        )
    if len(series) > 1:
        found = "; ".join(f"'{one.description}' ({len(one.files)} files)" for one in series)
        raise InputError(
            f"'{folder}' holds {len(series)} DICOM series: {found}. Move each to its own folder."
        )
    return series[0]


def read_only_slice(path: Path) -> DicomSeries:
    """A single file as a series: of one slice, or of as many as it has frames.

    Raises
    ------
    InputError
        If it holds no image, or its header cannot be read.
    """
    return DicomSeries(tuple(list_frames(read_slice(path))))


def sort_slices(series: DicomSeries) -> list[DicomSlice]:
    """Slices of a series from the first to the last along the slice normal.

    The normal is the cross product of the row and column directions.

    Raises
    ------
    InputError
        If the slices do not make one regular grid: other sizes or directions among them,
        two at one position, a gap, a drift, colour, or several files with many frames each.
    """
    _check_slices_alike(series)
    positions = np.array([one.header.ImagePositionPatient for one in series.slices], float)
    in_plane = np.array(series.header.ImageOrientationPatient, float).reshape(2, 3)
    depths_mm = positions @ np.cross(*in_plane)
    order = np.argsort(depths_mm, kind="stable")
    _check_gaps(series, np.diff(depths_mm[order]))
    _check_drift(series, (positions - positions[0]) @ in_plane.T)
    return [series.slices[index] for index in order]


def describe_numbering(series: DicomSeries) -> list[str]:
    """Say where slices seem to be missing by their numbers.

    Only a hint: series with every second slice, or that begin late, are common.
    """
    given = [one.header.get("InstanceNumber") for one in series.slices]
    numbers = sorted(int(number) for number in given if number not in (None, ""))
    if len(numbers) < len(given) or len(numbers) < 2:
        return []
    name, steps = f"DICOM series '{series.description}'", np.diff(numbers)
    if steps.min() == 0:
        return [f"The slices of {name} are numbered twice: whether all are there is not known."]
    if steps.max() > steps.min():
        return [
            f"Slices may be missing: those of {name} are numbered from {numbers[0]} to "
            f"{numbers[-1]}, and there are {len(numbers)}."
        ]
    totals = ("ImagesInAcquisition", "NumberOfSeriesRelatedInstances")
    total = max(int(series.header.get(key) or 0) for key in totals)
    if steps.min() == 1 and (numbers[0] > 1 or total > len(numbers)):
        end = f" of {total}" if total else ""
        return [f"Slices may be missing: {name} holds numbers {numbers[0]} to {numbers[-1]}{end}."]
    return []


def _check_slices_alike(series: DicomSeries) -> None:
    first = series.header
    if len(series.files) > 1 and any(one.frame is not None for one in series.slices):
        raise InputError(
            f"The series '{series.description}' has several files, and more than one slice in a "
            "file. Give one of its files instead of the folder."
        )
    for one in series.slices:
        header = one.header
        _check_plain_slice(one)
        if header.get("PatientID") != first.get("PatientID"):
            raise InputError(
                f"'{one.path.name}' is of another patient than '{series.slices[0].path.name}' "
                "(PatientID). Remove what does not belong."
            )
        for key in ("Rows", "Columns", "BitsAllocated", "PixelSpacing", "ImageOrientationPatient"):
            if not np.allclose(header[key].value, first[key].value, atol=1e-3):
                raise InputError(
                    f"{key} is {header[key].value} in '{one.path.name}', and {first[key].value} "
                    f"in '{series.slices[0].path.name}'. Remove localisers and other planes."
                )


def _check_plain_slice(one: DicomSlice) -> None:
    """One sample per pixel, and a place in space."""
    header, name = one.header, one.path.name
    if int(header.get("SamplesPerPixel") or 1) != 1:
        raise InputError(
            f"'{name}' is in colour ({header.SamplesPerPixel} samples per pixel). Give the "
            "original series, not a colour map or screenshot."
        )
    keys = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
    missing = [key for key in keys if not header.get(key)]
    if missing:
        raise InputError(
            f"'{name}' does not say where it lies: it has no {', '.join(missing)}. Give the "
            "original series, not a secondary capture."
        )
    if not min(map(float, header.PixelSpacing)) > 0:
        raise InputError(
            f"The PixelSpacing of '{name}' is {header.PixelSpacing}. Export the series again."
        )


def _check_gaps(series: DicomSeries, gaps_mm: np.ndarray) -> None:
    """Distances between neighbouring slices (N - 1,), sorted along the normal."""
    if gaps_mm.size == 0:
        return  # one slice is refused where every format's shape is checked
    if gaps_mm.min() < 1e-3:
        raise InputError(
            f"The series '{series.description}' has several slices at one position "
            f"({len(series.slices)} in all). It may hold echoes or time points: give a folder with "
            "one of them."
        )
    usual_mm = float(np.median(gaps_mm))
    if np.abs(gaps_mm - usual_mm).max() > MAX_GAP_DEVIATION * usual_mm:
        raise InputError(
            f"Slices of the series '{series.description}' seem to be missing: the gaps between "
            f"them range from {gaps_mm.min():.3f} to {gaps_mm.max():.3f} mm. Export it again."
        )


def _check_drift(series: DicomSeries, sideways_mm: np.ndarray) -> None:
    """In-plane offsets (N, 2) of the slices' first corners from one of them."""
    drift_mm = float(np.abs(sideways_mm).max())
    if drift_mm > MAX_DRIFT_MM:
        raise InputError(
            f"The slices of the series '{series.description}' drift sideways by {drift_mm:.2f} mm "
            "(a tilted gantry). Resample it first, for example with dcm2niix."
        )
