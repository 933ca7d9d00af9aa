"""A PACS that misbehaves: what is said, and that nothing half fetched stays."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydicom import dcmread

from heatmask.errors import OptionError
from heatmask.pacs import Pacs, PacsError, PacsStudies, fetch_study, is_address
from helpers.dicom_studies import write_study

Reply = tuple[int, str, bytes]


class FakePacs(ThreadingHTTPServer):
    """Answers every request as `reply` says, given method and path."""

    timeout_s = (60.0, 60.0)

    def __init__(self) -> None:
        self.reply: Callable[[str, str], Reply] = lambda method, path: (404, "text/plain", b"")
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def pacs(self) -> Pacs:
        return Pacs(f"http://127.0.0.1:{self.server_port}/dicom-web", timeout_s=self.timeout_s)


class _Handler(BaseHTTPRequestHandler):
    server: FakePacs

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, kind, body = self.server.reply(self.command, self.path)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer  # noqa: N815 (as http.server names them)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def fake() -> Iterator[FakePacs]:
    with FakePacs() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def tell_series(folder: Path, listed: int, sent: int) -> Callable[[str, str], Reply]:
    """Answer for a series of which some instances are listed, and others sent."""
    files = sorted(folder.iterdir())
    found = [dcmread(path, stop_before_pixels=True).to_json_dict() for path in files[:listed]]
    parts = [
        b"--x\r\nContent-Type: application/dicom\r\n\r\n" + path.read_bytes() + b"\r\n"
        for path in files[:sent]
    ]
    whole = b"".join(parts) + b"--x--\r\n"

    def reply(method: str, path: str) -> Reply:
        if "instances" in path or "series?" in path:
            return 200, "application/dicom+json", json.dumps(found).encode()
        return 200, 'multipart/related; type="application/dicom"; boundary=x', whole

    return reply


def read_uids(folder: Path) -> tuple[str, str]:
    header = dcmread(next(folder.iterdir()), stop_before_pixels=True)
    return str(header.StudyInstanceUID), str(header.SeriesInstanceUID)


def test_a_series_that_does_not_come_whole_is_none(fake: FakePacs, tmp_path: Path) -> None:
    series, target = write_study(tmp_path / "series"), tmp_path / "cache" / "1" / "2"
    fake.reply = tell_series(series, 14, 10)
    with pytest.raises(PacsError, match="sent 10 of the 14 instances of series"):
        fake.pacs.fetch_series(*read_uids(series), target)
    assert list(target.parent.iterdir()) == []
    fake.reply = tell_series(series, 14, 14)
    fake.pacs.fetch_series(*read_uids(series), target)
    assert len(list(target.iterdir())) == 14
    assert [path.name for path in target.parent.iterdir()] == ["2"]


def test_a_series_that_the_pacs_has_replaced_is_fetched_anew(
    fake: FakePacs, tmp_path: Path
) -> None:
    first, second = (write_study(tmp_path / name) for name in ("first", "second"))
    target = tmp_path / "cache" / "1" / "2"
    for series in (first, second):
        fake.reply = tell_series(series, 14, 14)
        fake.pacs.fetch_series(*read_uids(series), target)
        uids = {str(dcmread(path).SOPInstanceUID) for path in series.iterdir()}
        assert {path.stem for path in target.iterdir()} == uids


def test_a_series_that_the_pacs_has_no_more_does_not_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies in the folder of the study is segmented, and sent."""
    new, old = (tmp_path / "1.2" / uid for uid in ("1.2.3", "1.2.4"))
    old.mkdir(parents=True)
    (tmp_path / "1.2" / ".DS_Store").touch()

    class Studies:
        def __init__(self, *_: Any) -> None:
            pass

        def choose(self, _: Any) -> list[Any]:
            return [SimpleNamespace(paths={"FLAIR": new})]

        def fetch(self, series: Path) -> None:
            series.mkdir()

    monkeypatch.setattr("heatmask.pacs.studies.PacsStudies", Studies)
    folder = fetch_study(None, "1.2", tmp_path, ["FLAIR"])  # type: ignore[arg-type]
    assert {*folder.iterdir()} == {new, folder / ".DS_Store"}


def test_a_copy_from_before_is_used_while_the_pacs_is_down(
    fake: FakePacs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    series = write_study(tmp_path / "series")
    fake.reply = tell_series(series, 14, 14)
    place = tmp_path / "cache" / "/".join(read_uids(series))
    PacsStudies(fake.pacs, tmp_path / "cache").fetch(place)
    studies = PacsStudies(fake.pacs, tmp_path / "cache")
    fake.reply = lambda method, path: (502, "text/html", b"<h1>Bad gateway</h1>")
    studies.fetch(place)
    assert "The copy of series" in caplog.text
    assert "answered with status 502" in caplog.text
    with pytest.raises(PacsError, match="502"):
        studies.fetch(place.with_name("9"))


def be_slow(method: str, path: str) -> Reply:
    time.sleep(1)
    return 200, "application/dicom+json", b"[]"


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (be_slow, "did not answer in time. Try again when it is less busy"),
        (lambda *_: (200, "text/html", b"<h1>Log in</h1>"), "sent what is not DICOMweb"),
        (lambda *_: (200, "application/dicom+json", b'[{"0020": 1}]'), "sent what is not DICOMweb"),
        (lambda *_: (403, "text/plain", b""), r"\(status 403\). Set HEATMASK_DICOMWEB_USER"),
        (lambda *_: (500, "text/plain", b""), "could not be searched: it answered with status 500"),
    ],
    ids=["slow", "a log-in page", "no DICOM", "forbidden", "broken"],
)
def test_what_is_wrong_is_said(
    fake: FakePacs, tmp_path: Path, reply: Callable[..., Reply], message: str
) -> None:
    fake.reply = reply
    if reply is be_slow:
        fake.timeout_s = (60.0, 0.2)
    with pytest.raises(PacsError, match=message):
        PacsStudies(fake.pacs, tmp_path)


def test_series_whose_uids_would_lead_elsewhere_are_left_out(
    fake: FakePacs, tmp_path: Path
) -> None:
    good, bad = (
        dcmread(next(write_study(tmp_path / name).iterdir()), stop_before_pixels=True)
        for name in ("good", "bad")
    )
    items = [good.to_json_dict(), bad.to_json_dict()]
    items[1]["0020000E"]["Value"] = ["../../x"]
    fake.reply = lambda *_: (200, "application/dicom+json", json.dumps(items).encode())
    (study,) = PacsStudies(fake.pacs, tmp_path / "cache").choose(["FLAIR"])
    assert study.case == good.SeriesInstanceUID


@pytest.mark.parametrize("url", ["ftp://host/x", "https://", "host:8042"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(OptionError, match="must be given as an address like"):
        Pacs(url)
    assert is_address("http://host:8042/dicom-web")
    assert not is_address("/data/http")


def test_a_token_is_sent_and_not_that_of_netrc(
    monkeypatch: pytest.MonkeyPatch, fake: FakePacs, tmp_path: Path
) -> None:
    seen: list[str | None] = []
    answer = _Handler.answer

    def note(self: _Handler) -> None:
        seen.append(self.headers.get("Authorization"))
        answer(self)

    (tmp_path / "netrc").write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HEATMASK_DICOMWEB_TOKEN", "abc")
    monkeypatch.setattr(_Handler, "do_GET", note)
    fake.reply = lambda *_: (200, "application/dicom+json", b"[]")
    assert fake.pacs.list_series({}) == []
    assert seen == ["Bearer abc"]
