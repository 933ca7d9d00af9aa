"""Batch inference without a server: a model's label of every scan, overnight."""

import getpass
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from heatmask.bundle import BundleInfo, find_bundle
from heatmask.errors import HeatmaskError, list_reasons
from heatmask.serving.app import make_tasks
from heatmask.serving.opening import open_studies
from heatmask.serving.store import Store
from heatmask.serving.web.batch import Batch
from heatmask.serving.web.jobs import Jobs
from heatmask.serving.web.limits import Limits
from heatmask.serving.web.messages import BatchMessage, Chosen, read_message
from heatmask.serving.web.metrics import Metrics

_LOOK_EVERY_S = 0.2


def prelabel(
    studies: str | Path,
    workdir: Path,
    bundles: Sequence[BundleInfo],
    console: Console,
    *,
    bundle: str | None = None,
    device: str = "auto",
    pattern: str | None = None,
    filters: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
    again: bool = False,
) -> None:
    """Make the ``original`` label of every study, where a server of the same folder finds them.

    Parameters
    ----------
    studies, workdir, bundles, pattern, filters
        As `heatmask.serving.opening.open_studies`.
    console
        Where progress and summary are shown.
    bundle
        Name or folder of the model, by default the one that did best on most of the studies.
    device
        Where the network runs.
    options
        Of the model, as in the options panel.
    again
        Also for scans that have a label of this version of the model.

    Raises
    ------
    HeatmaskError
        At the end, if scans failed, with the reason of each; the others have their labels. Or at
        once: a server is at work on the folder, an option is wrong, there is no study.
    """
    message = read_message(json.dumps({**(options or {}), "resume": not again}), BatchMessage)
    opened = open_studies(studies, workdir, bundles, pattern, filters)
    folder = find_bundle(bundle) if bundle else opened.bundles[0].folder
    ((name, task),) = make_tasks([folder], device).items()
    jobs = Jobs(1, Limits(), Metrics())
    store = Store(opened.index, opened.store, source=opened.source)
    try:
        with TemporaryDirectory(dir=opened.store) as tmp:
            batch = Batch(task, name, message, store, jobs, Path(tmp), getpass.getuser())
            batch.start(Chosen.ALL)
            _follow(batch, console)
            jobs.stop()
            jobs.join()
    finally:
        store.close()
    _sum_up(batch, console)


def _follow(batch: Batch, console: Console) -> None:
    """Show how far a run is until it ends; Ctrl-C stops it, and what is made stays."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task("Labelling", total=batch.total)
        try:
            while batch.is_running:
                progress.update(task, completed=batch.done)
                time.sleep(_LOOK_EVERY_S)
            progress.update(task, completed=batch.done)
        except KeyboardInterrupt:
            batch.stop()


def _sum_up(batch: Batch, console: Console) -> None:
    failed = len(batch.failures)
    kept = f", {batch.kept} had one already" * (batch.kept > 0)
    console.print(f"{batch.done - failed} labels by {batch.model}{kept}, {failed} scans failed.")
    if batch.is_running or batch.done < batch.total:
        console.print("Stopped. The same command again goes on where it stopped.")
    if batch.failures:
        raise HeatmaskError(
            f"{failed} of {batch.total} scans failed, the others have their labels. The same "
            f"command again tries these alone:{list_reasons(batch.failures)}"
        )
