"""Score a bundle on single 2D pictures with reference masks, beside the floors without learning."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from heatmask.data.flat import read_picture
from heatmask.data.label_table import LabelledImage, LabelTable
from heatmask.errors import InputError
from heatmask.evaluation.picture_report import write_pictures
from heatmask.evaluation.pictures import (
    RIGHT_CLASS,
    Picture,
    PictureEvaluation,
    evaluate_pictures,
)
from heatmask.scoring import (
    Variants,
    add_means,
    join_names,
    list_methods,
    list_networks,
    make_masks,
)
from heatmask.segmenter import Segmenter

_SHOWN = 20


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

    segmenter: Segmenter
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
        InputError
            A picture has no reference mask (they are counted and named), shows none of the
            classes, or cannot be scored; nothing is written.
        """
        images = self._select_images()
        segmenters = list_networks(self.segmenter, self.name, self.further_weights)
        evaluation = evaluate_pictures(
            self._make_pictures(images, segmenters),
            list_methods(segmenters, self.variants),
            self.table.class_names,
            self.notes,
        )
        if len(segmenters) > 1:
            evaluation.notes += tuple(_describe_networks(evaluation, segmenters))
            variants = [v for own in ("", *self.variants) for v in (own, _join_right_class(own))]
            add_means(evaluation, self.name, segmenters, variants)
        write_pictures(evaluation, Path(output_dir))
        return evaluation

    def _select_images(self) -> tuple[LabelledImage, ...]:
        images = self.table.select(self.split)
        if not images:
            raise InputError(f"The split {self.split!r} must have pictures, the table has none.")
        total = f"of {len(images)} pictures of the split {self.split!r}"
        healthy = [str(i.path) for i in images if 0 in i.labels.values()]
        if healthy:
            raise InputError(
                f"Each picture must show one of {', '.join(self.table.class_names)}; "
                f"{len(healthy)} {total} show none:{_list_some(healthy)}\nTake them out of the "
                "split."
            )
        missing = [str(i.path) for i in images if not self._find_reference(i).is_file()]
        if missing:
            raise InputError(
                f"Each picture must have a reference mask; {len(missing)} {total} have none that "
                f"is a file:{_list_some(missing)}\nAdd them, or choose a split that has masks."
            )
        return images

    def _find_reference(self, image: LabelledImage) -> Path:
        return self.references.get(image.path, Path())  # The empty path is no file

    def _make_pictures(
        self, images: Sequence[LabelledImage], segmenters: Mapping[str, Segmenter]
    ) -> Iterator[Picture]:
        root = os.path.commonpath([image.path.parent for image in images])
        for image in track(images, "Scoring"):
            name = image.path.relative_to(root).as_posix()
            try:
                yield self._make_picture(name, image, segmenters)
            except InputError as error:
                raise InputError(f"{name}: {error}") from error

    def _make_picture(
        self, name: str, image: LabelledImage, segmenters: Mapping[str, Segmenter]
    ) -> Picture:
        masks: dict[str, NDArray] = {}
        told: dict[str, NDArray] = {}
        for network, segmenter in segmenters.items():
            result = segmenter.segment({"case": name, "image": image.image})
            made = make_masks(network, result, self.variants)
            masks |= made
            told |= dict.fromkeys(made, np.asarray(result["probabilities"]))
        (label,) = image.list_labels(1)
        if label is None:
            raise InputError("A picture is one slice; the table must label it.")
        return Picture(
            name=name,
            group=image.patient,
            image=np.asarray(result["scan"][0]),
            masks=masks,
            reference=read_picture(self._find_reference(image))[0] > 0,
            class_idx=label - 1,
            probabilities=told,
        )


def _describe_networks(
    evaluation: PictureEvaluation, names: Mapping[str, Segmenter]
) -> Iterator[str]:
    """Say how well each network tells the classes."""
    for name in names:
        scores = evaluation.score_classes(name)
        yield (f"{name}: macro F1 {scores.macro_f1.mean:.3f}, accuracy {scores.accuracy.mean:.3f}.")


def _join_right_class(variant: str) -> str:
    return join_names(variant, RIGHT_CLASS) if variant else RIGHT_CLASS


def _list_some(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    further = f"\n  and {more} more" if more > 0 else ""
    return "".join(f"\n  {name}" for name in names[:_SHOWN]) + further
