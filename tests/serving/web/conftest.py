"""The web application, once for the tests that leave it as it was and once for the others."""

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("monailabel", reason="needs the extra 'serve'")

from helpers.web import Web, run_web


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    with run_web(tmp_path_factory.mktemp("web")) as running:
        yield running


@pytest.fixture
def own_web(tmp_path: Path) -> Iterator[Web]:
    with run_web(tmp_path) as running:
        yield running


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """A scan with a lesion, of a client's own."""
    from helpers.serving_stub import write_scan

    write_scan(tmp_path / "mine" / "scan.nii.gz")
    return tmp_path / "mine" / "scan.nii.gz"
