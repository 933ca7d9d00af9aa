"""Score a bundle on single 2D pictures with reference masks, beside the floors without learning."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from heatmask.data.label_table import LabelledImage, LabelTable
from heatmask.errors import Failures, InputError, raise_failures
from heatmask.evaluation.picture_report import write_pictures
from heatmask.evaluation.pictures import (
    RIGHT_CLASS,
    Picture,
    PictureEvaluation,
    evaluate_pictures,
)
from heatmask.pipeline import Pipeline
from heatmask.scoring import (
    Variants,
    add_means,
    check_some,
    join_names,
    list_methods,
    list_networks,
    load_reference,
    make_masks,
)

NO_REFERENCE = "It has no reference mask in the table."


@dataclass
class PictureScorer:
    """Run a segmenter, and further weights of its network, over pictures and score them all.

    Attributes
    ----------
    segmenter
        The bundle's, of two classes or more; its mask is the first method.
    name
        What the table calls it.
    table
        The pictures with their classes; its column of patients tells what the bootstrap draws.
    references
        Picture to the file of its reference mask: 0 outside, anything else inside (see
        `heatmask.data.label_table.read_references`).
    split
        Which pictures of the table to score; each must show one of the classes.
    variants
        Name to a transform that makes ``"mask"`` anew from a result: further methods.
    further_weights
        More checkpoints of the same network (other seeds). With them the table gains rows for
        each and for the mean over all, picture by picture.
    notes
        Sentences for under the table.
    """

    segmenter: Pipeline
    name: str
    table: LabelTable
    references: Mapping[Path, Path]
    split: str = "test"
    variants: Variants = field(default_factory=dict)
    further_weights: Sequence[str] = ()
    notes: Sequence[str] = ()

    def run(self, output_dir: str | Path) -> PictureEvaluation:
        """Score, write tables, figure and per-picture CSV to `output_dir`, return the scores.

        Raises
        ------
        HeatmaskError
            After all is written, if a picture could not be scored, with the reason of each: it
            has no reference mask, shows none of the classes, ...
        """
        evaluation = self.score(output_dir)
        raise_failures(evaluation.left_out, evaluation.n_asked, "pictures")
        return evaluation

    def score(self, output_dir: str | Path) -> PictureEvaluation:
        """Do what `run` does, and leave those that could not be scored to the caller.

        Raises
        ------
        InputError
            None of the pictures can be scored; nothing is written.
        """
        images = self.table.select(self.split)
        if not images:
            raise InputError(f"The split {self.split!r} must have pictures, the table has none.")
        segmenters = list_networks(self.segmenter, self.name, self.further_weights)
        failures = Failures()
        evaluation = evaluate_pictures(
            check_some(self._make_pictures(images, segmenters, failures), failures),
            list_methods(segmenters, self.variants),
            self.table.class_names,
            self.notes,
        )
        evaluation.left_out = failures.reasons
        if len(segmenters) > 1:
            evaluation.notes += tuple(_describe_networks(evaluation, segmenters))
            variants = [v for own in ("", *self.variants) for v in (own, _join_right_class(own))]
            add_means(evaluation, self.name, segmenters, variants)
        write_pictures(evaluation, Path(output_dir))
        return evaluation

    def _make_pictures(
        self,
        images: Sequence[LabelledImage],
        segmenters: Mapping[str, Pipeline],
        failures: Failures,
    ) -> Iterator[Picture]:
        root = os.path.commonpath([image.path.parent for image in images])
        for image in track(images, "Scoring"):
            name = image.path.relative_to(root).as_posix()
            made: list[Picture] = []
            with failures.catch(name):
                made = [self._make_picture(name, image, segmenters)]
            yield from made

    def _make_picture(
        self, name: str, image: LabelledImage, segmenters: Mapping[str, Pipeline]
    ) -> Picture:
        reference, class_idx = self.references.get(image.path), self._find_class(image)
        if reference is None:
            raise InputError(NO_REFERENCE)
        masks: dict[str, NDArray] = {}
        probabilities: dict[str, NDArray] = {}
        for network, segmenter in segmenters.items():
            result = segmenter(image.image, name)
            made = make_masks(network, result, self.variants)
            masks |= made
            probabilities |= dict.fromkeys(made, np.asarray(result.probabilities))
        return Picture(
            name=name,
            group=image.patient,
            image=np.asarray(result.scan[0]),
            masks=masks,
            reference=load_reference(reference, result.scan),
            class_idx=class_idx,
            probabilities=probabilities,
        )

    def _find_class(self, image: LabelledImage) -> int:
        (label,) = image.list_labels(1)
        if not label:
            raise InputError(
                f"A picture must show one of {', '.join(self.table.class_names)}; this one shows "
                "none. Take it out of the split."
            )
        return label - 1


def _describe_networks(
    evaluation: PictureEvaluation, names: Mapping[str, Pipeline]
) -> Iterator[str]:
    """Say how well each network predicts the classes."""
    for name in names:
        scores = evaluation.score_classes(name)
        yield (f"{name}: macro F1 {scores.macro_f1.mean:.3f}, accuracy {scores.accuracy.mean:.3f}.")


def _join_right_class(variant: str) -> str:
    return join_names(variant, RIGHT_CLASS) if variant else RIGHT_CLASS
