"""Many clients at a server for long: right answers, flat memory, and /info at once.

Run as ``PYTHONPATH=tests python benchmarks/soak_server.py --minutes 30``. Every model is asked
about every head, in the store, sent, and in a session, one request after the other. Then eight
clients ask the same in random order, fetch scans and submit labels between; each answer, a refusal
too, must be the one that came alone. Exits with 1 if one is not, if a label is lost, if memory
grows, or the start or /info is late.
"""

import argparse
import itertools
import json
import random
import re
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from phantom import STUDY_SEEDS, make_phantom, write_phantom

from helpers.server import run_server

HEADS, SHAPE, SPACING_MM = 2, (112, 128, 24), (2.0, 2.0, 6.0)
OPTIONS = ({}, {"min_volume_mm3": 0, "slice_axis": "coronal"})
WAYS = ("study", "study", "study", "sent", "session")
TIMED = {"seconds", "job"}
"""What of an answer's facts is another one each time."""
INFO_MEDIAN_S, INFO_MOST_S, START_S = 0.1, 1.0, 8.0
GROWTH = 0.05
"""By which share memory may grow from the second fifth of the time to the last."""
WAIT_S = 1800


@dataclass(frozen=True)
class Question:
    """An inference: on a study, a scan that the client sends, or one of a session."""

    model: str
    head: str
    options: str
    way: str


Answer = tuple[int, Any, bytes]
"""Status, the facts that do not depend on time or a refusal's text, and the mask's file."""


@dataclass
class Soak:
    """A running server, the answers that came alone, and what was seen since."""

    url: str
    process: int
    scans: dict[str, bytes]
    alone: dict[Question, Answer] = field(default_factory=dict)
    did: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    info_s: list[float] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def send(self, method: str, path: str, **arguments: Any) -> requests.Response:
        """Send a request, whatever the answer."""
        return requests.request(method, self.url + path, timeout=WAIT_S, **arguments)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        studies = Path(name) / "studies"
        scans, start = write_heads(studies), time.monotonic()
        with run_server(studies, None, Path(name)) as server:
            start_s = time.monotonic() - start
            print(f"first /info after {start_s:.1f} s", flush=True)
            soak = Soak(server.client.get_server_url(), server.process.pid, scans)
            ask_alone(soak)
            let_clients_in(soak, arguments)
            lost = soak.did["submit"] - sum(count_versions(soak, head) for head in scans)
            errors = server.log.read_text(encoding="utf-8").count("Internal error")
    return report(soak, start_s, lost, errors)


def write_heads(studies: Path) -> dict[str, bytes]:
    """Write synthetic heads of two sequences, every other one without a lesion; return the first.

    The second is the same head under the name of another sequence, for models that take that one.
    """
    for number in range(HEADS):
        head = make_phantom(STUDY_SEEDS[number], SHAPE, SPACING_MM, lesion=number % 2 == 0)
        folder = studies / f"h{number}"
        folder.mkdir(parents=True)
        for sequence in ("flair", "t1c"):
            write_phantom(
                head, folder / f"h{number}-{sequence}.nii.gz", folder / f"h{number}-seg.nii.gz"
            )
    flair = studies.glob("*/*-flair.nii.gz")
    return {path.name.removesuffix(".nii.gz"): path.read_bytes() for path in flair}


def ask_alone(soak: Soak) -> None:
    """Ask every question, one after the other, once the networks are loaded."""
    while not soak.send("GET", "/readyz").ok:
        time.sleep(0.5)
    models, start = soak.send("GET", "/info/").json()["models"], time.monotonic()
    combined = itertools.product(models, soak.scans, map(json.dumps, OPTIONS), sorted(set(WAYS)))
    for question in itertools.starmap(Question, combined):
        soak.alone[question] = ask(soak, question, "alone")
    took = time.monotonic() - start
    refused = sum(status != 200 for status, *_ in soak.alone.values())
    print(
        f"{len(soak.alone)} questions ({refused} refused) to {len(models)} models alone, ", end=""
    )
    print(f"{took:.0f} s", flush=True)


def ask(soak: Soak, question: Question, client: str) -> Answer:
    """Send the scan if it is not a study, ask, and take the scan back."""
    said = {"client_id": client}
    content = soak.scans[question.head]
    if question.way == "session":
        files = {"files": ("scan.nii.gz", content)}
        sent = soak.send("PUT", "/session/", files=files).json()["session_id"]
        query, end = {"session_id": sent}, (f"/session/{sent}", {})
    elif question.way == "sent":
        sent = soak.send(
            "PUT", "/datastore/image", params={"image": "6: t2_flair"},
            files={"file": ("scan.nii.gz", content)}, data={"params": json.dumps(said)},
        ).json()["image"]  # fmt: skip
        query, end = {"image": sent}, ("/datastore/image", {"id": sent, **said})
    else:
        sent, query, end = "", {"image": question.head}, None
    options = json.dumps({**json.loads(question.options), **said})
    answer = read_answer(
        soak.send("POST", f"/infer/{question.model}", params=query, data={"params": options}), sent
    )
    if end is not None:
        soak.send("DELETE", end[0], params=end[1]).raise_for_status()
    return answer


def read_answer(answer: requests.Response, sent: str) -> Answer:
    """Take an answer apart; the id of the scan that was sent is not compared."""
    if answer.status_code != 200:
        return answer.status_code, answer.text.replace(sent or " ", " "), b""
    (boundary,) = re.findall("boundary=(.+)", answer.headers["Content-Type"])
    parts = answer.content.split(f"--{boundary}".encode())[1:3]
    facts, mask = (part.split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n") for part in parts)
    facts = json.loads(facts.decode().replace(sent or " ", " "))
    return 200, {name: value for name, value in facts.items() if name not in TIMED}, mask


def let_clients_in(soak: Soak, arguments: argparse.Namespace) -> None:
    """Let clients at the server until the time is over."""
    threads = [
        threading.Thread(target=be_client, args=(soak, f"client-{number}", arguments.seed))
        for number in range(arguments.clients)
    ]
    for pause_s, look in ((0.2, time_info), (2.0, measure_memory)):
        threads.append(threading.Thread(target=watch, args=(soak, pause_s, look)))
    for thread in threads:
        thread.start()
    for minute in range(round(arguments.minutes)):
        time.sleep(60)
        print(
            f"minute {minute + 1}: {soak.did.total()} requests, {len(soak.wrong)} wrong, "
            f"{soak.memory_mb[-1]:,.0f} MB, /info at most {max(soak.info_s):.2f} s",
            flush=True,
        )
    soak.over.set()
    for thread in threads:
        thread.join()


def be_client(soak: Soak, client: str, seed: int) -> None:
    """Ask, fetch and submit until the time is over."""
    chance = random.Random(f"{seed}/{client}")
    while not soak.over.is_set():
        (doing,) = chance.choices(("infer", "sample", "submit"), weights=(8, 1, 1))
        way = chance.choice(WAYS)
        question = chance.choice([asked for asked in soak.alone if asked.way == way])
        try:
            if not DOINGS[doing](soak, question, client):
                soak.wrong.append(f"{doing}: {question} was answered otherwise")
        except (requests.RequestException, ValueError, LookupError) as error:
            soak.wrong.append(f"{doing}: {error!r}")
        soak.did[doing] += 1


def infer(soak: Soak, question: Question, client: str) -> bool:
    return ask(soak, question, client) == soak.alone[question]


def fetch_sample(soak: Soak, question: Question, client: str) -> bool:
    """Ask for the next sample, and fetch a scan."""
    wanted = {"client_id": client}
    soak.send("POST", "/activelearning/first", json=wanted).raise_for_status()
    fetched = soak.send("GET", "/datastore/image", params={"image": question.head})
    return fetched.content == soak.scans[question.head]


def submit(soak: Soak, question: Question, client: str) -> bool:
    """Submit as a label the mask that came alone."""
    masks = (mask for asked, (*_, mask) in soak.alone.items() if asked.head == question.head)
    answer = soak.send(
        "PUT", "/datastore/label", params={"image": question.head},
        files={"label": ("label.nrrd", next(filter(None, masks)))},
        data={"params": json.dumps({"client_id": client})},
    )  # fmt: skip
    return answer.json()["person"] == "anonymous"


DOINGS: dict[str, Callable[[Soak, Question, str], bool]] = {
    "infer": infer, "sample": fetch_sample, "submit": submit,
}  # fmt: skip


def watch(soak: Soak, pause_s: float, look: Callable[[Soak], None]) -> None:
    while not soak.over.wait(pause_s):
        look(soak)


def time_info(soak: Soak) -> None:
    start = time.perf_counter()
    soak.send("GET", "/info/").raise_for_status()
    soak.info_s.append(time.perf_counter() - start)


def measure_memory(soak: Soak) -> None:
    """Note what of the server's memory is in use (resident)."""
    status = Path(f"/proc/{soak.process}/status").read_text(encoding="utf-8")
    soak.memory_mb.append(int(status.split("VmRSS:")[1].split()[0]) / 1000)


def count_versions(soak: Soak, head: str) -> int:
    return len(soak.send("GET", "/datastore/label/versions", params={"image": head}).json())


def report(soak: Soak, start_s: float, lost: int, errors: int) -> int:
    """Print what was seen; return 1 if something is not as it must be."""
    info_s, memory = soak.info_s, soak.memory_mb
    fifth = max(1, len(memory) // 5)
    early, end = (statistics.median(part) for part in (memory[fifth : 2 * fifth], memory[-fifth:]))
    median, most = statistics.median(info_s), max(info_s)
    print(", ".join(f"{count} {name}" for name, count in soak.did.most_common()))
    print(f"{len(soak.wrong)} wrong, {lost} labels lost, {errors} internal errors")
    print(f"/info: {len(info_s)} times, median {median:.3f} s, at most {most:.3f} s")
    print(
        f"memory: {early:,.0f} MB in the second fifth of the time, {end:,.0f} in the last, ", end=""
    )
    print(f"at most {max(memory):,.0f}", *soak.wrong[:20], sep="\n")
    late = median > INFO_MEDIAN_S or most > INFO_MOST_S or start_s > START_S
    return int(bool(soak.wrong or lost or errors or late or end > early * (1 + GROWTH)))


if __name__ == "__main__":
    sys.exit(main())
