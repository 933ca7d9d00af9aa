"""Errors to status and text. Viewers show the text: it helps, and names no path of the server."""

import logging
import re
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException

from heatmask.errors import (
    DeviceError,
    HeatmaskError,
    InputError,
    MethodError,
    NotFoundError,
    OptionError,
    OutputError,
)
from heatmask.serving.web.jobs import JobError
from heatmask.serving.web.limits import TooLargeError
from heatmask.serving.web.messages import RequestError, describe_errors
from heatmask.serving.web.nninteractive.leases import LeaseError

logger = logging.getLogger(__name__)

STATUS: dict[type[Exception], int] = {
    NotFoundError: 404,
    TooLargeError: 413,
    RequestError: 422,
    InputError: 400,
    OptionError: 400,
    DeviceError: 400,
    MethodError: 400,
    OutputError: 507,
}
"""The first that an error is counts; any other `HeatmaskError` is 503: the server's own trouble."""

_QUOTED_PATH = re.compile(r"(['\"])(?:[A-Za-z]:)?[/\\][^'\"\n]*[/\\]([^'\"\n/\\]*)\1")
_PATH = re.compile(r"(?<![\w/.:<])/(?:[^\s'\"/,;:]+/)+([^\s'\",;:]*)")


def hide_paths(text: str) -> str:
    """Return a text with only the last part of every absolute path in it."""
    return _PATH.sub(r"\1", _QUOTED_PATH.sub(r"\1\2\1", text))


def answer_error(request: Request, error: Exception) -> Response:
    """Send the text of an error that was raised on purpose."""
    text, headers = hide_paths(str(error)), {}
    if isinstance(error, JobError | LeaseError):
        status, headers = error.status, error.headers
    else:
        status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), 503)
    if request.url.path.startswith("/nninteractive/"):  # whose clients read it there
        return JSONResponse({"detail": text}, status, headers)
    return PlainTextResponse(text, status, headers)


def answer_invalid(_: Request, error: Any) -> PlainTextResponse:
    """Say what in the address of a request must be otherwise."""
    return PlainTextResponse(describe_errors(error.errors()), 422)


def answer_http_error(_: Request, error: Any) -> PlainTextResponse:
    """Send what the framework says, as plain text."""
    return PlainTextResponse(str(error.detail), error.status_code, error.headers)


def answer_no_memory(_: Request, error: Exception) -> PlainTextResponse:
    """Say that the server has no room for this."""
    logger.error("Out of memory: %s", error)
    return PlainTextResponse("The server has not enough memory for this. Crop or resample it.", 413)


def install_errors(app: FastAPI) -> None:
    """Let an application answer errors so."""
    app.add_exception_handler(HeatmaskError, answer_error)
    app.add_exception_handler(RequestValidationError, answer_invalid)
    app.add_exception_handler(HTTPException, answer_http_error)
    app.add_exception_handler(MemoryError, answer_no_memory)
