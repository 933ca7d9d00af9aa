"""What a client sends: text fields, and files that are streamed to a private folder.

Starlette's own parser collects files in the machine's folder for temporary ones. These hold
patients' scans: they lie in a folder of the request's own (0700, the files 0600) in the server's
work folder, which is gone with the request, also after an error.
"""

import os
import secrets
import shutil
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from anyio.to_thread import run_sync
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from heatmask.data.paths import split_scan_name
from heatmask.errors import InputError, OutputError
from heatmask.serving.store.checks import read_suffix
from heatmask.serving.web.limits import Limits, TooLargeError
from heatmask.serving.web.volumes import check_volume

Result = TypeVar("Result")
_MAX_PARTS = 16


@dataclass(frozen=True)
class Upload:
    """A file that a client sent: its private place, and what the client calls it."""

    path: Path
    name: str


@dataclass
class Form:
    """What a client sent, and the private folder of its request."""

    folder: Path
    fields: dict[str, str] = field(default_factory=dict)
    files: dict[str, Upload] = field(default_factory=dict)

    def get_file(self, name: str) -> Upload:
        """Return a file that must be there.

        Raises
        ------
        InputError
            It is not.
        """
        if name not in self.files:
            raise InputError(f"The request must hold a file in the form field '{name}'.")
        return self.files[name]


@asynccontextmanager
async def receive_form(
    request: Request, tmp: Path, limits: Limits, files: Collection[str] = ()
) -> AsyncIterator[Form]:
    """Receive a form, and check the volumes in it; all of it is gone at the end.

    Parameters
    ----------
    request
        Its body is multipart, urlencoded, or empty.
    tmp
        Where the folder of this request is made.
    limits
        How much it may hold.
    files
        Names of the form fields that may hold a file, one each.

    Raises
    ------
    InputError
        The form or a file cannot be read.
    TooLargeError
        It is larger than allowed.
    OutputError
        The disk is full.
    """
    with open_folder(tmp) as folder:
        with _as_full_disk():
            form = await _read_form(request, folder, limits, files)
        for upload in form.files.values():
            await run_check(request, check_volume, upload.path, limits)
        yield form


@contextmanager
def open_folder(tmp: Path) -> Iterator[Path]:
    """Make a private folder below another one, and delete it at the end.

    Raises
    ------
    OutputError
        The disk is full.
    """
    folder = tmp / secrets.token_hex(8)
    try:
        with _as_full_disk():
            folder.mkdir(mode=0o700)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def receive_file(request: Request, path: Path, limits: Limits) -> Path:
    """Write a body that is a file to a path, and return the path.

    Raises
    ------
    TooLargeError
        It is larger than allowed.
    OutputError
        The disk is full.
    """
    received = 0
    with _as_full_disk(), path.open("xb") as file:
        async for chunk in request.stream():
            received += len(chunk)
            if received > limits.file_bytes:
                raise TooLargeError(f"A file must be at most {limits.file_bytes:,} bytes.")
            file.write(chunk)
    return path


@contextmanager
def _as_full_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"The request was not taken: {error.strerror or error}. Free some space on the "
            "server's disk."
        ) from error


async def _read_form(
    request: Request, folder: Path, limits: Limits, files: Collection[str]
) -> Form:
    form = Form(folder)
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind == b"multipart/form-data":
        boundary = options.get(b"boundary", b"")
        await _read_multipart(request, boundary, _Receiver(form, limits, files))
    else:
        form.fields = _read_urlencoded(await read_body(request, limits), kind)
    return form


async def run_check(request: Request, check: Callable[..., Result], *arguments: Any) -> Result:
    """Call what reads a file that came, in a thread of those for that."""
    return await run_sync(check, *arguments, limiter=request.app.state.checks)


async def read_body(request: Request, limits: Limits) -> bytes:
    """Return a body that holds no file.

    Raises
    ------
    TooLargeError
        It is larger than allowed.
    """
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > limits.text_bytes:
            raise TooLargeError(f"The request must hold at most {limits.text_bytes:,} bytes.")
    return body


def _read_urlencoded(body: bytes, kind: bytes) -> dict[str, str]:
    if not body.strip():
        return {}
    if kind != b"application/x-www-form-urlencoded":
        raise InputError("The request must be a form: multipart/form-data.")
    try:
        pairs = parse_qsl(body.decode("ascii"), max_num_fields=_MAX_PARTS, errors="strict")
    except ValueError as error:
        raise InputError(f"The form cannot be read: {error}.") from error
    return dict(pairs)


async def _read_multipart(request: Request, boundary: bytes, receiver: "_Receiver") -> None:
    try:
        parser = MultipartParser(boundary, receiver.callbacks)
        async for chunk in request.stream():
            parser.write(chunk)
        parser.finalize()
    except (FormParserError, UnicodeDecodeError) as error:
        raise InputError(f"The form cannot be read: {error}. Send it again.") from error
    finally:
        receiver.close()
    if not receiver.ended:
        raise InputError("The form is cut off. Send it again.")


class _Receiver:
    """Takes what the parser finds, and puts it into a form."""

    def __init__(self, form: Form, limits: Limits, files: Collection[str]) -> None:
        self.form, self.limits, self.allowed = form, limits, files
        self.ended = False
        self._parts = self._text_bytes = self._file_bytes = 0
        self._name, self._value = "", bytearray()
        self._file: Any = None
        self._header_name, self._header_value = b"", b""
        self._disposition = b""
        self.callbacks: Any = {
            "on_part_begin": self._begin_part,
            "on_header_field": self._add_header_name,
            "on_header_value": self._add_header_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": self._add_data,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }

    def close(self) -> None:
        """Close the file that is being written."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _begin_part(self) -> None:
        self._parts += 1
        if self._parts > _MAX_PARTS:
            raise InputError(f"A form must have at most {_MAX_PARTS} parts.")
        self._disposition, self._value = b"", bytearray()
        self._header_name = self._header_value = b""

    def _add_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name = self._header_value = b""

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode()
        if b"filename" in options:
            # Some clients send the path on their own machine
            name = options[b"filename"].decode("utf-8", "replace").replace("\\", "/")
            self._open(name.rsplit("/", 1)[-1])
        elif self._name in self.form.fields:
            raise InputError(f"The form holds '{self._name[:40]}' twice.")

    def _open(self, filename: str) -> None:
        if self._name not in self.allowed or self._name in self.form.files:
            raise InputError(
                f"A file must come once in the form field {' or '.join(self.allowed) or 'none'}, "
                f"got one in {self._name[:40]!r}."
            )
        path = self.form.folder / f"{self._name}{read_suffix(filename)}"
        self._file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        self.form.files[self._name] = Upload(path, split_scan_name(filename)[0])

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        if self._file is None:
            self._text_bytes += end - start
            if self._text_bytes > self.limits.text_bytes:
                raise TooLargeError(
                    f"The form's text must be at most {self.limits.text_bytes:,} bytes."
                )
            self._value += data[start:end]
            return
        self._file_bytes += end - start
        if self._file_bytes > self.limits.file_bytes:
            raise TooLargeError(
                f"A request's files must be at most {self.limits.file_bytes:,} bytes together."
            )
        self._file.write(data[start:end])

    def _end_part(self) -> None:
        if self._file is None:
            self.form.fields[self._name] = self._value.decode()
        self.close()

    def _end(self) -> None:
        self.ended = True
