"""What there is, what there is not, and what a wrong request is told."""

import json
import logging

import pytest
import requests

from helpers.server import MODEL
from helpers.waiting import wait_until
from helpers.web import Web


@pytest.mark.parametrize(
    "path",
    [
        "/docs", "/redoc", "/openapi.json", "/reload", "/logs/", "/logs/gpu", "/proxy/dicom/a",
        "/datastore/dataset", "/datastore/updatelabelinfo", "/model/" + MODEL, "/scoring/x",
        "/infer/wsi/x", "/ohif/", "/static/x", "/favicon.ico", "/monai", "//info/", "/info//",
        "/batch/infer/x/y",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
def test_what_no_client_needs_does_not_exist(web: Web, method: str, path: str) -> None:
    """Findings 2 and 11: /reload, /model, /proxy, /logs, /datastore/dataset."""
    assert web.send(method, path).status_code == 404


def test_no_page_of_elsewhere_starts_work_or_reads(web: Web) -> None:
    """Finding 9."""
    for headers in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}):
        for method, path in (
            ("POST", f"/infer/{MODEL}?image=p1-flair"),
            ("POST", f"/batch/infer/{MODEL}"),
            ("POST", "/activelearning/random"),
            ("GET", "/info/"),
            ("GET", "/"),
        ):
            assert web.send(method, path, headers=headers).status_code == 403
    answer = web.send("OPTIONS", "/info/", headers={"Access-Control-Request-Method": "GET"})
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    assert web.serving.batch is None


@pytest.mark.parametrize(
    "params", ["{", "null1", "1", "[]", '"x"', '{"a": NaN}', '{"a": 1e999}', '{"a": "\\ud800"}',
               "[" * 100_000, '{"client_id": 5}', '{"result_dtype": "int64"}',
               '{"result_extension": ".exe"}',
               '{"job": "a b"}', '{"label_tag": "final", "save_label": true}', '{"job": ""}',
               '{"client_id": "' + "x" * 300 + '"}'],
)  # fmt: skip
def test_wrong_params_of_an_inference_are_refused_with_what_is_allowed(
    web: Web, params: str
) -> None:
    """Findings 5 and 13."""
    answer = web.send("POST", f"/infer/{MODEL}?image=p1-flair", files={"params": (None, params)})
    assert answer.status_code == 422
    assert len(answer.text) > 20
    assert "Traceback" not in answer.text
    assert "literal" not in answer.text, "a word of the types"


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("POST", "/infer/other?image=p1-flair", 404, MODEL),
        ("POST", f"/infer/{MODEL}?image=nobody", 404, "must be one of the 2 that the server lists"),
        ("POST", f"/infer/{MODEL}?image={'x' * 400}", 422, "image: "),
        ("POST", f"/infer/{MODEL}", 422, "Name an image"),
        ("POST", f"/infer/{MODEL}?image=/etc/passwd", 404, "must be one of the 2"),
        ("POST", f"/infer/{MODEL}?image=../../etc/passwd", 404, "must be one of the 2"),
        ("POST", f"/infer/{MODEL}?image=p1-flair&output=dicom_seg", 422, "'all', 'image'"),
        ("POST", f"/infer/{MODEL}?session_id=/tmp", 404, "open a new session"),
        ("POST", "/activelearning/other", 404, "random, first"),
        ("POST", f"/activelearning/{'x' * 300}", 422, "strategy: "),
        ("GET", "/datastore/?output=train", 422, "'all' or 'stats'"),
        ("GET", "/datastore/label?label=p1-flair&tag=" + "x" * 300, 422, "'final' or 'original'"),
        ("GET", "/datastore/label?label=p1-flair&tag=final", 404, "no label"),
        ("HEAD", "/datastore/label?image=p1-flair&tag=final", 404, ""),
        ("HEAD", "/datastore/image?image=nobody", 404, ""),
        ("HEAD", "/datastore/image?image=p1-flair&check_sum=SHA256:00", 404, ""),
        ("GET", "/datastore/image/info?image=nobody", 404, "must be one of the 2"),
        ("PUT", "/datastore/image", 400, "must hold a file in the form field 'file'"),
        ("PUT", "/datastore/label?image=p1-flair&tag=other", 422, "tag must be final"),
        ("DELETE", "/datastore/image?id=p2-flair", 400, "is not deleted from here"),
        ("DELETE", "/datastore/label?id=p1-flair&tag=final", 404, "no label"),
        ("POST", "/datastore/label/restore?image=p1-flair&number=7", 404, "The version must be"),
        ("GET", "/session/none", 404, "open a new session"),
        ("PUT", "/session/?uncompress=true", 422, "must be false"),
        ("PUT", "/session/?expiry=-1", 422, "expiry: "),
        ("GET", "/batch/infer/", 404, "No batch inference"),
        ("POST", "/batch/infer/other", 404, MODEL),
        ("POST", f"/batch/infer/{MODEL}?images=some", 422, "'all', 'labeled' or 'unlabeled'"),
        ("GET", "/train/?check_if_running=true", 404, "No training"),
        ("POST", "/train/x", 404, MODEL),
        ("POST", f"/train/{MODEL}", 400, "At least two patients"),
        ("GET", "/train/", 404, "No training has run"),
        ("GET", "/jobs/none", 404, "no such job"),
        ("DELETE", "/jobs/none", 404, "no such job"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_told_what_is_allowed(
    web: Web, method: str, path: str, status: int, text: str
) -> None:
    answer = web.send(method, path)
    assert (answer.status_code, text in answer.text) == (status, True), answer.text


def test_bodies_that_are_no_forms_are_refused(web: Web) -> None:
    path = f"/infer/{MODEL}?image=p1-flair"
    multipart = {"Content-Type": "multipart/form-data; boundary=x"}
    for headers, body in (
        ({"Content-Type": "application/json"}, b"{}"),
        (multipart, b"--x\r\nrubbish"),
        (multipart, b"--x\r\nContent-Disposition: form-data; name=params\r\n\r\n{}"),
        ({"Content-Type": "multipart/form-data"}, b"--x--"),
        ({"Content-Type": "multipart/form-data; boundary=" + "y" * 300}, b"--x--"),
        (multipart, b"--x\r\nContent-Disposition: form-data; name=params\r\n\r\n\xff\r\n--x--\r\n"),
    ):
        answer = web.send("POST", path, data=body, headers=headers)
        assert answer.status_code == 400, (body, answer.text)


def test_samples_take_json_alone(web: Web) -> None:
    for body in ("{", "[1]", '{"client_id": [1]}', '{"a": Infinity}'):
        assert web.send("POST", "/activelearning/first", data=body).status_code == 422
    assert web.send("POST", "/activelearning/first", data="").status_code == 200


def test_what_nobody_foresaw_gets_a_number_and_no_text(
    web: Web, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise RuntimeError("/secret/path")

    monkeypatch.setattr(web.serving.store, "status", fail)
    answer = requests.get(f"{web.url}/datastore/", timeout=60)
    assert answer.status_code == 500
    assert answer.text.startswith("Internal error, number ")
    number = answer.text.split()[3].rstrip(".")
    assert "/secret" not in answer.text
    assert number in caplog.text
    assert "/secret/path" in caplog.text


def test_the_page_needs_nothing_from_elsewhere(web: Web) -> None:
    answer = web.send("GET", "/")
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    for text in ("<script", "src=", "href=", "url(", "@import"):
        assert text not in answer.text
    for text in (MODEL, "Nobody&#39;s data: free, non-commercial.", web.url, "0 of 2 have"):
        assert text in answer.text


def test_health_readiness_and_numbers(own_web: Web) -> None:
    assert own_web.send("GET", "/healthz").json() == {"status": "ok"}
    assert own_web.send("GET", "/readyz").status_code == 503, "no network is loaded yet"
    own_web.serving.app.loading.run()
    assert own_web.send("GET", "/readyz").json() == {"ready": True, "models": 2, "failed": []}
    own_web.send("POST", f"/infer/{MODEL}?image=p1-flair").raise_for_status()
    answered = 'route="/infer/{model}",status="200"} 1.0'  # counted after the answer has gone out
    wait_until(lambda: answered in own_web.send("GET", "/metrics").text)
    numbers = own_web.send("GET", "/metrics").text
    assert 'heatmask_jobs_total{state="done"} 1.0' in numbers
    assert "heatmask_images 2.0" in numbers
    assert "p1-flair" not in numbers


def test_a_model_with_wrong_weights_is_taken_out(own_web: Web) -> None:
    weights = own_web.serving.app.models[MODEL]._bundle.folder / "models/model.pt"
    weights.write_bytes(b"none")
    own_web.serving.app.loading.run()
    ready = own_web.send("GET", "/readyz")
    assert (ready.status_code, ready.json()["failed"]) == (200, [MODEL])
    assert MODEL not in own_web.client.info()["models"]
    assert f"Not served: {MODEL}" in own_web.send("GET", "/").text


def wait_for_line(caplog: pytest.LogCaptureFixture, path: str) -> logging.LogRecord:
    """Return the log's line of a request. It is written after the answer has gone out."""

    def find() -> logging.LogRecord | None:
        lines = (r for r in list(caplog.records) if r.name.endswith("requestlog"))
        return next((line for line in lines if line.path.startswith(path)), None)

    return wait_until(find)


def test_a_request_cannot_forge_a_line_of_the_log(
    web: Web, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "heatmask"):
        web.send("GET", "/x%0a2026-11-29%20INFO%20PUT%20/datastore/label%20200%1b[31m")
        record = wait_for_line(caplog, "/x%0A")
    assert record.getMessage().isprintable()


def test_the_log_has_a_line_a_request_without_names(
    web: Web, caplog: pytest.LogCaptureFixture
) -> None:
    from heatmask.serving.log import JsonFormatter

    with caplog.at_level("INFO", "heatmask"):
        web.send("GET", "/datastore/image/info?image=p1-flair")
        record = wait_for_line(caplog, "/datastore/image/info")
    assert record.getMessage().startswith("GET /datastore/image/info 200 in ")
    line = json.loads(JsonFormatter().format(record))
    assert (line["status"], line["person"], line["address"]) == (200, "anonymous", "127.0.0.1")
    assert "p1-flair" not in json.dumps(line)
