"""What the server has, and which scan is next."""

import logging
import time
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter
from fastapi import Path as InPath
from starlette.requests import Request

from heatmask.errors import InputError, NotFoundError
from heatmask.serving.access import Person
from heatmask.serving.access.routes import find_address
from heatmask.serving.access.settings import is_loopback
from heatmask.serving.store.durable import measure_sha256
from heatmask.serving.store.links import find_scan
from heatmask.serving.web.available import Available
from heatmask.serving.web.messages import SampleMessage, read_message
from heatmask.serving.web.serving import Annotator, Served, Serving, name_client
from heatmask.serving.web.uploads import read_body

logger = logging.getLogger(__name__)
router = APIRouter()


@router.get("/info/")
@router.get("/info", include_in_schema=False)
def show_info(serving: Served, person: Annotator) -> dict[str, Any]:
    """Return models, trainers, strategies, how many studies are done, and what waits."""
    serving.app.refresh_learned()
    return {
        **serving.app.info(),
        **({"warning": serving.waiting} if serving.waiting else {}),
        "trainers": serving.trainer.describe(),
        "train_stats": serving.trainer.describe_stats(),
    }


@router.post("/activelearning/{strategy}")
async def choose_sample(
    strategy: Annotated[str, InPath(max_length=80)],
    request: Request,
    serving: Served,
    person: Annotator,
) -> dict[str, Any]:
    """Return a scan without a submitted label that nobody else is at work on, or {}."""
    body = await read_body(request, serving.limits)
    message = read_message(body, SampleMessage)
    local = not serving.access.enabled and is_loopback(find_address(request))
    return await run_sync(_choose, serving, strategy, person, message, local)


def _choose(
    serving: Serving, strategy: str, person: Person, message: SampleMessage, local: bool
) -> dict[str, Any]:
    order = serving.app.strategies.get(strategy)
    if order is None:
        known = ", ".join(serving.app.strategies)
        raise NotFoundError(f"There is no strategy {strategy!r}. Strategies: {known}.")
    client = name_client(person, message.client_id)
    available = Available(serving.store, client)
    while True:
        with serving.sampling:
            chosen = order({"strategy": strategy}, available)
            if not chosen:
                return _say_nothing_left(available)
            image = str(chosen["id"])
            serving.store.lease(image, client)
        try:
            volume = serving.store.open_volume(image)  # which may have to come from the PACS
            break
        except InputError as error:
            logger.warning("%s is no sample: %s", image, error)
            available.unusable[image] = error
    info = serving.store.get_image_info(image)
    shown = info.get("strategy")
    shown = dict(shown) if isinstance(shown, dict) else {}
    shown[strategy] = {"ts": int(time.time()), "client_id": client}
    serving.store.update_image_info(image, {"strategy": shown})
    serving.store.note_seen(image, client)
    serving.audit.record(person, "next sample", image)
    del info["path"]
    scan = find_scan(volume)
    # Slicer keeps downloads by their name, and knows by this whether they are the same scan.
    stat = scan.stat()
    info["checksum"] = f"SHA256:{_measure(scan, stat.st_mtime_ns, stat.st_size)}"
    return {**info, "id": image, **({"path": str(scan)} if local else {})}


def _say_nothing_left(available: Available) -> dict[str, Any]:
    """Return the answer that there is no scan; raise why the last one could not be used."""
    for error in available.unusable.values():
        if not isinstance(error, NotFoundError):
            raise error
    return {}


@lru_cache(maxsize=10_000)
def _measure(path: Path, changed_ns: int, size: int) -> str:
    return measure_sha256(path)
