"""The queue: its end, progress, stopping, time limits; many clients at once."""

import itertools
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

from heatmask.serving.web.jobs import Job, JobError, Jobs, State
from heatmask.serving.web.limits import Limits
from heatmask.serving.web.metrics import Metrics
from helpers.server import MODEL
from helpers.serving_stub import write_scan
from helpers.waiting import PATIENCE_S, wait_until
from helpers.web import HELD_IMAGES, SLOW, Web, run_web


@pytest.fixture
def jobs():
    made = Jobs(1, Limits(queue=2), Metrics())
    yield made
    made.stop()
    assert made.join(PATIENCE_S)


def run_until_told_to_stop(job: Job) -> None:
    for step in itertools.count():
        job.tell(step, 1000)
        time.sleep(0.01)


def test_the_queue_has_an_end_and_what_nobody_waits_for_comes_last(jobs: Jobs) -> None:
    release, order = threading.Event(), []
    first = jobs.submit(lambda job: release.wait(PATIENCE_S), "a", "m")
    wait_until(lambda: first.state is State.RUNNING)
    patient = [
        jobs.submit(lambda job: order.append("patient"), "a", "m", urgent=False) for _ in range(5)
    ]
    urgent = [jobs.submit(lambda job: order.append("urgent"), "a", "m") for _ in range(2)]
    with pytest.raises(JobError, match="2 inferences wait already") as refused:
        jobs.submit(lambda job: None, "a", "m")
    assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "10"})
    release.set()
    for job in (*patient, *urgent):
        job.future.result(PATIENCE_S)
    assert order == ["urgent"] * 2 + ["patient"] * 5
    assert jobs.list_open() == []


def test_what_is_quick_waits_for_no_run_and_has_a_queue_of_its_own(jobs: Jobs) -> None:
    release = threading.Event()
    for _ in range(3):  # one runs, two wait: the queue of the others is full
        jobs.submit(lambda job: release.wait(PATIENCE_S), "a", "m")
        wait_until(lambda: jobs.count(State.RUNNING) == 1)
    assert jobs.submit(lambda job: 7, "a", "m", quick=True).future.result(PATIENCE_S) == 7
    for _ in range(2):
        jobs.submit(lambda job: release.wait(PATIENCE_S), "a", "m", quick=True)
    wait_until(lambda: jobs.count(State.RUNNING) == 3)
    for _ in range(2):
        jobs.submit(lambda job: None, "a", "m", quick=True)
    with pytest.raises(JobError, match="2 inferences wait already"):
        jobs.submit(lambda job: None, "a", "m", quick=True)
    release.set()


def test_a_job_that_waits_is_dropped_and_one_that_runs_stops(jobs: Jobs) -> None:
    running = jobs.submit(run_until_told_to_stop, "a", "m", "mine")
    waiting = jobs.submit(lambda job: pytest.fail("was stopped"), "a", "m")
    wait_until(lambda: running.done > 3)
    assert jobs.get("mine").describe()["state"] == "running"
    waiting.stop(JobError(410, "stopped"))
    assert waiting.state is State.STOPPED
    running.stop(JobError(410, "stopped"))
    with pytest.raises(JobError, match="stopped"):
        running.future.result(PATIENCE_S)
    assert running.state is State.STOPPED
    assert jobs.submit(lambda job: 5, "a", "m").future.result(PATIENCE_S) == 5


def test_a_job_that_takes_too_long_stops() -> None:
    jobs = Jobs(1, Limits(seconds=0.2), Metrics())
    with pytest.raises(JobError, match="too long") as error:
        jobs.submit(run_until_told_to_stop, "a", "m").future.result(PATIENCE_S)
    assert error.value.status == 504
    jobs.stop()
    assert jobs.join(PATIENCE_S)


def test_an_id_is_taken_once_and_errors_are_kept(jobs: Jobs) -> None:
    def fail(job: Job) -> None:
        raise ValueError("a reason")

    job = jobs.submit(fail, "a", "m", "mine")
    with pytest.raises(ValueError, match="a reason"):
        job.future.result(PATIENCE_S)
    assert job.state is State.FAILED
    with pytest.raises(JobError, match="taken"):
        jobs.submit(fail, "a", "m", "mine")


def test_what_comes_while_the_server_ends_is_not_left_waiting(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The workers have gone by the time it is in their queue."""

    def end_first(quick: bool) -> int:
        jobs.stop()
        assert jobs.join(PATIENCE_S)
        return 0

    monkeypatch.setattr(jobs, "_count_waiting", end_first)
    job = jobs.submit(lambda job: pytest.fail("no worker is left"), "a", "m")
    with pytest.raises(JobError, match="The server ends"):
        job.future.result(PATIENCE_S)


def infer(web: Web, model: str, params: str = "{}", image: str = "p1-flair") -> requests.Response:
    return requests.post(
        f"{web.url}/infer/{model}?image={image}", data={"params": params}, timeout=300
    )


def test_what_is_known_of_a_scan_waits_for_no_run(own_web: Web) -> None:
    """Another mask, another view of the heatmap, an edit: none of them needs the network."""
    infer(own_web, MODEL).raise_for_status()
    with ThreadPoolExecutor() as pool, own_web.slow.hold():
        running = pool.submit(infer, own_web, SLOW, '{"job": "endless"}')
        assert own_web.slow.running.wait(PATIENCE_S)
        for model, params in (
            (MODEL, '{"threshold_rule": "fixed", "threshold_level": 0.3}'),
            (f"{MODEL}_levels", "{}"),
            (f"{MODEL}_heatmap", "{}"),
            (f"{MODEL}_clicks", '{"label": "tumour", "foreground": [[8, 14, 36]]}'),
        ):
            assert infer(own_web, model, params).status_code == 200
        assert own_web.send("GET", "/jobs/endless").json()["state"] == "running"
        waiting = pool.submit(infer, own_web, MODEL, "{}", "p2-flair")
        wait_until(lambda: own_web.serving.jobs.count(State.QUEUED) == 1)
        assert not waiting.done(), "a scan that the model has not seen needs the network"
        own_web.send("DELETE", "/jobs/endless")
        assert (running.result().status_code, waiting.result().status_code) == (410, 200)


def test_progress_is_told_by_the_clients_own_id(own_web: Web) -> None:
    with ThreadPoolExecutor(1) as pool:
        with own_web.slow.hold():
            answer = pool.submit(infer, own_web, SLOW, '{"job": "mine-1"}')
            wait_until(lambda: own_web.send("GET", "/jobs/mine-1").status_code == 200)
            wait_until(lambda: own_web.send("GET", "/jobs/mine-1").json()["done"] > 5)
            job = own_web.send("GET", "/jobs/mine-1").json()
            assert (job["state"], job["total"], job["model"]) == ("running", HELD_IMAGES, SLOW)
        assert answer.result().status_code == 200
    job = own_web.send("GET", "/jobs/mine-1").json()
    assert (job["state"], job["done"]) == ("done", job["total"])
    assert infer(own_web, MODEL, '{"job": "mine-1"}').status_code == 409


def test_a_job_is_stopped_by_its_id(own_web: Web) -> None:
    with ThreadPoolExecutor(1) as pool, own_web.slow.hold():
        answer = pool.submit(infer, own_web, SLOW, '{"job": "mine"}')
        assert own_web.slow.running.wait(PATIENCE_S)
        assert own_web.send("DELETE", "/jobs/mine").ok
        assert (answer.result().status_code, answer.result().text) == (
            410, "The inference was stopped.",
        )  # fmt: skip
    assert own_web.slow.finished == []


def test_who_waits_is_told_at_once_that_the_server_ends(own_web: Web) -> None:
    """A batch that took longer than the server's last second was answered 500."""
    with ThreadPoolExecutor() as pool, own_web.slow.hold(deaf=True):
        answer = pool.submit(own_web.send, "POST", f"/infer/{SLOW}?image=p1-flair")
        assert own_web.slow.running.wait(PATIENCE_S)
        own_web.serving.stop()
        assert (answer.result().status_code, answer.result().text) == (503, "The server ends.")
        assert own_web.slow.finished == []


def abandon(web: Web, model: str) -> None:
    """Ask for an inference, and go once it has its place in the queue."""
    host, port = web.url.removeprefix("http://").split(":")
    before = len(web.serving.jobs.list_open())
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST /infer/{model}?image=p1-flair HTTP/1.1\r\nHost: {host}\r\n"
        connection.sendall(head.encode() + b"Content-Length: 0\r\n\r\n")
        wait_until(lambda: len(web.serving.jobs.list_open()) > before)


def test_who_goes_in_the_middle_is_stopped(own_web: Web) -> None:
    with own_web.slow.hold():
        abandon(own_web, SLOW)
        assert own_web.slow.running.wait(PATIENCE_S)
        assert infer(own_web, MODEL).status_code == 200
    assert (own_web.slow.begun, own_web.slow.finished) == (["p1-flair.nii.gz"], [])
    assert not list(own_web.serving.tmp.iterdir())


def test_who_goes_before_the_turn_is_dropped(own_web: Web) -> None:
    with ThreadPoolExecutor(1) as pool:
        with own_web.slow.hold():
            staying = pool.submit(infer, own_web, SLOW)
            assert own_web.slow.running.wait(PATIENCE_S)
            abandon(own_web, SLOW)
            wait_until(lambda: own_web.serving.jobs.count(State.STOPPED) == 1)
        assert staying.result().status_code == 200
    assert len(own_web.slow.begun) == 1
    assert not list(own_web.serving.tmp.iterdir())


def test_a_full_queue_says_when_to_come_again(tmp_path: Path) -> None:
    with run_web(tmp_path, replace(Limits(), queue=2)) as web, ThreadPoolExecutor(3) as pool:
        with web.slow.hold():
            running = pool.submit(infer, web, SLOW)
            assert web.slow.running.wait(PATIENCE_S)
            waiting = [pool.submit(infer, web, SLOW) for _ in range(2)]
            wait_until(lambda: web.serving.jobs.count(State.QUEUED) == 2)
            for _ in range(3):
                refused = infer(web, SLOW)
                assert (refused.status_code, refused.headers["Retry-After"]) == (503, "10")
        assert {answer.result().status_code for answer in (running, *waiting)} == {200}
        assert not list(web.serving.tmp.iterdir())


def test_an_inference_that_takes_too_long_is_told_so(tmp_path: Path) -> None:
    with run_web(tmp_path, replace(Limits(), seconds=0.2)) as web, web.slow.hold():
        answer = infer(web, SLOW)
        assert (answer.status_code, "took too long" in answer.text) == (504, True)
        assert not list(web.serving.tmp.iterdir())


def test_eight_clients_at_once_get_what_one_alone_gets(own_web: Web, tmp_path: Path) -> None:
    requests_ = [
        (MODEL, params, image)
        for params in ("{}", '{"slice_axis": "coronal"}', '{"gate": false, "threshold_level": 0.7}')
        for image in ("p1-flair", "p2-flair")
    ] * 4

    def ask(wanted: tuple[str, str, str]) -> bytes:
        model, params, image = wanted
        path = f"{own_web.url}/infer/{model}?image={image}&output=image"
        answer = requests.post(path, data={"params": params}, timeout=300)
        answer.raise_for_status()
        return answer.content

    alone = [ask(wanted) for wanted in requests_[:6]] * 4
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(ask, requests_))
    assert together == alone
    assert not list(own_web.serving.tmp.iterdir())


def test_info_is_answered_beside_eight_inferences(own_web: Web) -> None:
    """How soon, `make soak` measures: here others share the processor."""
    with ThreadPoolExecutor(8) as pool:
        with own_web.slow.hold():
            running = pool.submit(infer, own_web, SLOW)
            assert own_web.slow.running.wait(PATIENCE_S)
            waiting = [pool.submit(infer, own_web, SLOW if n % 2 else MODEL) for n in range(7)]
            wait_until(lambda: own_web.serving.jobs.count(State.QUEUED) == 7)
            for _ in range(20):
                own_web.send("GET", "/info/").raise_for_status()
            assert own_web.serving.jobs.count(State.QUEUED) == 7
        assert {answer.result().status_code for answer in (running, *waiting)} == {200}


def wait_for_batch(web: Web) -> dict:
    wait_until(lambda: web.send("GET", "/batch/infer/").json()["status"] != "RUNNING")
    return web.send("GET", "/batch/infer").json()


@pytest.mark.fault("E")
def test_batch_labels_are_seen_at_once_and_a_damaged_scan_stops_nothing(own_web: Web) -> None:
    scan = own_web.studies / "p1/p1-flair.nii.gz"
    scan.write_bytes(scan.read_bytes()[:9000])
    started = own_web.send("POST", f"/batch/infer/{MODEL}", json={"label_tag": "original"}).json()
    assert (started["status"], started["total"]) == ("RUNNING", 2)
    assert own_web.send("GET", "/batch/infer/?check_if_running=true").status_code in (200, 404)
    status = wait_for_batch(own_web)
    assert (status["status"], status["done"]) == ("DONE", 2)
    end = status["details"][-1]
    assert "1 of 2 images failed, the labels of the others are stored. p1-flair: " in end
    assert "is cut off or damaged" in end
    assert str(own_web.studies) not in end
    objects = own_web.client.datastore()["objects"]
    assert [set(objects[i]["labels"]) for i in ("p1-flair", "p2-flair")] == [set(), {"original"}]
    assert not list(own_web.serving.tmp.iterdir())


def test_a_batch_that_is_stopped_while_it_takes_its_next_image_stops(
    own_web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = own_web.serving.jobs.submit

    def submit_and_stop(*arguments: Any, **options: Any) -> Job:
        job = submit(*arguments, **options)
        own_web.serving.batch.stop()
        return job

    monkeypatch.setattr(own_web.serving.jobs, "submit", submit_and_stop)
    with own_web.slow.hold():
        own_web.send("POST", f"/batch/infer/{SLOW}", json={}).raise_for_status()
        assert wait_for_batch(own_web)["status"] == "STOPPED"
    assert own_web.slow.finished == []


def test_batch_gives_way_and_is_stopped(own_web: Web) -> None:
    for number in range(4):
        write_scan(own_web.studies / f"q{number}" / f"q{number}-flair.nii.gz")
    with ThreadPoolExecutor(1) as pool, own_web.slow.hold():
        own_web.send("POST", f"/batch/infer/{SLOW}?images=unlabeled", json={}).raise_for_status()
        assert own_web.send("POST", f"/batch/infer/{MODEL}").status_code == 429
        assert own_web.slow.running.wait(PATIENCE_S)
        inference = pool.submit(infer, own_web, MODEL)
        wait_until(lambda: own_web.serving.jobs.count(State.QUEUED) == 1)
        own_web.slow.let_one_pass()
        assert inference.result().status_code == 200
        wait_until(lambda: own_web.send("GET", "/batch/infer").json()["done"] == 1)
        assert own_web.send("DELETE", "/batch/infer/").ok
        assert wait_for_batch(own_web)["status"] == "STOPPED"
        assert own_web.send("DELETE", "/batch/infer").json() is None
    assert len(own_web.slow.finished) == 1
