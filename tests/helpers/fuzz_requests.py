"""Requests that no client of good will sends, for every route of the server."""

import http.client
import json
import re
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import FastAPI
from hypothesis import strategies as st

from helpers.fuzz_files import DAMAGES

IMAGES = ("p1-flair", "p2-flair", "6: t2_flair", "Größe/2")
NASTY = (
    "", " ", ".", "..", "../../secret/scan.nii.gz", "/etc/passwd", "p1-flair/../../x", "~", "\0",
    "a\nb", "\r\nX: y", "%2e%2e%2f", "%00", "\u202e", "💥", "x" * 301, "x" * 5000, "CON", "$1",
    "@x", "null", "true", "false", "0", "-1", "1", "255", "1e999", "NaN", "9" * 30, "[]", "{",
    '{"a":',
    "{{7*7}}", "<script>", "' OR 1=1 --", "final", "original", "all", "stats", "json", "image",
    "unlabeled", "sha256:0", "first", "random",
)  # fmt: skip
DEAD = (
    "/reload", "/logs/", "/logs/gpu", "/proxy/dicom/x", "/datastore/dataset", "/model/x", "/docs",
    "/openapi.json", "/static/../x", "//", "/.git/config", "/datastore/image/", "/info/x",
)  # fmt: skip
QUERY = (
    "image", "label", "id", "tag", "client_id", "output", "session_id", "images", "number",
    "check_sum", "expiry", "uncompress", "update_ts", "all", "check_if_running", "x",
)  # fmt: skip
OPTIONS = (
    "client_id", "job", "result_extension", "result_dtype", "save_label", "label_tag", "shared",
    "max_batch_size", "label_info", "model", "preset", "threshold_rule", "threshold_level",
    "min_volume_mm3", "snap", "slice_axis", "gate", "gate_probability", "amp", "device", "label",
    "roi", "foreground", "image", "network_def", "bundle_root", "_target_", "id", "name", "path",
    "strategy", "username", "password", "grant_type",
)  # fmt: skip
METHODS = ("GET", "PUT", "POST", "DELETE", "HEAD", "OPTIONS", "PATCH")
KINDS = (
    "application/json", "application/x-www-form-urlencoded", "text/plain", "",
    "multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=other",
    "multipart/form-data; boundary=" + "b" * 300, "application/octet-stream; charset=\xff",
)  # fmt: skip
BOUNDARY = "frontier"
FILES = (
    "a.nii.gz", "a.nii", "a.nrrd", "A.NII.GZ", "..", "x/../a.nii", ".nii", "a.tar", "",
    "a\\b.nrrd", "6: t2_flair.nrrd", "a\0.nii", "é" * 150 + ".nii", "n" * 400 + ".nii.gz",
)  # fmt: skip
LONGEST_S = 120.0
"""An answer may take so long, on a busy machine too."""


@dataclass(frozen=True)
class Attempt:
    """A request as it goes over the wire."""

    method: str
    target: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


def list_routes(app: FastAPI) -> list[tuple[str, str]]:
    """Return all methods and paths of an application, also those that its schema leaves out."""
    return sorted(
        (method, route.path)
        for route in _flatten(app.routes)
        for method in getattr(route, "methods", None) or ()
    )


def _flatten(routes: Any) -> list[Any]:
    found = []
    for route in routes:
        inner = getattr(getattr(route, "original_router", None), "routes", None)
        found += _flatten(inner) if inner else [route]
    return found


_KNOWN = st.sampled_from(("stub_segmentation", *IMAGES))
_TEXTS = st.one_of(
    _KNOWN, _KNOWN, st.sampled_from(NASTY),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
)  # fmt: skip
_PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**20), 10**20), st.floats(), _TEXTS,
    st.sampled_from([".nrrd", ".nii.gz", "uint8", "otsu", "cpu", "coronal", 0.5]),
)  # fmt: skip
_VALUES = st.one_of(
    _PLAIN, _PLAIN, st.lists(_PLAIN, max_size=3),
    st.lists(st.fixed_dictionaries({"name": _PLAIN, "idx": _PLAIN}), max_size=3),
)  # fmt: skip
_OBJECTS = st.dictionaries(st.sampled_from(OPTIONS), _VALUES, max_size=5).map(json.dumps)
_FACTS = st.one_of(
    _OBJECTS, _OBJECTS, _OBJECTS, _VALUES.map(json.dumps), _TEXTS, st.just("[" * 3000 + "]" * 3000)
)
"""JSON objects with the names of options, and what is none."""
_QUERIES = st.lists(st.tuples(st.sampled_from(QUERY), _TEXTS), max_size=4)
_FORMS = st.dictionaries(st.sampled_from(("params", "info", "username")), _FACTS, max_size=2)
_MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"


@st.composite
def make_attempts(
    draw: st.DrawFn, routes: list[tuple[str, str]], volumes: dict[str, bytes]
) -> Attempt:
    """Draw a request to one of `routes`, with what it takes and what nobody should send.

    Parameters
    ----------
    draw
        Of hypothesis.
    routes
        Of `list_routes`.
    volumes
        Of `make_volumes`: good ones, that damaged ones come from.
    """
    method, path = draw(st.sampled_from(routes))
    if draw(st.integers(0, 9)) == 0:
        method = draw(st.sampled_from(METHODS))
        path = draw(st.sampled_from((*DEAD, path)))
    for name in re.findall(r"\{(.+?)\}", path):
        path = path.replace(f"{{{name}}}", quote(draw(_TEXTS), safe=""))
    query = urlencode(draw(_QUERIES))
    headers, body = _draw_body(draw, volumes) if method not in ("GET", "HEAD") else ({}, b"")
    return Attempt(method, f"{path}?{query}" if query else path, headers, body)


def _draw_body(draw: st.DrawFn, volumes: dict[str, bytes]) -> tuple[dict[str, str], bytes]:
    form = draw(st.sampled_from(("multipart",) * 5 + ("urlencoded", "other", "none")))
    if form == "none":
        return {}, b""
    if form == "urlencoded":
        body = urlencode(draw(_FORMS)).encode()
        return {"Content-Type": "application/x-www-form-urlencoded"}, body
    if form == "other":
        body = draw(st.one_of(_FACTS.map(str.encode), st.binary(max_size=300)))
        return {"Content-Type": draw(st.sampled_from(KINDS))}, body
    parts = [_draw_part(draw, volumes) for _ in range(draw(st.integers(0, 3)))]
    body = b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()
    if draw(st.integers(0, 4)) == 0:
        body = draw(DAMAGES).apply(body)
    return {"Content-Type": _MULTIPART}, body


def _draw_part(draw: st.DrawFn, volumes: dict[str, bytes]) -> bytes:
    if draw(st.booleans()):
        name = draw(st.sampled_from(("params", "params", "info", "file", "x")))
        shown, content = "", draw(_FACTS).encode()
    else:
        suffix = draw(st.sampled_from(sorted(volumes)))
        name = draw(st.sampled_from(("file", "label", "files", "x")))
        good = f"a{suffix}"
        shown = f'; filename="{draw(st.sampled_from((good, good, good, *FILES)))}"'
        content = volumes[suffix]
        if draw(st.booleans()):
            content = draw(DAMAGES).apply(content)
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{shown}\r\n\r\n'
    return head.encode() + content + b"\r\n"


def send(url: str, attempt: Attempt, wait_s: float = LONGEST_S) -> tuple[int, bytes]:
    """Send a request as it is; return status and body, 0 where the server closed without one.

    Raises
    ------
    AssertionError
        It was answered with 500, too late, or with a path of the server.
    """
    host = url.removeprefix("http://")
    connection, start = http.client.HTTPConnection(host, timeout=wait_s), time.monotonic()
    try:
        connection.putrequest(attempt.method, attempt.target)
        for name, value in attempt.headers.items():
            connection.putheader(name, value.encode("latin-1", "replace"))
        if attempt.body or attempt.method in ("POST", "PUT"):
            connection.putheader("Content-Length", str(len(attempt.body)))
        connection.endheaders()
        status, body = _exchange(connection, attempt.body)
    finally:
        connection.close()
    took = time.monotonic() - start
    assert status != 500, body.decode(errors="replace")
    assert took < wait_s, f"{took:.1f} s"
    assert status < 400 or b"/tmp/" not in body, body.decode(errors="replace")
    return status, body


def _exchange(connection: http.client.HTTPConnection, body: bytes) -> tuple[int, bytes]:
    with suppress(BrokenPipeError, ConnectionResetError):  # refused before its end
        connection.send(body)
    try:
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (ConnectionResetError, http.client.RemoteDisconnected):
        return 0, b""
