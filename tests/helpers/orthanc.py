"""A real PACS for tests: Orthanc with its DICOMweb plugin, on loopback."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from helpers.server import find_free_port

USER, PASSWORD = "heatmask", "only-for-tests"
_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
_START_S = 300


@dataclass
class Orthanc:
    """A running Orthanc, seen as its administrator sees it: not through DICOMweb."""

    url: str
    process: subprocess.Popen

    @property
    def dicomweb(self) -> str:
        return f"{self.url}/dicom-web"

    def ask(self, method: str, path: str, **arguments) -> requests.Response:
        answer = requests.request(
            method, self.url + path, auth=(USER, PASSWORD), timeout=60, **arguments
        )
        answer.raise_for_status()
        return answer

    def add(self, folder: Path) -> None:
        """Store all files of a folder."""
        for path in sorted(folder.iterdir()):
            self.ask("POST", "/instances", data=path.read_bytes())

    def find(self, level: str, **tags: str) -> list[str]:
        """Return Orthanc's ids of what has these tags."""
        query = {"Level": level, "Query": tags}
        return self.ask("POST", "/tools/find", json=query).json()

    def clear(self) -> None:
        for study in self.find("Study"):
            self.ask("DELETE", f"/studies/{study}")


@contextmanager
def run_orthanc(folder: Path) -> Iterator[Orthanc]:
    """Start an Orthanc that keeps its files in a folder; skip where it is not installed."""
    program = shutil.which("Orthanc")
    if program is None or not _PLUGIN.is_file():
        pytest.skip("needs Orthanc: apt install orthanc orthanc-dicomweb")
    port = find_free_port()
    config = {
        "Name": "test", "StorageDirectory": str(folder), "IndexDirectory": str(folder),
        "Plugins": [str(_PLUGIN)], "HttpPort": port, "DicomServerEnabled": False,
        "RemoteAccessAllowed": False, "AuthenticationEnabled": True,
        "RegisteredUsers": {USER: PASSWORD}, "OverwriteInstances": True,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }  # fmt: skip
    (folder / "orthanc.json").write_text(json.dumps(config))
    with (folder / "orthanc.log").open("w") as log:
        process = subprocess.Popen(
            [program, folder / "orthanc.json"], stdout=log, stderr=subprocess.STDOUT
        )
    orthanc = Orthanc(f"http://127.0.0.1:{port}", process)
    try:
        _wait_for(orthanc, folder / "orthanc.log")
        yield orthanc
    finally:
        process.terminate()
        process.wait(timeout=120)


def _wait_for(orthanc: Orthanc, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and orthanc.process.poll() is None:
        try:
            orthanc.ask("GET", "/dicom-web/studies")
            return
        except requests.RequestException:
            time.sleep(0.2)
    pytest.fail(f"Orthanc did not start:\n{log.read_text(encoding='utf-8')[-3000:]}")
