"""From a plan to a comparison: compute what is missing, then read everything from the store."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from heatmask.attribution.memory import measure_peak
from heatmask.comparison.agenda import (
    PARTS,
    Request,
    list_retraining,
    list_tasks,
    name_stages,
    refuse_faithfulness,
)
from heatmask.comparison.entries import (
    Entry,
    Plan,
    Refusal,
    find_bundles,
    make_plan,
    read_methods,
)
from heatmask.comparison.heatmaps import Explanations
from heatmask.comparison.outcomes import summarise_trials
from heatmask.comparison.results import NAN, Comparison, Depth
from heatmask.comparison.retraining import METHOD, QUANTILES
from heatmask.comparison.rows import add_rows
from heatmask.comparison.store import digest
from heatmask.comparison.subjects import Subjects
from heatmask.comparison.usable import leave_out
from heatmask.comparison.work import (
    Place,
    Task,
    do_tasks,
    open_explanations,
    read_seconds,
    read_subjects,
    read_task,
)
from heatmask.errors import HeatmaskError, InputError
from heatmask.evaluation.bootstrap import Interval
from heatmask.evaluation.classification import compute_relative_positions, position_only_auroc


def compare(request: Request, place: Place) -> Comparison:
    """Compute what is not in the store, and return everything.

    Raises
    ------
    HeatmaskError
        The data cannot be compared at all. What one method or bundle cannot do is a refusal.
    """
    start = time.perf_counter()
    pictures = (Path(place.data) / "labels.csv").is_file()
    plan = make_plan(find_bundles(request.bundles, pictures), request.methods, request.quick)
    if not plan.entries:
        raise InputError("There must be a method to compare; none of those given can be done.")
    first = plan.entries[0].bundle
    place = leave_out(plan.bundles, place)
    subjects = read_subjects(first, place, place.split)
    given, notes = _read_given(first, place)
    tasks = list_tasks(plan, request, place, given is not None)
    refused, computed = do_tasks(tasks, place, request.jobs)
    done = [task for task in tasks if task not in refused]
    unasked = refuse_faithfulness(plan, place) if "faithfulness" in request.parts else []
    comparison = Comparison(subjects, given, refused=[*plan.refused, *unasked, *_explain(refused)])
    add_rows(comparison, done, place)
    if not comparison.find_headlines():
        reasons = "\n  ".join(dict.fromkeys(refused.values()))
        raise InputError(f"There must be a method that can be scored; none could:\n  {reasons}")
    _add_experiments(comparison, done, place)
    comparison.memory_gb = {
        task.entry: _measure_memory(open_explanations(task.entry, place), comparison)
        for task in done
        if task.kind == "masks" and task.split == place.split and not task.entry.control
    }
    comparison.position_auroc = _measure_position(comparison)
    times = np.array([seconds for task in done for seconds in read_seconds(task, place)])
    comparison.settings = {
        "data": Path(place.data).name, "split": place.split, "pattern": place.pattern or "none",
        "quick": request.quick, "seconds": round(time.perf_counter() - start, 1),
        "computed": computed, "results": times.size, "timed": int(np.isfinite(times).sum()),
        "work_seconds": round(float(np.nansum(times)), 1),
    }  # fmt: skip
    comparison.notes = [*notes, *_describe_run(comparison, plan, request)]
    return comparison


def _read_given(bundle: Path, place: Place) -> tuple[Subjects | None, list[str]]:
    """Return the subjects whose masks may be used, or None and a sentence that says why."""
    try:
        return read_subjects(bundle, place, place.given), []
    except HeatmaskError as error:
        reason = str(error).splitlines()[0]
        return None, [f"No rule (b), few masks or retraining, for want of masks: {reason}"]


def _describe_run(comparison: Comparison, plan: Plan, request: Request) -> list[str]:
    settings = comparison.settings
    lines = [
        f"This run took {settings['seconds'] / 60:.1f} minutes; it computed {settings['computed']} "
        "results anew and took the others from the cache. Computing them took "
        f"{settings['work_seconds'] / 3600:.1f} hours in all, summed over processes (on record for "
        f"{settings['timed']} of {settings['results']} results)."
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
        The bundle cannot do it, or no subject has a reference mask.
    """
    request = Request(seeds=seeds, jobs=jobs)
    pictures = (Path(place.data) / "labels.csv").is_file()
    plan = Plan(find_bundles([bundle] if bundle else [], pictures))
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
    given, subjects = (read_subjects(first, place, s) for s in (place.given, place.split))
    comparison = Comparison(subjects, given)
    _add_experiments(comparison, tasks, place)
    comparison.position_auroc = _measure_position(comparison)
    return comparison


def _explain(refused: Mapping[Task, str]) -> list[Refusal]:
    found = [
        Refusal(task.entry.bundle.name, _name(task), " ".join(reason.split()))
        for task, reason in refused.items()
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
            depths = comparison.cascades.setdefault(trained, [_start_cascade(comparison, trained)])
            depths.append(_make_depth(comparison, task, place))


def _start_cascade(comparison: Comparison, trained: Entry) -> Depth:
    row = comparison.find_row(trained)
    return Depth(0, "none", row.mean("dice") if row else NAN, Interval(0.0, 0.0, 0.0), 1.0)


def _make_depth(comparison: Comparison, task: Task, place: Place) -> Depth:
    number = int(task.entry.control.split(":")[1])
    stages = name_stages(task.entry, place)
    row, trained = (
        comparison.find_row(entry)
        for entry in (task.entry, Entry(task.entry.bundle, task.entry.method))
    )
    similarity = np.array(read_task(task, place), float)
    difference = Interval(NAN, NAN, NAN)
    if row and trained:
        difference = comparison.find_interval(row.scores["dice"] - trained.scores["dice"])
    return Depth(
        number,
        stages[len(stages) - number],
        row.mean("dice") if row else NAN,
        difference,
        float(np.nanmean(similarity)) if np.isfinite(similarity).any() else NAN,
    )


def _measure_memory(explanations: Explanations, comparison: Comparison) -> float:
    """Return what explaining the first subject takes at most, in 10^9 bytes; kept in the store."""
    subject = comparison.subjects.subjects[0]
    key = digest([explanations.find_key(subject), "memory"])
    kept = explanations.store.read_json(key)
    if kept is None:
        segmenter, image = explanations.segmenter, explanations.prepare(subject)["image"][None]
        image = image.to(segmenter.device)
        with measure_peak(segmenter.device) as read_peak:
            segmenter.inferer(image, segmenter.network)
        kept = read_peak() / 1e9
        explanations.store.write_json(key, kept)
    return float(kept)


def _measure_position(comparison: Comparison) -> float:
    training = comparison.subjects.training_labels
    if not training:
        return float("nan")
    tested = [subject.labels for subject in comparison.subjects.subjects]
    known, asked = (
        np.concatenate([compute_relative_positions(len(part)) for part in parts])
        for parts in (training, tested)
    )
    return position_only_auroc(known, np.concatenate(training), asked, np.concatenate(tested))
