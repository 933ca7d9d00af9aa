"""What has to be computed, cut into tasks that several processes share through the store."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from joblib import Parallel, delayed, parallel_config
from rich.progress import track

from heatmask.device import resolve_device
from heatmask.errors import HeatmaskError
from heatmask.experiments.baselines import BaselineScoring
from heatmask.experiments.cases import (
    Cases,
    Place,
    Volumes,
    keep_usable,
    list_cases,
    list_volumes,
    read_pictures,
)
from heatmask.experiments.entries import Entry, list_label_words, read_config
from heatmask.experiments.faithfulness import FaithfulnessScoring, SimilarityScoring
from heatmask.experiments.few_masks import FewMasks
from heatmask.experiments.heatmaps import Explanations, MemoryMeasuring
from heatmask.experiments.retraining import TRAIN, Retraining, Trial
from heatmask.experiments.scores import Scoring
from heatmask.experiments.store import Kept, Store

Kind = Literal[
    "masks", "memory", "faithfulness", "similarity", "baselines", "few masks", "retraining"
]


@dataclass(frozen=True)
class Task:
    """One piece of work.

    Attributes
    ----------
    kind
        What is computed.
    entry
        Of what; of baselines with and without training, whose preprocessing.
    split
        On which cases.
    trials
        Of retraining alone.
    """

    kind: Kind
    entry: Entry
    split: str
    trials: tuple[Trial, ...] = ()


@lru_cache
def read_cases(bundle: Path, place: Place, split: str) -> Cases:
    """Return the cases of a split, as a bundle takes them."""
    sequences = read_config(bundle)["sequences"]
    return list_cases(place, sequences, list_label_words(bundle), split)


@lru_cache
def read_volumes(bundle: Path, place: Place, split: str) -> Volumes:
    """Return the labelled volumes or pictures of a split, with or without masks."""
    if place.pictures:
        return read_pictures(place, list_label_words(bundle)).select(split)
    return list_volumes(place, read_config(bundle)["sequences"], split, place.pattern)


def open_explanations(entry: Entry, place: Place) -> Explanations:
    """Return the heatmaps of an entry."""
    return Explanations(entry, {"device": place.device}, Store(place.cache))


def open_kept(task: Task, place: Place) -> Kept[Any]:
    """Return what computes the results of a task, one for each of `list_items`."""
    entry, own = task.entry, open_explanations(task.entry, place)
    cases = read_cases(entry.bundle, place, task.split)
    match task.kind:
        case "masks":
            return Scoring(own, cases)
        case "memory":
            return MemoryMeasuring(own)
        case "faithfulness":
            return FaithfulnessScoring(own)
        case "similarity":
            return SimilarityScoring(
                open_explanations(Entry(entry.bundle, entry.method), place), own
            )
        case "baselines":
            return BaselineScoring(own, cases)
        case "few masks":
            return FewMasks(own, read_cases(entry.bundle, place, place.given), cases)
    return open_retraining(entry, place, task.split)


@lru_cache(maxsize=1)
def open_retraining(entry: Entry, place: Place, split: str) -> Retraining:
    """Return what trains; the slices that it has read serve every task of a process."""
    given, cases = (read_cases(entry.bundle, place, s) for s in (place.given, split))
    volumes = {s: read_volumes(entry.bundle, place, s) for s in (TRAIN, place.given, split)}
    volumes |= {part.split: keep_usable(volumes[part.split], part) for part in (given, cases)}
    return Retraining(open_explanations(entry, place), volumes, given, cases)


def list_items(task: Task, place: Place) -> Sequence[Any]:
    """Return the cases of a task, or the trainings; of memory the first case."""
    items = task.trials or read_cases(task.entry.bundle, place, task.split).cases
    return items[:1] if task.kind == "memory" else items


def read_task(task: Task, place: Place) -> list[Any]:
    """Return the results of a task, computed where they are not there yet."""
    kept = open_kept(task, place)
    return [kept.get(item) for item in list_items(task, place)]


def read_seconds(task: Task, place: Place) -> list[float]:
    """Return what it took to compute each result of a task that was done."""
    kept = open_kept(task, place)
    return [kept.read_seconds(item) for item in list_items(task, place)]


def do_task(task: Task, place: Place) -> tuple[int, str]:
    """Compute what is left of a task.

    Returns
    -------
    int
        How many results were computed.
    str
        The reason where it cannot be done, else nothing.
    """
    computed = 0
    try:
        kept = open_kept(task, place)
        for item in list_items(task, place):
            if not kept.is_done(item):
                kept.get(item)
                computed += 1
    except HeatmaskError as error:
        return computed, str(error)
    return computed, ""


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
    left = [task for task in tasks if not _is_done(task, place)]
    if not left:
        return {}, 0
    cores = os.cpu_count() or 1
    jobs = jobs or (1 if resolve_device(place.device).type == "cuda" else cores)
    # Few threads each: networks that share cores by threads take several times as long.
    threads = max(1, cores // jobs) if jobs > 1 else None
    with parallel_config("loky", n_jobs=jobs, inner_max_num_threads=threads):
        answers = Parallel(return_as="generator")(delayed(do_task)(task, place) for task in left)
        found = list(track(answers, "Comparing", total=len(left)))
    refused = {task: why for task, (_, why) in zip(left, found, strict=True) if why}
    return refused, sum(computed for computed, _ in found)


def _is_done(task: Task, place: Place) -> bool:
    try:
        kept = open_kept(task, place)
        return all(kept.is_done(item) for item in list_items(task, place))
    except HeatmaskError:
        return False  # Said again by `do_task`, whose answer is kept
