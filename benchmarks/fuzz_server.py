"""Fuzz every route of a real server, and look at what it did to the disk.

Run as ``PYTHONPATH=tests python benchmarks/fuzz_server.py --requests 20000``. Requests come from
hypothesis, with bodies and damaged files, and from schemathesis, from the application's own schema;
several clients send them at once, and the server is started anew on what they left. An audit hook
in the server writes down every file that is opened to be written, changed or removed outside its
work folder, every read of a folder that is nobody's business, and every process that it starts.
Exits with 1 at an answer with 500 or a path of the server, one that takes too long, a file
touched, a study changed, anything left of a request, or memory above its bound.
"""

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from heatmask.serving.web import create_app
from helpers.fuzz_files import make_volumes
from helpers.fuzz_requests import LONGEST_S, list_routes, make_attempts, send
from helpers.server import MODEL, run_server
from helpers.serving_stub import write_bundle, write_scan
from helpers.web import run_web

CLIENTS, MEMORY_MB = 3, 3000
WATCH = """
import os, sys
_log = os.open({log!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
_work, _secret = {work!r}, {secret!r}
_changes = {{"os.remove": 1, "os.rename": 2, "os.mkdir": 1, "os.rmdir": 1, "os.symlink": 2,
            "os.link": 2, "os.chmod": 1, "os.chown": 1, "os.truncate": 1, "os.utime": 1}}
_processes = "subprocess.Popen os.system os.exec os.posix_spawn os.fork pty.spawn".split()
def _place(path, folder=-1):
    path = os.fsdecode(path)
    if isinstance(folder, int) and folder >= 0:
        path = os.path.join(os.readlink(f"/proc/self/fd/{{folder}}"), path)
    return os.path.abspath(path)
def _watch(event, given):
    if event == "open" and not isinstance(given[0], int):
        path, flags = _place(given[0]), given[2] or 0
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        if path.startswith(_secret) or writes and not path.startswith((_work, "/dev/null")):
            os.write(_log, f"open {{path}}\\n".encode())
    elif event in _changes:
        for n in range(_changes[event]):
            if isinstance(given[n], int) or event == "os.symlink" and n == 0:
                continue
            folder = given[-1] if event in ("os.remove", "os.rmdir", "os.mkdir") else -1
            path = _place(given[n], folder)
            if not path.startswith(_work):
                os.write(_log, f"{{event}} {{path}}\\n".encode())
    elif event in _processes:
        os.write(_log, f"{{event}} {{given!r}}\\n".encode())
sys.addaudithook(_watch)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000, help="of both kinds together")
    parser.add_argument("--rounds", type=int, default=4, help="starts of the server")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    begin, seen, faults = time.monotonic(), Counter(), []
    slowest_s = most_mb = 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        routes, schema = read_routes(folder / "schema")
        prelude = prepare(folder)
        before = read_files(folder)
        for number in range(arguments.rounds):
            with run_server(
                folder / "studies", folder / "bundles", folder, prelude=prelude
            ) as server:
                url = server.client.get_server_url()
                while not requests.get(f"{url}/readyz", timeout=60).ok:
                    time.sleep(0.2)
                (folder / "touched").write_text("", encoding="utf-8")  # what the start did
                share = arguments.requests // arguments.rounds // (CLIENTS + 1)
                jobs = [
                    (url, routes, schema, share, arguments.seed + 100 * number + client)
                    for client in range(CLIENTS + 1)
                ]
                with multiprocessing.get_context("fork").Pool(len(jobs)) as pool:
                    for statuses, took_s, fault in pool.starmap(attack, jobs):
                        seen += statuses
                        slowest_s = max(slowest_s, took_s)
                        faults += [fault] if fault else []
                requests.delete(f"{url}/batch/infer/", timeout=60)
                requests.get(f"{url}/info/", timeout=60).raise_for_status()
                most_mb = max(most_mb, measure_memory(server.process.pid))
                faults += [f"left: {path}" for path in server.work.glob("*/store/tmp/*")]
                log = server.log.read_text(encoding="utf-8")
            faults += [line for line in log.splitlines() if "Internal error" in line][:5]
            faults += (folder / "touched").read_text(encoding="utf-8").splitlines()[:20]
            print(f"round {number + 1}: {seen.total()} requests, {len(faults)} faults", flush=True)
        if read_files(folder) != before:
            faults.append("a study, or a file beside the work folder, is not as it was")
    faults += [f"memory: {most_mb:,.0f} MB"] if most_mb > MEMORY_MB else []
    statuses = ", ".join(f"{count} x {status}" for status, count in sorted(seen.items()))
    print(f"{seen.total()} requests in {time.monotonic() - begin:.0f} s: {statuses}")
    print(f"slowest answer {slowest_s:.1f} s, memory at most {most_mb:,.0f} MB")
    print(f"{len(faults)} faults", *faults[:20], sep="\n")
    return int(bool(faults))


def read_routes(folder: Path) -> tuple[list[tuple[str, str]], str]:
    """Return all routes of the application, and its schema."""
    with run_web(folder) as web:
        app = create_app(web.serving)
        return list_routes(app), json.dumps(app.openapi())


def prepare(folder: Path) -> str:
    """Write studies, a bundle, and a folder that is nobody's business; return the audit hook."""
    write_bundle(folder / "bundles" / MODEL)
    for patient in ("p1", "p2"):
        write_scan(folder / "studies" / patient / f"{patient}-flair.nii.gz", patient == "p1")
    write_scan(folder / "secret" / "scan.nii.gz")
    places = {"log": "touched", "work": "work", "secret": "secret"}
    return WATCH.format(**{name: str(folder / place) for name, place in places.items()})


def read_files(folder: Path) -> dict[Path, bytes]:
    """Return the content of all that the server must leave alone."""
    places = (folder / name for name in ("studies", "secret", "bundles"))
    files = (path for place in places for path in place.rglob("*") if path.is_file())
    return {path: path.read_bytes() for path in files}


def attack(
    url: str, routes: list[tuple[str, str]], schema: str, count: int, number: int
) -> tuple[Counter[str], float, str]:
    """Send requests, every last client of a round those of schemathesis; return what was seen.

    That is how often each status came, the longest time for an answer, and the fault that ended
    it early, if there was one.
    """
    seen: Counter[str] = Counter()
    times = [0.0]
    limits = settings(
        max_examples=count, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck), print_blob=False,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        attempts = make_attempts(routes, make_volumes(Path(name)))
    from_schema = number % 100 == CLIENTS

    @seed(number)
    @limits
    @given(_make_cases(schema) if from_schema else attempts)
    def try_one(drawn) -> None:
        start = time.monotonic()
        try:
            if from_schema:
                answer = drawn.call(base_url=url, timeout=LONGEST_S)
                status = answer.status_code
                if status == 500:
                    raise AssertionError(answer.text)
            else:
                status = send(url, drawn)[0]
        except Exception as error:
            raise AssertionError(f"{error!r:.500} at {drawn!r:.1500}") from error
        seen[str(status)] += 1
        times.append(time.monotonic() - start)

    try:
        try_one()
    except AssertionError as error:
        return seen, max(times), str(error)
    return seen, max(times), ""


def _make_cases(schema: str) -> st.SearchStrategy[schemathesis.Case]:
    """Return requests that fit the schema, and requests that do not."""
    found = schemathesis.openapi.from_dict(json.loads(schema)).get_all_operations()
    return st.one_of(
        operation.ok().as_strategy(generation_mode=mode)
        for operation in found
        for mode in schemathesis.GenerationMode
    )


def measure_memory(process: int) -> float:
    """Return the most memory (MB) that a process had in use."""
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) / 1000


if __name__ == "__main__":
    sys.exit(main())
