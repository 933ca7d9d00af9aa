"""From a plan to a comparison: compute what is missing, then read everything from the store."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from heatmask.errors import HeatmaskError, InputError
from heatmask.experiments.bootstrap import Interval
from heatmask.experiments.cases import Cases, Place
from heatmask.experiments.entries import (
    Entry,
    Plan,
    Refusal,
    find_bundles,
    make_plan,
    read_methods,
)
from heatmask.experiments.outcomes import summarise_trials
from heatmask.experiments.plan import (
    PARTS,
    Request,
    list_retraining,
    list_tasks,
    name_stages,
    refuse_faithfulness,
)
from heatmask.experiments.results import NAN, Comparison, Depth
from heatmask.experiments.retraining import METHOD, QUANTILES
from heatmask.experiments.rows import add_rows
from heatmask.experiments.usable import leave_out
from heatmask.experiments.work import (
    Task,
    do_tasks,
    read_cases,
    read_seconds,
    read_task,
)


def compare(request: Request, place: Place) -> Comparison:
    """Compute what is not in the store, and return everything.

    Raises
    ------
    HeatmaskError
        The data cannot be compared at all. What one method or bundle cannot do is a refusal.
    """
    start = time.perf_counter()
    place.check_splits()
    bundles = find_bundles(request.bundles, place)
    plan = make_plan(bundles, request.methods, request.quick)
    if not plan.entries:
        raise InputError("There must be a method to compare; none of those given can be done.")
    first = plan.entries[0].bundle
    place = leave_out(plan.bundles, place)
    cases = read_cases(first, place, place.split)
    given, notes = _read_given(first, place)
    tasks = list_tasks(plan, request, place, given is not None)
    refused, computed = do_tasks(tasks, place, request.jobs)
    done = [task for task in tasks if task not in refused]
    unasked = refuse_faithfulness(plan, place) if "faithfulness" in request.parts else []
    comparison = Comparison(cases, given, refused=[*plan.refused, *unasked, *_explain(refused)])
    add_rows(comparison, done, place)
    if not comparison.find_headlines():
        reasons = "\n  ".join(dict.fromkeys(refused.values()))
        raise InputError(f"There must be a method that can be scored; none could:\n  {reasons}")
    _add_experiments(comparison, done, place)
    comparison.memory_gb = {
        task.entry: read_task(task, place)[0] for task in done if task.kind == "memory"
    }
    times = [seconds for task in done for seconds in read_seconds(task, place)]
    comparison.settings = {
        "data": Path(place.data).name, "split": place.split, "pattern": place.pattern or "none",
        "quick": request.quick, "seconds": round(time.perf_counter() - start, 1),
        "computed": computed, "results": len(times), "work_seconds": round(sum(times), 1),
    }  # fmt: skip
    comparison.notes = [*notes, *_describe_run(comparison, plan, request)]
    return comparison


def _read_given(bundle: Path, place: Place) -> tuple[Cases | None, list[str]]:
    """Return the cases whose masks may be used, or None and a sentence that says why."""
    try:
        return read_cases(bundle, place, place.given), []
    except HeatmaskError as error:
        reason = str(error).splitlines()[0]
        return None, [f"No rule (b), few masks or retraining, as there are no masks: {reason}"]


def _describe_run(comparison: Comparison, plan: Plan, request: Request) -> list[str]:
    settings = comparison.settings
    lines = [
        f"This run took {settings['seconds'] / 60:.1f} minutes; it computed {settings['computed']} "
        "results anew and took the others from the cache. Computing them took "
        f"{settings['work_seconds'] / 3600:.1f} hours in all, summed over processes."
    ]
    if request.quick:
        lines.append("Quick: methods of a single pass, and one seed of retraining.")
    if left := [part for part in PARTS if part not in request.parts]:
        lines.append(f"Left out on request: {', '.join(left)}.")
    if comparison.given is not None:
        lines.append("Rule (b) was asked of methods of a single pass alone.")
    lines += _count_methods(plan)
    return lines


def _count_methods(plan: Plan) -> list[str]:
    """Return how many methods were compared where a bundle offers more."""
    counts = []
    for bundle in plan.bundles:
        compared = sum(entry.bundle == bundle for entry in plan.entries)
        offered = len(read_methods(bundle)[1])
        if compared < offered:
            counts.append(f"{compared} of {offered} of {Entry(bundle, '').label}")
    return [f"Not all methods that a bundle offers: {', '.join(counts)}."] if counts else []


def retrain(
    bundle: str | None,
    place: Place,
    seeds: int = 3,
    quantiles: Sequence[float] = QUANTILES,
    jobs: int | None = None,
) -> Comparison:
    """Run the experiment of retraining on filtered images alone.

    Parameters
    ----------
    bundle
        Name or folder; None for the first bundle of slices that offers Grad-CAM.
    quantiles
        Shares of the head that masks hold.

    Raises
    ------
    InputError
        The bundle cannot do it, or no case has a reference mask.
    """
    request = Request(seeds=seeds, jobs=jobs)
    place.check_splits()
    plan = Plan(find_bundles([bundle] if bundle else [], place))
    place = leave_out(plan.bundles, place)
    tasks = list_retraining(plan, request, place, quantiles)
    if not tasks:
        raise InputError(
            f"Retraining needs a bundle of slices that offers {METHOD}; "
            f"{', '.join(folder.name for folder in plan.bundles)} is none."
        )
    refused, _ = do_tasks(tasks, place, jobs)
    for reason in refused.values():
        raise InputError(reason)
    first = tasks[0].entry.bundle
    given, cases = (read_cases(first, place, s) for s in (place.given, place.split))
    comparison = Comparison(cases, given)
    _add_experiments(comparison, tasks, place)
    return comparison


def _explain(refused: Mapping[Task, str]) -> list[Refusal]:
    found = [
        Refusal(task.entry.bundle.name, _name(task), " ".join(reason.split()))
        for task, reason in refused.items()
        if task.kind != "memory"
    ]
    return list(dict.fromkeys(found))


def _name(task: Task) -> str:
    method = task.entry.name.split(", ", 1)[-1]
    return method if task.kind == "masks" else f"{task.kind} ({method})"


def _add_experiments(comparison: Comparison, done: Sequence[Task], place: Place) -> None:
    for task in done:
        if task.kind == "faithfulness":
            comparison.faithfulness[task.entry] = read_task(task, place)
    retraining = [task for task in done if task.kind == "retraining"]
    if retraining:
        results = {
            trial: found
            for task in retraining
            for trial, found in zip(task.trials, read_task(task, place), strict=True)
        }
        comparison.outcomes = summarise_trials(results)
        comparison.retrained = retraining[0].entry.label
    for task in done:
        if task.kind == "similarity":
            trained = Entry(task.entry.bundle, task.entry.method)
            start = _make_depth(comparison, trained, 0, "none", 1.0)
            number = int(task.entry.control.split(":")[1])
            last = name_stages(task.entry, place)[-number]
            alike = np.array(read_task(task, place), float)
            similarity = float(np.nanmean(alike)) if np.isfinite(alike).any() else NAN
            depth = _make_depth(comparison, task.entry, number, last, similarity)
            comparison.cascades.setdefault(trained, [start]).append(depth)


def _make_depth(
    comparison: Comparison, entry: Entry, number: int, last: str, similarity: float
) -> Depth:
    trained = comparison.find_row(Entry(entry.bundle, entry.method))
    row = comparison.find_row(entry)
    difference = Interval(NAN, NAN, NAN)
    if row and trained:
        difference = comparison.subtract(row, trained)
    return Depth(number, last, row.mean("dice") if row else NAN, difference, similarity)
