"""The studies of a PACS: listed at once, their series fetched when they are needed."""

import logging
import re
import shutil
import threading
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydicom import Dataset

from heatmask.data.cases import Listing, Study, count_groups, group_studies
from heatmask.data.finding.scans import Scan
from heatmask.errors import InputError
from heatmask.pacs.client import Pacs, PacsError

logger = logging.getLogger(__name__)

FILTERS = {"Modality": "MR"}
_UID = re.compile(r"[0-9.]{1,64}")


class PacsStudies:
    """Studies of a PACS, whose series are kept in a folder once they were needed.

    Parameters
    ----------
    pacs
        Where they are.
    folder
        Where series are kept, ``<StudyInstanceUID>/<SeriesInstanceUID>/``. What lies there is
        used again as long as the PACS lists the same instances.
    filters
        Which series, by DICOM keyword, as ``{"BodyPartExamined": "BRAIN"}``; those of the
        modality MR unless another is given.

    Raises
    ------
    PacsError
        The PACS does not answer.
    InputError
        It has no such series.
    """

    def __init__(self, pacs: Pacs, folder: Path, filters: Mapping[str, str] | None = None) -> None:
        self.pacs, self._folder = pacs, folder
        self._locks: dict[Path, threading.Lock] = defaultdict(threading.Lock)
        self._fetched: set[Path] = set()
        wanted = {**FILTERS, **(filters or {})}
        self._scans = [
            self._make_scan(series) for series in pacs.list_series(wanted) if _is_named(series)
        ]
        self._headers = {scan.case: scan.header for scan in self._scans}
        if not self._scans:
            text = ", ".join(f"{name} {value}" for name, value in wanted.items())
            raise InputError(f"The PACS at {pacs.url} has no series with {text}. Check the filter.")

    def choose(self, sequences: Sequence[str]) -> Listing[Study]:
        """Return the studies as `heatmask.data.cases.find_studies` does, a case a series UID.

        What sequence a series is, its description says; its paths need not be there yet.
        """
        return group_studies(self._scans, [], self.pacs.url, None, sequences)

    def count_heads(self) -> Counter[frozenset[str]]:
        """Count the studies by the sequences that there are of each."""
        return count_groups(self._scans)

    def describe(self, series: str) -> dict[str, str]:
        """Return what the PACS says of a series, for people who look for the patient."""
        header = self._headers.get(series)
        keywords = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SeriesDescription")
        return {key: str(header.get(key)) for key in keywords if header and header.get(key)}

    def fetch(self, series: Path) -> None:
        """Bring a series, or make sure that the PACS still has the one that is here.

        The PACS is asked once for each series. If it does not answer, one that is here is used.

        Raises
        ------
        PacsError
            It is not here and did not come.
        """
        with self._locks[series]:
            if series in self._fetched and series.is_dir():
                return
            study, uid = series.parts[-2:]
            try:
                self.pacs.fetch_series(study, uid, series)
            except PacsError as error:
                if not series.is_dir():
                    raise
                logger.warning("The copy of series %s from before is used: %s", uid, error)
                return
            self._fetched.add(series)

    def _make_scan(self, series: Dataset) -> Scan:
        study, uid = str(series.StudyInstanceUID), str(series.SeriesInstanceUID)
        return Scan(uid, self._folder / study / uid, series)


def fetch_study(pacs: Pacs, study: str, folder: Path, sequences: Sequence[str]) -> Path:
    """Bring the series of a study that a network could take; return the folder they lie in.

    Parameters
    ----------
    pacs
        Where the study is.
    study
        Its StudyInstanceUID.
    folder, sequences
        As `PacsStudies`.

    Raises
    ------
    HeatmaskError
        The PACS has no such study, or does not answer.
    """
    studies = PacsStudies(pacs, folder, {"StudyInstanceUID": study})
    wanted = {s for chosen in studies.choose(sequences) for s in chosen.paths.values()}
    for series in wanted:
        studies.fetch(series)
    for earlier in {*(folder / study).iterdir()} - wanted:  # the PACS may have it no longer
        if _UID.fullmatch(earlier.name):
            shutil.rmtree(earlier)
    return folder / study


def _is_named(series: Dataset) -> bool:
    """Whether its UIDs are UIDs: they become names of folders."""
    uids = (str(series.get(key, "")) for key in ("StudyInstanceUID", "SeriesInstanceUID"))
    return all(_UID.fullmatch(uid) and uid.strip(".") for uid in uids)
