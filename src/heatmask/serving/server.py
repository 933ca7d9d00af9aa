"""Start the MONAI Label server: index the studies, set the host up, hand out error texts."""

import logging
import os
import shutil
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heatmask.bundle import BundleInfo, find_shipped, list_bundles, order_bundles
from heatmask.bundle.choose import count_kinds
from heatmask.device import resolve_device
from heatmask.errors import DeviceError, HeatmaskError, InputError, OptionError
from heatmask.serving.compat import set_host_settings
from heatmask.serving.studies import index_studies

if TYPE_CHECKING:
    from fastapi import FastAPI, Request
    from fastapi.responses import PlainTextResponse

logger = logging.getLogger(__name__)


def start_server(
    studies: str | Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    device: str = "auto",
    workdir: str | Path | None = None,
    *,
    bundles: str | Path | None = None,
    pattern: str | None = None,
) -> None:
    """Serve the scans of a folder to MONAI Label clients until interrupted.

    Parameters
    ----------
    studies
        Folder of scans, searched to its ends; it is only read.
    host, port
        Where to listen. There is no authentication: whoever reaches it can use it.
    device
        First choice of the options panel.
    workdir
        Where index, labels and sessions are kept, by default ``work/serve`` below the current
        folder.
    bundles
        Folder of bundles, by default `heatmask.bundle.find.list_places`. The best for most of the
        studies becomes the first model, which viewers run unless another is chosen.
    pattern
        Names of the files that are studies, as in ``*-t2f.nii.gz``; by default one scan of each
        head, of the first sequence that the bundles take.

    Raises
    ------
    HeatmaskError
        The port is taken, a folder is missing, or there is no scan or no complete bundle.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    check_port(host, port)
    resolve_device(device)
    work, studies = Path(workdir or "work/serve").resolve(), Path(studies).expanduser()
    found = list_bundles([Path(bundles).resolve()] if bundles else None)
    index = index_studies(studies, work, list_sequences(found), pattern)
    ((sequences, _),) = count_kinds(studies, pattern, found).most_common(1)
    folders = [str(bundle.folder) for bundle in order_bundles(found, sequences)]
    conf = {"device": device, "bundles": os.pathsep.join(folders)}
    app = create_app(index, work, port, conf)
    logger.info("Labels are kept in %s", index / "labels/final")
    logger.info("In 3D Slicer, module MONAI Label, server: http://%s:%d", host, port)
    import uvicorn

    uvicorn.run(app, host=host, port=port, log_config=None, access_log=False)


def create_app(index: Path, work: Path, port: int, conf: dict[str, str]) -> "FastAPI":
    """Set the host up for a flat folder of studies and return its web application."""
    # Sessions are scans that clients sent for a while. The host cannot start on half of one,
    # as a killed server leaves it. Two servers that run at once have different ports.
    sessions = work / "heatmask_sessions" / str(port)
    shutil.rmtree(sessions, ignore_errors=True)
    set_host_settings(
        {
            "APP_DIR": str(find_shipped("apps/heatmask")),
            "STUDIES": str(index),
            "APP_CONF": conf,
            "SERVER_PORT": port,
            "SESSION_PATH": str(sessions),
        }
    )
    from fastapi.middleware.cors import CORSMiddleware
    from monailabel.app import app
    from monailabel.interfaces.exception import MONAILabelException
    from monailabel.interfaces.utils.app import app_instance

    # As the host sets it up, it lets any web page that the user visits read the scans. (Its
    # own setting for that stops batch inference, which cannot print it.)
    app.user_middleware = [m for m in app.user_middleware if m.cls is not CORSMiddleware]
    app.add_exception_handler(HeatmaskError, _answer_error)
    app.add_exception_handler(MONAILabelException, _answer_error)
    app_instance()  # The host would do it too, and turn an error here into a traceback
    return app


def list_sequences(bundles: Iterable[BundleInfo]) -> list[str]:
    """Return the sequences that bundles take, without repetition."""
    taken = (name for bundle in bundles for name in bundle.sequences)
    return list(dict.fromkeys(taken)) or ["FLAIR"]


def _answer_error(_: "Request", error: Any) -> "PlainTextResponse":
    """Send an error's text: viewers show it, and the host's default is a bare "Internal ..."."""
    from fastapi.responses import PlainTextResponse

    text = str(getattr(error, "msg", error))
    logger.warning("%s: %s", type(error).__name__, text)
    theirs = isinstance(error, InputError | OptionError | DeviceError)
    return PlainTextResponse(text, status_code=400 if theirs else 500)


def check_port(host: str, port: int) -> None:
    """Refuse an address that cannot be listened on.

    Raises
    ------
    OptionError
        The port is taken or not allowed, or the host is not of this machine.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except (OSError, OverflowError) as error:
        raise OptionError(
            f"The server must be able to listen on {host}:{port}, got: {error}. "
            "Stop what runs there, or give another --port."
        ) from error
