"""The OHIF viewer beside a PACS, as a proxy in front of both would serve them."""

import json
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from helpers.chromium import Page
from helpers.orthanc import PASSWORD, USER, Orthanc
from helpers.site import run_site

PACKAGE = "@ohif/app@3.12.10"
_NO_REUSE = httpx.Limits(max_keepalive_connections=0)
"""Orthanc closes connections without a word."""
_PASSED_ON = ("accept", "content-type")


def fetch_viewer(folder: Path) -> Path:
    """Return the built viewer, which npm brings; skip where that cannot be."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("needs npm, which brings the OHIF viewer")
    done = subprocess.run(
        [npm, "pack", PACKAGE, "--silent"], cwd=folder, capture_output=True, text=True, timeout=300
    )
    if done.returncode:
        pytest.skip(f"npm does not bring {PACKAGE}: {done.stderr[-300:]}")
    with tarfile.open(folder / done.stdout.split()[-1]) as archive:
        archive.extractall(folder, filter="data")
    return folder / "package/dist"


@contextmanager
def run_ohif(viewer: Path, orthanc: Orthanc) -> Iterator[str]:
    """Serve the viewer at / and the PACS at /dicom-web, and give the address."""
    client = httpx.AsyncClient(
        base_url=orthanc.url, auth=(USER, PASSWORD), timeout=120, limits=_NO_REUSE
    )

    async def ask_pacs(request: Request) -> Response:
        headers = {k: v for k, v in request.headers.items() if k in _PASSED_ON}
        headers["Host"] = request.headers["host"]  # Orthanc names its files by it
        url = httpx.URL(path=request.url.path, query=request.url.query.encode())
        answer = await client.request(
            request.method, url, headers=headers, content=await request.body()
        )
        kind = answer.headers.get("content-type")
        return Response(answer.content, answer.status_code, {"content-type": kind or "text/plain"})

    async def show_viewer(request: Request) -> Response:
        if request.url.path == "/app-config.js":
            return Response(CONFIG, media_type="text/javascript")
        file = viewer / request.path_params["path"]
        return FileResponse(file if file.is_file() else viewer / "index.html")

    routes = [
        Route("/dicom-web/{path:path}", ask_pacs, methods=["GET", "POST"]),
        Route("/{path:path}", show_viewer),
    ]
    with run_site(Starlette(routes=routes)) as port:
        yield f"http://127.0.0.1:{port}"


def show_seg(page: Page, url: str, study: str, series: str) -> None:
    """Open a study with the SEG of a series on its images."""
    page.open(f"{url}/viewer?StudyInstanceUIDs={study}&initialSeriesInstanceUID={series}")
    page.wait_for(f"{_TEXT}.includes('Skip all')")  # of the tour, which a new user sees
    page.evaluate(
        "[...document.querySelectorAll('button, a, span')]"
        ".find(e => e.innerText.trim() === 'Skip all').click()"
    )
    page.wait_for(f"!{_TEXT}.includes('Loading') && !{_TEXT}.includes('SEG import')")


def scroll_to(page: Page, place: str) -> None:
    """Scroll down to a slice, such as "12/30"."""
    for _ in range(200):
        if page.evaluate(f"{_TEXT}.includes('({place})')"):
            time.sleep(2)  # until it is drawn
            return
        page.press("ArrowDown", 40)
        time.sleep(0.3)
    pytest.fail(f"There is no slice {place}.")


def count_coloured(picture: Path) -> int:
    """Return how many pixels in the middle of the page are not grey, as no scan is."""
    pixels = np.asarray(Image.open(picture).convert("RGB"), int)
    height, width = pixels.shape[:2]
    part = pixels[height // 8 : -height // 8, 2 * width // 5 : -width // 5]
    return int((np.ptp(part, axis=2) > 40).sum())


_TEXT = "document.body.innerText"
_SOURCE = {
    "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
    "sourceName": "pacs",
    "configuration": {
        "friendlyName": "PACS", "name": "pacs", "qidoRoot": "/dicom-web", "wadoRoot": "/dicom-web",
        "wadoUriRoot": "/dicom-web", "qidoSupportsIncludeField": False, "imageRendering": "wadors",
        "thumbnailRendering": "wadors", "enableStudyLazyLoad": True, "supportsWildcard": True,
        "omitQuotationForMultipartRequest": True,
    },
}  # fmt: skip
CONFIG = "window.config = " + json.dumps(
    {
        "extensions": [], "modes": [], "showStudyList": True, "showCPUFallbackMessage": False,
        "maxNumberOfWebWorkers": 1, "disableConfirmationPrompts": True,
        "investigationalUseDialog": {"option": "never"}, "defaultDataSourceName": "pacs",
        "dataSources": [_SOURCE],
    }
)  # fmt: skip
