"""What lies in deploy/: read by those who read it in a hospital, as far as they are here."""

import re
import shlex
import shutil
import ssl
import subprocess
import tarfile
import time
from pathlib import Path

import pytest
import requests
import yaml
from monailabel.client.client import MONAILabelClient
from typer.main import get_command

from heatmask.cli import app
from heatmask.serving.access.person import Role
from heatmask.serving.access.users import open_users
from helpers.oidc import PASSWORD
from helpers.project import PROJECT
from helpers.server import find_free_port

DEPLOY = PROJECT / "deploy"
PAGES = [PROJECT / "docs/how-to/hospital.md", PROJECT / "SECURITY.md", *sorted(DEPLOY.iterdir())]


def list_options(*command: str) -> set[str]:
    found = get_command(app)
    for name in command:
        found = found.commands[name]
    return {option for parameter in found.params for option in parameter.opts} | {"--help"}


def list_commands() -> list[list[str]]:
    """Return the commands of the service and of the container."""
    service = (DEPLOY / "heatmask.service").read_text(encoding="utf-8").replace("\\\n", " ")
    (line,) = re.findall(r"^ExecStart=(.*)$", service, re.MULTILINE)
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    return [shlex.split(line), compose["services"]["heatmask"]["command"]]


@pytest.mark.parametrize("command", list_commands(), ids=["service", "compose"])
def test_the_server_is_started_with_options_that_it_has(command):
    assert Path(command[0]).name == "heatmask"
    assert command[1] == "serve"
    used = {word.partition("=")[0] for word in command if word.startswith("--")}
    assert used <= list_options("serve")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_options_that_there_are(page):
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for name, line in re.findall(r"heatmask users (\w+)(.*)", text):
        used = set(re.findall(r"--[a-z-]+", line.partition("|")[0].partition("`")[0]))
        assert used <= list_options("users", name), line
    for line in re.findall(r"heatmask serve (.*)", text):
        assert set(re.findall(r"--[a-z-]+", line.partition("`")[0])) <= list_options("serve"), line


def test_addresses_of_the_containers_agree():
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    services = compose["services"]
    address = {
        name: service["networks"]["inside"]["ipv4_address"] for name, service in services.items()
    }
    command = " ".join(services["heatmask"]["command"])
    assert f"--behind-proxy={address['proxy']}" in command
    assert f"--behind-proxy={address['prometheus']}" in command
    assert f"http://{address['heatmask']}:8000;" in (DEPLOY / "nginx.conf").read_text("utf-8")
    assert "ports" not in services["heatmask"]
    scrape = yaml.safe_load((DEPLOY / "prometheus.yml").read_text(encoding="utf-8"))
    (target,) = scrape["scrape_configs"][0]["static_configs"][0]["targets"]
    assert f"--allow-host={target.partition(':')[0]}" in command


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_the_service_is_one_for_systemd(tmp_path):
    unit = (DEPLOY / "heatmask.service").read_text(encoding="utf-8")
    python = shutil.which("python3") or "/usr/bin/python3"
    unit = unit.replace("/opt/heatmask/venv/bin/heatmask", python).replace("User=heatmask", "")
    (tmp_path / "heatmask.service").write_text(unit.replace("Group=heatmask", ""), "utf-8")
    result = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / "heatmask.service"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert "heatmask.service" not in result.stderr, result.stderr
    assert result.returncode == 0, result.stderr


def test_a_backup_brings_labels_users_and_audit_log_back(tmp_path):
    work = tmp_path / "work"
    users = open_users(work)
    users.add("anna", Role.ADMIN, PASSWORD)
    token = users.make_token("anna", "script", 1)
    (work / "access/audit.jsonl").write_text("{}\n", "utf-8")
    store = work / "scans-1a2b/store"
    kept = [
        "labels/p1/final/1/mask.nii.gz", "labels/p1/final/1/about.json", "about/p1.json",
        "sent/drafts/scan.nii.gz", "labels/sent/final/1/mask.nii.gz",
    ]  # fmt: skip
    for name in (*kept, "drafts/x/mask.nii.gz"):
        (store / name).parent.mkdir(parents=True, exist_ok=True)
        (store / name).write_text(name, "utf-8")
    (work / "scans-1a2b/p1.nii.gz").symlink_to("/studies/p1.nii.gz")
    result = subprocess.run(
        ["sh", DEPLOY / "backup.sh", work, tmp_path / "backups"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    (file,) = (tmp_path / "backups").iterdir()
    assert result.stdout.strip() == str(file)
    assert file.stat().st_mode & 0o077 == 0

    restored = tmp_path / "restored"
    with tarfile.open(file) as archive:
        archive.extractall(restored, filter="fully_trusted")
    again = restored / "scans-1a2b/store"
    for name in kept:
        assert (again / name).read_text("utf-8") == name
    assert not (again / "drafts").exists()
    assert (restored / "access/audit.jsonl").exists()
    found = open_users(restored).find(token)
    assert found is not None
    assert found.role is Role.ADMIN


def test_a_backup_of_a_folder_that_is_none_fails(tmp_path):
    result = subprocess.run(
        ["sh", DEPLOY / "backup.sh", tmp_path / "missing", tmp_path / "backups"],
        capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert result.returncode != 0
    assert not list(tmp_path.glob("backups/*"))


@pytest.fixture
def nginx(tmp_path, certificate):
    """Return a function that starts nginx by deploy/nginx.conf in front of a port."""
    if not shutil.which("nginx"):
        pytest.skip("needs nginx")
    running: list[subprocess.Popen] = []

    def run(server: int) -> int:
        port = find_free_port()
        text = (DEPLOY / "nginx.conf").read_text(encoding="utf-8")
        for old, new in {
            "/etc/nginx/tls/cert.pem": str(certificate["tls_cert"]),
            "/etc/nginx/tls/key.pem": str(certificate["tls_key"]),
            "172.28.0.10:8000": f"127.0.0.1:{server}",
            "listen 443": f"listen 127.0.0.1:{port}",
            "/tmp/nginx.pid": str(tmp_path / "nginx.pid"),
        }.items():
            assert old in text
            text = text.replace(old, new)
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"):
            text = text.replace("http {", f"http {{ {kind}_temp_path {tmp_path / kind};", 1)
        (tmp_path / "nginx.conf").write_text(text, "utf-8")
        running.append(
            subprocess.Popen(
                ["nginx", "-p", tmp_path, "-c", tmp_path / "nginx.conf", "-e", "stderr",
                 "-g", "daemon off;"]
            )
        )  # fmt: skip
        for _ in range(100):
            try:
                ssl.get_server_certificate(("127.0.0.1", port), timeout=5)
                return port
            except OSError:
                time.sleep(0.1)
        pytest.fail("nginx did not start")

    yield run
    for process in running:
        process.terminate()
        process.wait(timeout=60)


def test_through_nginx_the_plugin_logs_in(start, users, nginx, tmp_path):
    site = start(proxies=("127.0.0.1",), allowed_hosts=("scans.hospital.org",))
    port = nginx(int(site.url.rpartition(":")[2]))
    client = MONAILabelClient(f"https://127.0.0.1:{port}", tmpdir=str(tmp_path))
    assert client.auth_enabled()
    client.update_auth(client.auth_token("the.reviewer", PASSWORD))
    assert client.info()["person"] == "the.reviewer"

    def ask(method: str = "GET", path: str = "/auth/", **headers: str) -> int:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return requests.request(
            method, f"https://127.0.0.1:{port}{path}", headers=names, verify=False, timeout=60
        ).status_code

    assert ask(Host="scans.hospital.org", Origin="https://scans.hospital.org") == 200
    assert ask(Host="evil.com") == 403
    assert ask("POST", Host="scans.hospital.org", Origin="https://evil.com") == 403
    assert ask(path="/metrics") == 404
    # Nobody can claim to come from elsewhere, or unencrypted.
    assert ask(X_Forwarded_Proto="http", X_Forwarded_For="10.0.0.1") == 200
    data = {"username": "the.admin", "password": "wrong horse battery"}
    requests.post(
        f"https://127.0.0.1:{port}/auth/token", data=data, verify=False, timeout=60,
        headers={"X-Forwarded-For": "10.0.0.1"},
    )  # fmt: skip
    assert '"address": "127.0.0.1"' in site.audit.path.read_text("utf-8").splitlines()[-1]
