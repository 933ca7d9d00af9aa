"""How much a client may send, what a file may claim, and that nothing of it stays."""

import asyncio
import errno
import gzip
import json
import os
import socket
import stat
import struct
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import nrrd
import numpy as np
import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.responses import PlainTextResponse

from heatmask.errors import HeatmaskError, InputError, NotFoundError
from heatmask.serving.web.connections import Connection
from heatmask.serving.web.errors import hide_paths
from heatmask.serving.web.limits import Limits, TooLargeError
from heatmask.serving.web.routes.datastore import answer_file
from heatmask.serving.web.volumes import check_volume
from helpers.server import MODEL
from helpers.serving_stub import write_scan
from helpers.site import run_site
from helpers.waiting import PATIENCE_S, wait_until
from helpers.web import Web, run_web

SMALL = Limits(
    file_bytes=300_000, unpacked_bytes=400_000, voxels=100_000, axis=100, text_bytes=5_000
)
# Without the time: the processes of the tests must all find tests of the same names.
pack = partial(gzip.compress, mtime=0)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory):
    with run_web(tmp_path_factory.mktemp("small"), SMALL) as running:
        yield running


def make_nifti(shape: tuple[int, ...], voxels: bytes = b"", dtype: type = np.float32) -> bytes:
    """A NIfTI whose header claims a shape, whatever follows."""
    header = nib.Nifti1Header()
    header.set_data_dtype(dtype)
    header["magic"], header["vox_offset"] = b"n+1\0", 352
    header["dim"][0], header["dim"][1 : 1 + len(shape)] = len(shape), shape
    return header.binaryblock + b"\0" * 4 + voxels


def make_nrrd(sizes: str, voxels: bytes = b"", **fields: str) -> bytes:
    lines = {"type": "float", "dimension": "3", "sizes": sizes, "encoding": "raw", **fields}
    text = "".join(f"{name}: {value}\n" for name, value in lines.items() if value)
    return f"NRRD0004\n{text}\n".encode() + voxels


def test_good_volumes_pass(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)
    for name in ("a.nii", "a.nii.gz", "a.NII.GZ"):
        nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "x.nii")
        content = (tmp_path / "x.nii").read_bytes()
        (tmp_path / name).write_bytes(content if name == "a.nii" else pack(content))
        check_volume(tmp_path / name, SMALL)
    nib.save(nib.Nifti2Image(array, np.eye(4)), tmp_path / "second.nii")
    check_volume(tmp_path / "second.nii", SMALL)
    for encoding in ("raw", "gzip"):
        for kind in ("float32", "uint8", "int16", "float64"):
            file = tmp_path / f"{encoding}.nrrd"
            nrrd.write(str(file), array.astype(kind), {"encoding": encoding})
            check_volume(file, SMALL)
    (tmp_path / "crlf.nrrd").write_bytes(
        make_nrrd("5 6 7", array.tobytes()).replace(b"\n", b"\r\n", 6)
    )
    check_volume(tmp_path / "crlf.nrrd", SMALL)


@pytest.mark.parametrize(
    ("name", "content", "error", "text"),
    [
        ("a.nii", b"", InputError, "does not begin like a NIfTI"),
        ("a.nii", b"\0" * 400, InputError, "does not begin like a NIfTI"),
        ("a.nii", make_nifti((5, 6, 7)), InputError, "cut off"),
        ("a.nii.gz", make_nifti((5, 6, 7)), InputError, "cut off or damaged"),
        ("a.nii.gz", pack(make_nifti((5, 6, 7))), InputError, "is cut off"),
        ("a.nii.gz", pack(b"\0" * 10**6)[:-9], InputError, "does not begin"),
        ("a.nii", make_nifti((800, 800, 800)), TooLargeError, "800 x 800 x 800 voxels"),
        ("a.nii", make_nifti((101, 2, 2), b"\0" * 2000), TooLargeError, "along an axis"),
        ("a.nii", make_nifti((5, 0, 7)), InputError, "holds no voxels"),
        ("a.nii", make_nifti((5, -3, 7)), InputError, "holds no voxels"),
        ("a.nii", make_nifti((5, 6, 7)).replace(b"n+1", b"ni1"), InputError, "in one file"),
        # ITK takes it for an Analyze file, which lies elsewhere
        ("a.nii", make_nifti((5, 6, 7)).replace(b"n+1", b"n+0"), InputError, "say so by"),
        ("a.nii", make_nifti((5, 6, 7)).replace(b"n+1\0", b"n+1 "), InputError, "say so by"),
        (
            "a.nii.gz", pack(make_nifti((5, 6, 7), b"\0" * 10**6)), TooLargeError,
            "unpacks to more than 400,000 bytes",
        ),
        ("a.nrrd", b"", InputError, "does not begin like an NRRD"),
        ("a.nrrd", b"NRRD0004\nsizes: 1 2 3\n", InputError, "does not begin like an NRRD"),
        ("a.nrrd", make_nrrd("5 6 7"), InputError, "is cut off"),
        ("a.nrrd", make_nrrd("80 80 80"), TooLargeError, "80 x 80 x 80"),
        ("a.nrrd", make_nrrd("5 6 x"), InputError, "its sizes"),
        ("a.nrrd", make_nrrd("5 6 " + "9" * 400), InputError, "its sizes"),
        ("a.nrrd", make_nrrd("5 6 7", Sizes="9 9 9"), InputError, "twice"),
        ("a.nrrd", b"NRRD0004\ntype: float\n\r\n", InputError, "its sizes"),
        ("a.nrrd", make_nrrd("5 6 7", encoding="bzip2"), InputError, "raw or gzip"),
        ("a.nrrd", make_nrrd("5 6 7", type="block"), InputError, "type of its voxels"),
        ("a.nrrd", make_nrrd("5 6 7", **{"data file": "/etc/passwd"}), InputError, "same file"),
        ("a.nrrd", make_nrrd("5 6 7", datafile="b.raw"), InputError, "same file"),
        ("a.nrrd", make_nrrd("5 6 7", **{"Data File": "b.raw"}), InputError, "same file"),
        ("a.nrrd", make_nrrd("5 6 7", **{"byte skip": "-1"}), InputError, "same file"),
        ("a.nrrd", make_nrrd("5 6 7", **{"data file": "LIST 2 :="}), InputError, "same file"),
        ("a.nrrd", make_nrrd("5 6 7", **{"data file": "b.raw:="}), InputError, "same file"),
        (
            "a.nrrd", make_nrrd("5 6 7", pack(b"\0" * 10**6), encoding="gzip"),
            TooLargeError, "unpacks to more than",
        ),
    ],
)  # fmt: skip
def test_what_a_file_claims_is_checked_before_it_is_read(
    tmp_path: Path, name: str, content: bytes, error: type[HeatmaskError], text: str
) -> None:
    """Finding 12."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=text):
        check_volume(tmp_path / name, SMALL)


@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from(["a.nii", "a.nii.gz", "a.nrrd"]), change=st.data())
def test_no_damage_to_a_header_does_more_than_refuse(
    name: str, change: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(
        make_nrrd("5 6 7", b"\0" * 840) if name == "a.nrrd" else make_nifti((5, 6, 7), b"\0" * 840)
    )
    for place in change.draw(st.lists(st.integers(0, 400), max_size=6)):
        content[place % len(content)] = change.draw(st.integers(0, 255))
    whole = pack(bytes(content)) if name.endswith(".gz") else bytes(content)
    path = tmp_path_factory.getbasetemp() / f"{os.getpid()}-{name}"
    path.write_bytes(whole[: change.draw(st.integers(0, len(whole)))])
    with suppress(HeatmaskError):
        check_volume(path, SMALL)


def test_a_header_that_claims_two_gigabytes_allocates_nothing(tmp_path: Path) -> None:
    """Finding 12."""
    for name, content in (
        ("a.nii.gz", pack(make_nifti((800, 800, 800)))),
        ("a.nrrd", make_nrrd("800 800 800")),
        ("b.nii.gz", pack(make_nifti((600, 600, 600)) + b"\0" * 10**8)),
    ):
        (tmp_path / name).write_bytes(content)
        tracemalloc.start()
        with pytest.raises(HeatmaskError):
            check_volume(tmp_path / name, Limits())
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 10 * 2**20, name


DOORS = [
    ("PUT", "/datastore/image?image=a", "file"),
    ("PUT", "/datastore/?image=a", "file"),
    ("PUT", "/datastore/label?image=p1-flair", "label"),
    ("PUT", "/session/", "files"),
    ("POST", f"/infer/{MODEL}", "file"),
]


@pytest.mark.parametrize(("method", "path", "field"), DOORS)
@pytest.mark.parametrize(
    ("name", "content", "status"),
    [
        ("a.nii.gz", b"", 400),
        ("a.nii.gz", b"thirteen byte", 400),
        ("a.nii.gz", pack(make_nifti((800, 800, 800))), 413),
        ("a.nrrd", make_nrrd("800 800 800"), 413),
        ("a.nrrd", make_nrrd("10 10 10", **{"data file": "/etc/passwd"}), 400),
        ("a.nii.gz", pack(make_nifti((5, 6, 7), b"\0" * 10**6)), 413),
        ("a.nii", b"\0" * 310_000, 413),
        ("a.gz", b"x", 400), ("a", b"x", 400), ("../../a.txt", b"x", 400), ("a.tar", b"x", 400),
        (".nii.gz", b"x", 400), ("a\0.nii", b"x", 400),
    ],
)  # fmt: skip
def test_every_door_refuses_what_is_none_and_keeps_nothing(
    small: Web, method: str, path: str, field: str, name: str, content: bytes, status: int
) -> None:
    """Findings 1, 6, 10 and 12."""
    before = small.list_files()
    answer = small.send(method, path, files={field: (name, content)})
    assert answer.status_code == status, answer.text
    assert small.list_files() == before
    assert not list(small.serving.tmp.iterdir())


@pytest.mark.parametrize(("method", "path", "field"), DOORS)
def test_a_file_must_come_once_in_its_field(
    small: Web, method: str, path: str, field: str, scan: Path
) -> None:
    content = scan.read_bytes()
    other = [("other", ("a.nii.gz", content))]
    twice = [(field, ("a.nii.gz", content)), (field, ("b.nii.gz", content))]
    for files in (other, twice):
        answer = small.send(method, path, files=files)
        assert (answer.status_code, "must come once" in answer.text) == (400, True)
    assert not list(small.serving.tmp.iterdir())


def test_text_is_bounded_too(small: Web) -> None:
    long = "x" * 6_000
    path = f"/infer/{MODEL}?image=p1-flair"
    assert small.send("POST", path, files={"params": (None, long)}).status_code == 413
    assert small.send("POST", path, data={"params": long}).status_code == 413
    assert small.send("POST", "/activelearning/first", data=long).status_code == 413
    assert small.send("POST", "/activelearning/first", data="x" * 20_000).status_code == 413
    many = {f"a{n}": (None, "x") for n in range(30)}
    assert small.send("POST", path, files=many).status_code == 400
    large = {"username": "x" * 20_000, "password": "y"}
    assert small.send("POST", "/auth/token", data=large).status_code == 413


def test_notes_on_an_image_do_not_grow_without_end(small: Web) -> None:
    path = "/datastore/image/info?image=p1-flair"
    answers = [
        small.send("PUT", path, data={"info": json.dumps({f"a{n}": "x" * 1_000})}).status_code
        for n in range(8)
    ]
    assert answers[0] == 200
    assert answers[-1] == 413
    assert len(small.send("GET", path).content) < 6_000


def talk(web: Web, request: bytes) -> bytes:
    """Send bytes as they are; return what comes until the server closes."""
    host, port = web.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as connection:
        connection.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer and (piece := connection.recv(65536)):
            answer += piece
        return answer


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory):
    """A server that waits half a second for the next bytes of a body."""
    limits = replace(Limits(), silence_s=0.5)
    with run_web(tmp_path_factory.mktemp("impatient"), limits) as running:
        yield running


def test_a_body_without_an_end_is_not_waited_for(impatient: Web) -> None:
    head = b"PUT /session/ HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n"
    kind = b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
    assert b" 408 " in talk(impatient, head + kind).split(b"\r\n")[0]
    assert not list(impatient.serving.tmp.iterdir())


def test_a_text_that_trickles_is_not_waited_for(impatient: Web) -> None:
    """Also before anybody has logged in."""
    host, port = impatient.url.removeprefix("http://").split(":")
    head = "POST /auth/token HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n"
    kind = "Content-Type: application/x-www-form-urlencoded\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=0.1) as connection:
        connection.sendall((head + kind).encode())

        def send_some() -> bytes:
            with suppress(TimeoutError, ConnectionError):
                connection.sendall(b"x")
            with suppress(TimeoutError):
                return connection.recv(1000)
            return b""

        assert b" 408 " in wait_until(send_some).split(b"\r\n")[0]


def test_a_connection_without_a_request_is_closed_and_one_with_a_slow_answer_is_not() -> None:
    class Impatient(Connection):
        wait_s = 0.3

    async def answer_slowly(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await asyncio.sleep(1)
            await PlainTextResponse("done")(scope, receive, send)

    request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    with run_site(answer_slowly, http=Impatient, timeout_keep_alive=60) as port:
        for begun, before in ((b"", b""), (b"GET / HT", b""), (b"GET / HT", request)):
            with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
                connection.sendall(before + begun)
                answer = b""
                while piece := connection.recv(1000):
                    answer += piece
            assert answer.endswith(b"done") == bool(before)


def test_a_body_that_says_to_be_huge_is_refused_at_once(small: Web) -> None:
    for length in (b"99999999999", b"9" * 60):
        head = b"PUT /session/ HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: " + length
        assert b" 413 " in talk(small, head + b"\r\n\r\n").split(b"\r\n")[0] or length == b"9" * 60


def test_what_is_sent_lies_in_a_private_place_while_it_is_used(
    own_web: Web, scan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finding 10."""
    seen = []
    task = own_web.serving.app.models[MODEL]
    run = type(task).__call__

    def look(self, request, progress=None, folder=None):
        for path in (Path(request["image"]), Path(request["image"]).parent):
            seen.append((path, stat.S_IMODE(path.stat().st_mode)))
        answer = run(self, request, progress, folder)
        seen.append((Path(answer[0]), stat.S_IMODE(Path(answer[0]).stat().st_mode)))
        return answer

    monkeypatch.setattr(type(task), "__call__", look)
    with scan.open("rb") as file:
        answer = own_web.send("POST", f"/infer/{MODEL}", files={"file": ("s.nii.gz", file)})
    assert answer.status_code == 200
    assert [mode for _, mode in seen] == [0o600, 0o700, 0o600]
    assert all(path.is_relative_to(own_web.serving.tmp) for path, _ in seen)
    assert stat.S_IMODE(own_web.serving.tmp.stat().st_mode) == 0o700
    assert not list(own_web.serving.tmp.iterdir())


def test_what_a_killed_server_left_is_cleared(tmp_path: Path) -> None:
    with run_web(tmp_path) as web:
        left = web.serving.tmp / "left" / "scan.nii.gz"
        write_scan(left)
    with run_web_again(tmp_path) as web:
        assert not left.exists()


def run_web_again(tmp_path: Path):
    import shutil

    shutil.rmtree(tmp_path / "bundles")
    return run_web(tmp_path)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("'/srv/a b/p1.nii.gz' is cut off", "'p1.nii.gz' is cut off"),
        ("in /home/me/scans/p1.nii.gz, or", "in p1.nii.gz, or"),
        ("http://127.0.0.1:8000/info/ stays", "http://127.0.0.1:8000/info/ stays"),
        ("4 mm/s and 1/2 and /", "4 mm/s and 1/2 and /"),
        ("'Größe/2' stays", "'Größe/2' stays"),
        (r"'C:\Users\me\p1.nii'", "'p1.nii'"),
    ],
)
def test_texts_lose_their_folders(text: str, shown: str) -> None:
    assert hide_paths(text) == shown


def test_a_nifti_of_two_kinds_of_byte_order_is_read(tmp_path: Path) -> None:
    header = nib.Nifti1Header(endianness=">")
    header.set_data_shape((5, 6, 7))
    header.set_data_dtype(np.int16)
    header["magic"], header["vox_offset"] = b"n+1\0", 352
    (tmp_path / "a.nii").write_bytes(header.binaryblock + b"\0" * 4 + b"\0" * 420)
    assert struct.unpack(">i", header.binaryblock[:4]) == (348,)
    check_volume(tmp_path / "a.nii", SMALL)


def test_few_files_are_checked_at_once_and_info_does_not_wait_for_them(
    own_web: Web, scan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each may unpack to the largest volume that is allowed: together they took all memory."""
    running, most, lock, free = [0], [0], threading.Lock(), threading.Event()

    def check_slowly(path: Path, limits: Limits) -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        assert free.wait(PATIENCE_S)
        with lock:
            running[0] -= 1

    monkeypatch.setattr("heatmask.serving.web.uploads.check_volume", check_slowly)
    content, url = scan.read_bytes(), f"{own_web.url}/datastore/image?image=a"

    def send(_: int) -> int:
        return requests.put(url, files={"file": ("a.nii.gz", content)}, timeout=300).status_code

    with ThreadPoolExecutor(50) as pool:
        answers = [pool.submit(send, n) for n in range(50)]
        # All have come as far as their check
        wait_until(lambda: len(list(own_web.serving.tmp.glob("*/*.gz"))) == 50 and running[0] == 2)
        own_web.send("GET", "/info/").raise_for_status()
        assert not any(answer.done() for answer in answers)
        free.set()
        assert {answer.result() for answer in answers} == {200}
    assert most[0] == 2


def test_a_request_that_finds_the_disk_full_is_told_so(
    own_web: Web, scan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was an internal error."""

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("heatmask.serving.web.uploads._Receiver._add_data", fail)
    for method, path, field in DOORS:
        files = {field: ("a.nii.gz", scan.read_bytes())}
        answer = own_web.send(method, path, files=files)
        assert (answer.status_code, "No space left" in answer.text) == (507, True)
    assert not list(own_web.serving.tmp.iterdir())


def test_a_file_is_sent_whole_or_not_at_all_when_it_is_removed_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    path.write_bytes(b"x" * 3_000_000)
    answer = answer_file(path, "6: t2/\u00e4")
    path.unlink()

    async def read() -> bytes:
        return b"".join([piece async for piece in answer.body_iterator])

    assert asyncio.run(read()) == b"x" * 3_000_000
    assert answer.headers["content-length"] == "3000000"
    assert answer.headers["content-disposition"].endswith("6%3A%20t2_%C3%A4.nii.gz")
    with pytest.raises(NotFoundError, match="gone"):
        answer_file(path, "a")
