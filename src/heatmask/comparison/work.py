"""What has to be computed, cut into tasks that several processes share through the store."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from dataclasses import dataclass
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from heatmask.bundle import read_bundle, run_bundle
from heatmask.comparison.cascade import SimilarityScoring
from heatmask.comparison.entries import CONFIGS, Entry
from heatmask.comparison.faithfulness import FaithfulnessScoring
from heatmask.comparison.floors import FewMasks, FloorScoring
from heatmask.comparison.heatmaps import Explanations
from heatmask.comparison.retraining import TRAIN, Retraining, Trial
from heatmask.comparison.scores import Scoring
from heatmask.comparison.store import Kept, Store
from heatmask.comparison.subjects import (
    Subjects,
    Volumes,
    keep_usable,
    list_subjects,
    list_volumes,
)
from heatmask.device import resolve_device
from heatmask.errors import HeatmaskError, OptionError
from heatmask.picture_scoring import PictureScorer
from heatmask.scoring import Scorer

POLL_SECONDS = 0.5
Kind = Literal["masks", "faithfulness", "similarity", "floors", "few masks", "retraining"]


@dataclass(frozen=True)
class Place:
    """Where the data are, and where results are kept.

    Attributes
    ----------
    data
        Folder, as `heatmask evaluate` takes it.
    cache
        Folder of the store.
    split, given
        The split that is reported on, and the one whose masks rule (b) may use.
    pattern, device
        As the bundles' configs take them.
    unusable
        Subjects to leave out, each with the reason: see `heatmask.comparison.usable`.
    """

    data: str
    cache: str
    split: str = "test"
    given: str = "val"
    pattern: str | None = None
    device: str = "auto"
    unusable: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if self.split == self.given:
            raise OptionError(
                "The split reported on and the one whose masks rule (b) may use must differ, or "
                f"the masks would judge themselves; both are {self.split!r}. Change --split or "
                "--given."
            )

    @property
    def options(self) -> dict[str, Any]:
        """Options of a bundle's config."""
        pattern = {"pattern": self.pattern} if self.pattern else {}
        return {"dataset_dir": self.data, "device": self.device, **pattern}


@dataclass(frozen=True)
class Task:
    """One piece of work.

    Attributes
    ----------
    kind
        What is computed.
    entry
        Of what; of floors and learnt baselines, whose preprocessing.
    split
        On which subjects.
    trials
        Of retraining alone.
    """

    kind: Kind
    entry: Entry
    split: str
    trials: tuple[Trial, ...] = ()


@lru_cache
def read_subjects(bundle: Path, place: Place, split: str) -> Subjects:
    """Return the subjects of a split, as a bundle's evaluation lists them."""
    return list_subjects(_open_scorer(bundle, place, split), split, dict(place.unusable))


@lru_cache
def read_volumes(bundle: Path, place: Place, split: str) -> Volumes:
    """Return the labelled volumes or pictures of a split, with or without masks."""
    return list_volumes(_open_scorer(bundle, place, split))


def _open_scorer(bundle: Path, place: Place, split: str) -> Scorer | PictureScorer:
    scorer: Scorer | PictureScorer = run_bundle(
        read_bundle(bundle, CONFIGS, {**place.options, "split": split}), "scorer"
    )
    return scorer


def open_explanations(entry: Entry, place: Place) -> Explanations:
    """Return the heatmaps of an entry."""
    return Explanations(entry, place.options, Store(place.cache))


def open_kept(task: Task, place: Place) -> Kept[Any]:
    """Return what computes the results of a task, one for each of `list_items`."""
    entry, own = task.entry, open_explanations(task.entry, place)
    subjects = read_subjects(entry.bundle, place, task.split)
    if task.kind == "masks":
        return Scoring(own, subjects, levels=not entry.control)
    if task.kind == "faithfulness":
        return FaithfulnessScoring(own)
    if task.kind == "similarity":
        return SimilarityScoring(open_explanations(Entry(entry.bundle, entry.method), place), own)
    if task.kind == "floors":
        return FloorScoring(own, subjects)
    if task.kind == "few masks":
        return FewMasks(own, read_subjects(entry.bundle, place, place.given), subjects)
    return open_retraining(entry, place, task.split)


@lru_cache(maxsize=1)
def open_retraining(entry: Entry, place: Place, split: str) -> Retraining:
    """Return what trains; the slices that it has read serve every task of a process."""
    given, subjects = (read_subjects(entry.bundle, place, s) for s in (place.given, split))
    volumes = {s: read_volumes(entry.bundle, place, s) for s in (TRAIN, place.given, split)}
    volumes |= {part.split: keep_usable(volumes[part.split], part) for part in (given, subjects)}
    return Retraining(open_explanations(entry, place), volumes, given, subjects)


def list_items(task: Task, place: Place) -> Sequence[Any]:
    """Return the subjects of a task, or the trainings."""
    return task.trials or read_subjects(task.entry.bundle, place, task.split).subjects


def read_task(task: Task, place: Place) -> list[Any]:
    """Return the results of a task, computed where they are not there yet."""
    kept = open_kept(task, place)
    return [kept.get(item) for item in list_items(task, place)]


def read_seconds(task: Task, place: Place) -> list[float]:
    """Return what it took to compute each result of a task that was done; NaN is not known."""
    kept = open_kept(task, place)
    return [kept.read_seconds(item) for item in list_items(task, place)]


def list_steps(task: Task, place: Place) -> Iterator[Callable[[], Any]]:
    """Yield what is left to do of a task, one step for each subject or training."""
    kept = open_kept(task, place)
    for item in list_items(task, place):
        if not kept.is_done(item):
            yield partial(kept.get, item)


def do_task(task: Task, place: Place, tell: Callable[[Task], object]) -> str:
    """Compute what is left of a task, and tell after each step.

    Returns
    -------
    str
        The reason where it cannot be done, else nothing.
    """
    try:
        for step in list_steps(task, place):
            step()
            tell(task)
    except HeatmaskError as error:
        return str(error)
    return ""


def count_steps(task: Task, place: Place) -> int:
    """Return how much of a task is left to do."""
    try:
        return sum(1 for _ in list_steps(task, place))
    except HeatmaskError:
        return 1  # Said again by `do_task`, whose answer is kept


def do_tasks(
    tasks: Sequence[Task], place: Place, jobs: int | None = None
) -> tuple[dict[Task, str], int]:
    """Compute everything that is left, with a progress bar.

    Parameters
    ----------
    tasks
        The later ones may use what the earlier computed, and do not have to.
    jobs
        Processes; by default one for each core, and one alone on a GPU, which they would share.

    Returns
    -------
    dict
        Why a task could not be done, of those that could not.
    int
        How many results were computed.
    """
    left = {task: count for task in tasks if (count := count_steps(task, place))}
    if not left:
        return {}, 0
    if jobs is None:
        jobs = 1 if resolve_device(place.device).type == "cuda" else os.cpu_count() or 1
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, TimeElapsedColumn()) as progress:
        bar = progress.add_task("Comparing", total=sum(left.values()))

        def tell(task: Task) -> None:
            progress.update(bar, advance=1, description=f"{task.kind}, {task.entry.name}")

        refused = _run(list(left), place, min(jobs, len(left)), tell)
        computed = progress.tasks[bar].completed
    return refused, int(computed)


def _run(
    tasks: Sequence[Task], place: Place, jobs: int, tell: Callable[[Task], None]
) -> dict[Task, str]:
    """Return the reasons of the tasks that could not be done."""
    if jobs == 1:
        answers = {task: do_task(task, place, tell) for task in tasks}
        return {task: reason for task, reason in answers.items() if reason}
    # One thread each: two networks that share cores by threads take several times as long.
    threads = max(1, (os.cpu_count() or 1) // jobs)
    context = get_context("spawn")
    with (
        context.Manager() as manager,
        ProcessPoolExecutor(jobs, context, torch.set_num_threads, (threads,)) as pool,
    ):
        told = manager.Queue()
        refused: dict[Task, str] = {}
        waiting = {pool.submit(do_task, task, place, told.put): task for task in tasks}
        left = set(waiting)
        try:
            while left:
                done, left = wait(left, timeout=POLL_SECONDS)
                while not told.empty():
                    tell(told.get())
                refused |= {waiting[one]: reason for one in done if (reason := one.result())}
        finally:
            pool.shutdown(cancel_futures=True)  # An error must not wait for all the others
    return refused
