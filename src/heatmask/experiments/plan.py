"""What a request asks for, as tasks."""

from collections.abc import Sequence
from dataclasses import dataclass

from heatmask.errors import OptionError
from heatmask.experiments.cases import Place
from heatmask.experiments.controls import list_stages
from heatmask.experiments.entries import (
    Entry,
    Plan,
    Refusal,
    is_single_pass,
    list_draws,
    read_methods,
)
from heatmask.experiments.retraining import METHOD, QUANTILES, Trial, list_trials
from heatmask.experiments.work import Task, open_explanations

CASCADED = ("guided_backprop", "grad_cam")
"""Methods of the plain classifiers whose networks are made to forget stage by stage."""


@dataclass(frozen=True)
class Request:
    """What `heatmask compare` was asked.

    Attributes
    ----------
    bundles, methods
        Names; none for all that fit the data.
    quick
        Single-pass methods, one seed.
    seeds
        Of retraining.
    jobs
        Processes; None for one a core.
    parts
        What is looked into beside the masks: of `PARTS`.
    """

    bundles: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    quick: bool = False
    seeds: int = 3
    jobs: int | None = None
    parts: tuple[str, ...] = ("few-masks", "retraining", "faithfulness", "cascade")

    def __post_init__(self) -> None:
        for name, number in (("seeds", self.seeds), ("jobs", self.jobs)):
            if number is not None and number < 1:
                raise OptionError(f"--{name} must be at least 1, got {number}.")


PARTS = Request.parts


def list_tasks(plan: Plan, request: Request, place: Place, has_given: bool) -> list[Task]:
    """Return every task of a plan, the slowest last."""
    first, split = plan.entries[0], place.split
    controls = [draw for entry in plan.entries for draw in list_draws(entry)]
    tasks = [Task("baselines", first, split)]
    tasks += [Task("masks", entry, split) for entry in [*plan.entries, *controls]]
    tasks += [Task("memory", entry, split) for entry in plan.entries]
    if has_given:
        tasks += [Task("masks", e, place.given) for e in plan.entries if is_single_pass(e.method)]
    if "faithfulness" in request.parts:
        flat = [entry for entry in plan.entries if _is_flat(entry, place)]
        judged = [*flat, *(list_draws(entry)[0] for entry in flat)]
        tasks += [Task("faithfulness", entry, split) for entry in judged]
    if "cascade" in request.parts:
        for entry in _choose_cascaded(plan):
            forgetful = [
                Entry(entry.bundle, entry.method, f"cascade:{n + 1}")
                for n in range(len(name_stages(entry, place)))
            ]
            tasks += [Task("masks", other, split) for other in forgetful]
            tasks += [Task("similarity", other, split) for other in forgetful]
    if "few-masks" in request.parts and has_given:
        tasks.append(Task("few masks", first, split))
    if "retraining" in request.parts and has_given:
        tasks += list_retraining(plan, request, place)
    return tasks


def list_retraining(
    plan: Plan, request: Request, place: Place, quantiles: Sequence[float] | None = None
) -> list[Task]:
    """Return a task for each seed and split learnt from, for the first bundle with Grad-CAM."""
    able = [b for b in plan.bundles if METHOD in read_methods(b)[1]]
    flat = [b for b in able if _is_flat(Entry(b, METHOD), place)]
    if not flat:
        return []
    seeds = range(1 if request.quick else request.seeds)
    trials = list_trials(seeds, quantiles or QUANTILES, place.given)
    entry = Entry(flat[0], read_methods(flat[0])[0])
    groups: dict[tuple[int, str], list[Trial]] = {}
    for trial in trials:
        groups.setdefault((trial.seed, trial.learns), []).append(trial)
    return [Task("retraining", entry, place.split, tuple(own)) for own in groups.values()]


def refuse_faithfulness(plan: Plan, place: Place) -> list[Refusal]:
    """Return which bundles are not asked what single pixels do, and why."""
    reason = "its network takes blocks of slices, and pixels are removed from single ones"
    blocks = [entry.bundle for entry in plan.entries if not _is_flat(entry, place)]
    return [Refusal(b.name, "deletion and insertion", reason) for b in dict.fromkeys(blocks)]


def _is_flat(entry: Entry, place: Place) -> bool:
    """Whether a bundle's network takes slices: what is asked of single images needs that."""
    network = open_explanations(entry, place).parser["network_def"]
    return int(network.get("spatial_dims", 2)) == 2  # some networks know slices alone


def _choose_cascaded(plan: Plan) -> list[Entry]:
    """Return own heatmaps, and a few methods of the bundle that offers the most."""
    most = max(plan.bundles, key=lambda bundle: len(read_methods(bundle)[1]))
    return [
        entry
        for entry in plan.entries
        if entry.method == "inherent" or (entry.bundle == most and entry.method in CASCADED)
    ]


def name_stages(entry: Entry, place: Place) -> list[str]:
    """Return the parts of an entry's network that forget one by one, from the input on."""
    return list_stages(open_explanations(entry, place).parser.get_parsed_content("network_def"))
