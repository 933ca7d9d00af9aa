"""A DICOMweb service: search (QIDO-RS), retrieve (WADO-RS), store (STOW-RS).

By dicomweb-client, with what it leaves to its users: who asks, how long an answer may take,
whether a series came whole, and errors in plain words.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import requests
from dicomweb_client import DICOMwebClient
from pydicom import Dataset
from requests.exceptions import ChunkedEncodingError

from heatmask.errors import HeatmaskError, InputError, OptionError, OutputError

USER, PASSWORD, TOKEN = (f"HEATMASK_DICOMWEB_{name}" for name in ("USER", "PASSWORD", "TOKEN"))
"""Environment variables with what the service asks for; without them ``.netrc`` counts."""
TIMEOUT_S = (10.0, 60.0)
"""To connect, and from one part of an answer to the next."""
SERIES_S = 1800.0
"""How long a series may take to come."""
_FIELDS = ("SeriesDescription", "ProtocolName", "StudyDate", "PatientID", "SeriesNumber")


class PacsError(HeatmaskError):
    """The PACS does not answer, or not with what was asked for."""


def is_address(text: str) -> bool:
    """Whether a text is the address of a DICOMweb service and not a folder."""
    return urlsplit(text).scheme in ("http", "https")


class Pacs:
    """A PACS behind a DICOMweb address.

    Parameters
    ----------
    url
        Such as ``http://host:8042/dicom-web``, without a name or password in it.
    timeout_s
        See `TIMEOUT_S`.

    Raises
    ------
    OptionError
        The address is none, or holds a password, which others would read in the list of processes.
    """

    def __init__(self, url: str, timeout_s: tuple[float, float] = TIMEOUT_S) -> None:
        parts = urlsplit(url)
        if not is_address(url) or not parts.hostname:
            raise OptionError(
                f"The PACS must be given as an address like https://host/dicom-web, got '{url}'."
            )
        if parts.username or parts.password:
            raise OptionError(
                f"Leave name and password out of the address. Set {USER} and {PASSWORD}, or "
                f"{TOKEN}, or write them to ~/.netrc."
            )
        self.url = url.rstrip("/")
        self._client = DICOMwebClient(self.url, _open_session(), timeout=timeout_s)
        self._client.set_http_retry_params(max_attempts=2)

    def list_series(self, filters: Mapping[str, str]) -> list[Dataset]:
        """Return what the PACS says of each series that fits the filters, by DICOM keyword.

        Raises
        ------
        PacsError
            See the class.
        """
        search = partial(
            self._client.search_for_series, search_filters=dict(filters), fields=_FIELDS
        )
        return list(self._find_all(search, "SeriesInstanceUID").values())

    def list_instances(self, study: str, series: str) -> set[str]:
        """Return the SOP instance UIDs of a series; empty if the PACS has no such series.

        Raises
        ------
        PacsError
            See the class.
        """
        search = partial(self._client.search_for_instances, study, series)
        return set(self._find_all(search, "SOPInstanceUID"))

    def fetch_series(self, study: str, series: str, folder: Path) -> None:
        """Bring a series into a folder of its own, a file ``<SOPInstanceUID>.dcm`` an instance.

        A folder that holds the instances which the PACS lists is left as it is; one that holds
        others is replaced.

        Raises
        ------
        PacsError
            It did not come, or not whole.
        OutputError
            The folder cannot be written.
        """
        listed = self.list_instances(study, series)
        if not listed:
            raise InputError(
                f"The PACS has no series {series} in study {study} any more. Start again."
            )
        if listed == {path.stem for path in folder.glob("*.dcm")}:
            return
        try:
            folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with TemporaryDirectory(prefix=".coming-", dir=folder.parent) as partial:
                came = self._receive(study, series, Path(partial))
                if listed - came:
                    raise PacsError(
                        f"The PACS sent {len(listed & came)} of the {len(listed)} instances of "
                        f"series {series}. Try again, or look at the series in the PACS."
                    )
                shutil.rmtree(folder, ignore_errors=True)
                Path(partial).rename(folder)
                Path(partial).mkdir()  # which the context manager removes
        except OSError as error:
            raise OutputError(
                f"'{folder.parent}' must be writable for series of the PACS: {error.strerror}. "
                "Check space and permissions."
            ) from error

    def send(self, dataset: Dataset) -> None:
        """Store an object in the PACS.

        Raises
        ------
        PacsError
            It was not stored.
        """
        with self._explain("written to"):
            answer = self._client.store_instances([dataset], dataset.StudyInstanceUID)
        failed = answer.get("FailedSOPSequence") or []
        if failed:
            reason = failed[0].get("FailureReason", "not given")
            raise PacsError(f"The PACS did not store the object (failure reason {reason}).")

    def _find_all(self, search: Callable[..., list[Any]], key: str) -> dict[str, Dataset]:
        """Return all that a search finds, page by page, by its UID.

        dicomweb-client would ask for pages for ever where a PACS sends the first one each time.
        """
        found: dict[str, Dataset] = {}
        count = 0
        while True:
            with self._explain("searched"):
                page = [Dataset.from_json(item) for item in search(offset=count)]
                new = {str(item[key].value): item for item in page}
            count += len(page)
            if new.keys() <= found.keys():
                return found
            found |= new

    def _receive(self, study: str, series: str, folder: Path) -> set[str]:
        came, deadline = set(), monotonic() + SERIES_S
        with self._explain("read"):
            for instance in self._client.iter_series(study, series):
                uid = str(instance.SOPInstanceUID)
                instance.save_as(folder / f"{uid}.dcm", enforce_file_format=True)
                came.add(uid)
                if monotonic() > deadline:
                    raise PacsError(
                        f"Series {series} did not come from the PACS within {SERIES_S / 60:.0f} "
                        "minutes. Try again when the PACS is less busy."
                    )
        return came

    @contextmanager
    def _explain(self, done: str) -> Iterator[None]:
        """Say in plain words why a request failed."""
        try:
            yield
        except requests.HTTPError as error:
            raise PacsError(self._describe(error.response, done)) from error
        except requests.exceptions.SSLError as error:
            raise PacsError(
                f"The certificate of the PACS at {self.url} is not trusted. Name the file of your "
                "certificate authority in REQUESTS_CA_BUNDLE."
            ) from error
        except requests.Timeout as error:
            raise PacsError(
                f"The PACS at {self.url} did not answer in time. Try again when it is less busy."
            ) from error
        except (requests.ConnectionError, ChunkedEncodingError) as error:
            raise PacsError(
                f"The PACS at {self.url} cannot be reached. Check the address and whether it runs."
            ) from error
        except Exception as error:
            is_ours = isinstance(error, OSError | HeatmaskError)
            if is_ours and not isinstance(error, requests.RequestException):
                raise
            # dicomweb-client and pydicom raise whatever the bytes lead to
            raise PacsError(
                f"The PACS at {self.url} sent what is not DICOMweb. Check the address; that of "
                "Orthanc ends in /dicom-web."
            ) from error

    def _describe(self, response: Any, done: str) -> str:
        status = response.status_code
        if status in (401, 403):
            return (
                f"The PACS at {self.url} must be {done} with a name and password it knows "
                f"(status {status}). Set {USER} and {PASSWORD}, or {TOKEN}, or write them to "
                "~/.netrc."
            )
        if status == 404:
            return f"There is no DICOMweb service at {self.url}, or not what was asked for (404)."
        return f"The PACS at {self.url} could not be {done}: it answered with status {status}."


def _open_session() -> requests.Session:
    """Return a session that says who asks: by the environment, or else by .netrc."""
    session = requests.Session()
    token, user = os.environ.get(TOKEN), os.environ.get(USER)
    if token:
        # As auth, or the entry of .netrc for this host would take its place.
        session.auth = _Bearer(token)
    elif user:
        session.auth = (user, os.environ.get(PASSWORD, ""))
    return session


class _Bearer(requests.auth.AuthBase):
    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: Any) -> Any:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request
