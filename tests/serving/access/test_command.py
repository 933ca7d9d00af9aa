"""`heatmask serve` as a department starts it, in a process of its own."""

import os
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests
from monailabel.client.client import MONAILabelClient
from typer.testing import CliRunner

from heatmask.cli import app
from heatmask.errors import OptionError
from helpers.oidc import PASSWORD
from helpers.server import MODEL, find_free_port
from helpers.serving_stub import write_bundle, write_scan
from helpers.waiting import PATIENCE_S


def test_the_command_refuses_other_machines_before_it_does_anything(tmp_path):
    arguments = ["serve", str(tmp_path), "--host", "0.0.0.0", "--workdir", str(tmp_path / "work")]
    arguments += ["--port", str(find_free_port())]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, OptionError)
    assert "heatmask users add" in str(result.exception)


def test_the_whole_server_by_its_command(tmp_path, users, certificate):
    """What a department starts: users, TLS, a name of its own."""
    write_bundle(tmp_path / "bundles" / MODEL)
    write_scan(tmp_path / "studies/p1/p1-flair.nii.gz")
    port = find_free_port()
    log = tmp_path / "log"
    command = [
        sys.executable, "-m", "heatmask.cli", "serve", tmp_path / "studies", "--port", str(port),
        "--workdir", tmp_path, "--tls-cert", certificate["tls_cert"],
        "--tls-key", certificate["tls_key"], "--allow-host", "scans.hospital.org",
        "--host", "0.0.0.0", "--device", "cpu", "--token-hours", "1",
    ]  # fmt: skip
    environment = os.environ | {"HEATMASK_BUNDLES": str(tmp_path / "bundles")}
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, cwd=tmp_path, env=environment
        )
    try:
        wait_for_port(port, process, log)
        client = MONAILabelClient(f"https://127.0.0.1:{port}", tmpdir=str(tmp_path))
        client.update_auth(client.auth_token("the.annotator", PASSWORD))
        assert MODEL in client.info()["models"]
        sample = client.next_sample("first", {})
        assert sample["id"] == "p1-flair"
        for host, status in (("scans.hospital.org", 200), ("evil.com", 403)):
            answer = requests.get(
                f"https://127.0.0.1:{port}/auth/", headers={"Host": host}, verify=False, timeout=60
            )
            assert answer.status_code == status
    finally:
        process.terminate()
        assert process.wait(PATIENCE_S) is not None
    text = log.read_text("utf-8")
    assert PASSWORD not in text
    assert "heatmask_" not in text  # no token


def wait_for_port(port: int, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        try:
            ssl.get_server_certificate(("127.0.0.1", port), timeout=5)
            return
        except OSError:
            time.sleep(0.3)
    pytest.fail(f"The server did not start:\n{log.read_text('utf-8')[-3000:]}")
