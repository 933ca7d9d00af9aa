"""Start the server: index the studies, put the parts together, listen until interrupted."""

import logging
import os
import socket
import sys
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from heatmask.bundle import BundleInfo, find_shipped, list_bundles
from heatmask.device import resolve_device
from heatmask.errors import OptionError
from heatmask.serving.access import (
    Access,
    AccessSettings,
    Audit,
    check_exposure,
    find_folder,
    make_uvicorn_options,
)
from heatmask.serving.compat import leave_out
from heatmask.serving.log import set_log_up
from heatmask.serving.opening import OpenedStudies, open_studies

if TYPE_CHECKING:
    from heatmask.serving.web import Serving

logger = logging.getLogger(__name__)

CONNECTIONS = 256
"""At once; more are answered with 503."""
GRACE_S = 1
"""How long answers may take that are under way when the server ends."""


def start_server(
    studies: str | Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    device: str = "auto",
    workdir: str | Path | None = None,
    *,
    bundles: str | Path | None = None,
    pattern: str | None = None,
    filters: Mapping[str, str] | None = None,
    send_seg: bool = True,
    settings: AccessSettings | None = None,
    json_log: bool = False,
) -> None:
    """Serve scans to MONAI Label clients until interrupted; the process ends too.

    Parameters
    ----------
    studies
        Folder of scans, searched to its ends and only read; or the DICOMweb address of a PACS.
    host, port
        Where to listen.
    device
        First choice of the options panel.
    workdir
        Where index, labels, users and what clients send are kept, by default ``work/serve`` below
        the current folder.
    bundles
        Folder of bundles, by default `heatmask.bundle.find.list_places`. The best for most of the
        studies becomes the first model, which viewers run unless another is chosen.
    pattern
        Names of the files that are studies, as in ``*-t2f.nii.gz``; by default one scan of each
        head, of the first sequence that the bundles take.
    filters
        Which series of a PACS, by DICOM keyword; by default all of modality MR.
    send_seg
        Send submitted masks to the PACS that the studies are from.
    settings
        Who may reach it and how, in place of `host`.
    json_log
        Write the log as one JSON object a line.

    Raises
    ------
    HeatmaskError
        The port is taken, a folder is missing, there is no scan or no complete bundle, or others
        could reach the server without encryption and log-in. Or the PACS does not answer.
    """
    settings = settings or AccessSettings(host)
    set_log_up(json_log)
    check_port(settings.host, port)
    resolve_device(device)
    work = Path(workdir or "work/serve").resolve()
    access = Access(settings, find_folder(work))
    check_exposure(settings, access.enabled)
    found = list_bundles([Path(bundles).resolve()] if bundles else None)
    opened = open_studies(studies, work, found, pattern, filters)
    audit = Audit(find_folder(work))
    serving = make_serving(opened, device, access, audit, port, send_seg)
    _say_what_is_served(serving, opened.name)
    serving.app.loading.start()
    serving.scoring.start()
    if serving.outbox is not None:
        serving.outbox.start()
    _listen(serving)


def make_serving(
    opened: OpenedStudies,
    device: str,
    access: Access,
    audit: Audit,
    port: int = 8000,
    send_seg: bool = True,
) -> "Serving":
    """Put the parts of a server together."""
    with leave_out(*list_unneeded(opened.bundles)):
        from heatmask.serving.app import HeatmaskApp
        from heatmask.serving.explained import Explanations
        from heatmask.serving.outbox import Outbox
        from heatmask.serving.store import Store
        from heatmask.serving.web import Serving

    store = Store(opened.index, opened.store, source=opened.source)
    app = HeatmaskApp(
        str(find_shipped("apps/heatmask")), str(opened.index), opened.configure(device), store,
        opened.bundles, Explanations(opened.store / "explanations"),
    )  # fmt: skip
    app.refresh_learned()
    serving = Serving(
        app, store, access, audit, access.settings, opened.store, port, labels=opened.labels
    )
    if opened.source is not None and send_seg:
        serving.outbox = Outbox(
            store, opened.source.pacs, opened.store / "outbox",
            lambda: {name: str(task.info()["version"]) for name, task in app.models.items()},
        )  # fmt: skip
    return serving


def list_unneeded(bundles: Iterable[BundleInfo]) -> list[str]:
    """Return libraries that MONAI would load, and that nothing needs which these bundles name.

    They are of training, of pictures of training, and torchvision, with which MONAI offers some
    networks more.
    """
    names = ["ignite", "matplotlib", "mlflow", "pandas", "tensorboard", "tensorboardX"]
    configs = (bundle.folder / "configs/inference.json" for bundle in bundles)
    if any("torchvision" in path.read_text(encoding="utf-8").lower() for path in configs):
        return names
    return [*names, "torchvision"]


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


def _say_what_is_served(serving: "Serving", studies: str) -> None:
    status = serving.store.status()
    logger.info("In 3D Slicer, module MONAI Label, server: %s", serving.address)
    logger.info("Models: %s", ", ".join(serving.app.models))
    for text, names in serving.app.list_licences().items():
        logger.info("Licence of the weights of %s: %s", ", ".join(names), text)
    logger.info("Studies: %d from %s, %d done", status["total"], studies, status["completed"])
    logger.info("Work folder: %s", serving.folder)


def _listen(serving: "Serving") -> None:
    import uvicorn

    from heatmask.serving.web import Connection, create_app

    class Server(uvicorn.Server):
        """Stops the work as soon as the server is to end, for whom requests would wait."""

        def handle_exit(self, sig: int, frame: object) -> None:
            # Not here: the signal may have come while a lock was held that stopping needs.
            threading.Thread(target=serving.stop, daemon=True).start()
            super().handle_exit(sig, frame)  # type: ignore[arg-type]

    config = uvicorn.Config(
        create_app(serving),
        port=serving.port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=GRACE_S,
        http=Connection,
        limit_concurrency=CONNECTIONS,
        **make_uvicorn_options(serving.settings),
    )
    try:
        Server(config).run()
    except KeyboardInterrupt:
        pass  # uvicorn raises the signal again once it has ended
    finally:
        serving.close()
        serving.store.close()
    logging.shutdown()
    sys.stdout.flush()
    # The interpreter would take seconds to let go of its libraries, and wait for a worker in one.
    os._exit(0)
