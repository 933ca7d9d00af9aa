"""One bundle against reference masks: what `heatmask evaluate` does."""

import copy
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from heatmask.errors import Failures
from heatmask.experiments.auroc import slice_auroc
from heatmask.experiments.baselines import BaselineScoring
from heatmask.experiments.cases import (
    GROUP,
    Case,
    Cases,
    Place,
    find_patient_column,
    list_cases,
)
from heatmask.experiments.entries import (
    Entry,
    list_label_words,
    name_network,
    read_config,
    read_methods,
)
from heatmask.experiments.heatmaps import Explanations
from heatmask.experiments.predictions import gather_predictions
from heatmask.experiments.results import Comparison, Row
from heatmask.experiments.rows import Found, make_baselines, make_rows
from heatmask.experiments.scores import OWN, UNGATED, Scores, Scoring

RIGHT_CLASS = "right class only"
"""Name of the row where a picture counts 0 if the wrong class is predicted."""
_NAMES = {"paper": "paper preset"}


def evaluate_bundle(
    bundle: Path,
    place: Place,
    options: Mapping[str, Any] | None = None,
    further_weights: Sequence[str] = (),
) -> Comparison:
    """Score a bundle's masks, beside the baselines without learning.

    Parameters
    ----------
    bundle
        Its folder.
    place
        The data; nothing is kept in a store.
    options
        Of the bundle's config.
    further_weights
        More checkpoints of the same network (other seeds). With them the table gains rows for
        each and for the mean over all, case by case.

    Returns
    -------
    Comparison
        Whose cases are those that could be scored; the others are in `Cases.left_out`.

    Raises
    ------
    InputError
        Not one case can be scored.
    """
    options = {"device": place.device, **(options or {})}
    method = str(options.get("method", read_methods(bundle)[0]))
    entry = Entry(bundle, method)
    explanations = Explanations(entry, options, None)
    name = name_network(bundle, explanations.parser.get())
    sequences = explanations.parser.get_parsed_content("sequences")
    cases = list_cases(place, sequences, list_label_words(bundle), place.split)
    networks = {
        name + f", network {number}" * (number > 1): _list_scorings(network, cases)
        for number, network in enumerate(_list_networks(entry, options, further_weights), start=1)
    }
    baseline_scoring = BaselineScoring(explanations, cases, brief=True)
    failures, results = Failures(), []
    for case in track(cases.cases, "Scoring"):
        with failures.catch(case.name):
            own = [_score_network(scorings, case) for scorings in networks.values()]
            results.append([*own, baseline_scoring.get(case)])
    cases = cases.leave_out(failures.reasons)
    *found, baselines = zip(*results, strict=True)
    by_network = dict(zip(networks, found, strict=True))
    comparison = tabulate(cases, entry, by_network, baselines)
    if cases.pictures and find_patient_column(place) == GROUP:
        guessed = "Groups are guessed from images that look alike and approximate patients."
        comparison.notes.insert(0, guessed)
    return comparison


def _list_scorings(network: Explanations, cases: Cases) -> dict[str, Scoring]:
    """Return by `OWN` what scores a network; by `UNGATED` the same with every picture masked.

    The latter only where pictures show a finding or nothing.
    """
    scorings = {OWN: Scoring(network, cases, brief=True)}
    if cases.pictures and not cases.by_class and network.pipeline.inferer.gate:
        twin = copy.copy(network)
        pipeline = twin.pipeline = copy.copy(network.pipeline)
        pipeline.inferer = replace(pipeline.inferer, gate=False)
        scorings[UNGATED] = Scoring(twin, cases, brief=True, rules=[OWN])
    return scorings


def _score_network(scorings: Mapping[str, Scoring], case: Case) -> Scores:
    scores = scorings[OWN].get(case)
    if UNGATED in scorings:
        scores["rules"][UNGATED] = scorings[UNGATED].get(case)["rules"][OWN]
    return scores


def tabulate(
    cases: Cases, entry: Entry, found: Mapping[str, Found], baselines: Found
) -> Comparison:
    """Return the table of a bundle's networks and the baselines.

    Parameters
    ----------
    found
        What each network's `heatmask.experiments.scores.Scoring` gave, by its name.
    baselines
        What `heatmask.experiments.baselines.BaselineScoring` gave.
    """
    comparison = Comparison(cases, None)
    comparison.predictions = [gather_predictions(n, own, cases) for n, own in found.items()]
    networks = {name: make_rows(entry, own) for name, own in found.items()}
    comparison.rows = [*_list_rows(comparison, networks), *make_baselines(baselines)]
    comparison.notes = list(_describe(comparison, entry, next(iter(found.values()))))
    return comparison


def _list_networks(
    entry: Entry, options: Mapping[str, Any], weights: Sequence[str]
) -> Iterator[Explanations]:
    """Yield the explanations, then those of further weights, with the calibration beside each."""
    yield Explanations(entry, options, None)
    for path in weights:
        yield Explanations(entry, {**options, "weights": path}, None)


def _list_rows(comparison: Comparison, networks: Mapping[str, Sequence[Row]]) -> list[Row]:
    """Return the rows of every network by rule; of several networks first their means."""
    means, rows = [], []
    for rule in zip(*networks.values(), strict=True):
        named = [_name_rows(n, row, comparison) for n, row in zip(networks, rule, strict=True)]
        means += [_mean_row(next(iter(networks)), same) for same in zip(*named, strict=True)]
        rows += [row for own in named for row in own]
    return means * (len(networks) > 1) + rows


def _name_rows(name: str, row: Row, comparison: Comparison) -> list[Row]:
    """Return a network's row with its name; of pictures also the one of the right class only."""
    named = replace(row, name=name if row.how == OWN else f"{name}, {_NAMES.get(row.how, row.how)}")
    if not comparison.cases.by_class:
        return [named]
    classifier = next(one for one in comparison.predictions if one.name == name)
    right = classifier.probabilities.argmax(axis=1) == classifier.labels
    counted = {key: right * named.scores[key] for key in ("dice", "iou", "mask_size")}
    scores = {**named.scores, **counted}
    return [named, replace(named, name=f"{named.name}, {RIGHT_CLASS}", scores=scores)]


def _mean_row(name: str, rows: Sequence[Row]) -> Row:
    """Return the mean of several networks' rows, case by case."""
    scores = {key: np.mean([r.scores[key] for r in rows], axis=0) for key in rows[0].scores}
    mean = f"{name}, mean of {len(rows)} networks"
    return replace(rows[0], name=rows[0].name.replace(name, mean, 1), scores=scores)


def _describe(comparison: Comparison, entry: Entry, found: Found) -> Iterator[str]:
    """Yield sentences for under the table."""
    pictures, predictions = comparison.cases.pictures, comparison.predictions
    if len(found[0]["predicted"]) > 1 and not pictures:
        names = np.array(read_config(entry.bundle)["class_names"])
        predicted = Counter(" and ".join(names[one["predicted"]]) or "none" for one in found)
        counts = ", ".join(f"{name} {count}" for name, count in predicted.most_common())
        yield f"{predictions[0].name}: volumes by the class predicted: {counts}."
    for one in predictions if len(predictions) > 1 else ():
        if comparison.cases.by_class:
            macro_f1, accuracy = one.class_scores.macro_f1.mean, one.class_scores.accuracy.mean
            yield f"{one.name}: macro F1 {macro_f1:.3f}, accuracy {accuracy:.3f}."
        elif pictures:
            yield f"{one.name}: AUROC {slice_auroc(one.labels, one.any_class):.3f}."
        else:
            auroc, within = slice_auroc(one.labels, one.any_class), one.within_deciles.mean
            yield f"{one.name}: slice AUROC {auroc:.3f}, within position deciles {within:.3f}."
