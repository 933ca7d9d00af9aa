"""What a bundle of a user's own is for, as the table of labels says."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from heatmask.data.label_table import LabelTable
from heatmask.data.paths import PICTURE_SUFFIXES, is_picture
from heatmask.data.recognition import find_clue
from heatmask.data.recognition.sequence import UNKNOWN
from heatmask.errors import InputError, OptionError


@dataclass(frozen=True)
class OwnTask:
    """What a bundle is to be trained for.

    Attributes
    ----------
    class_names : what the network has a logit for, in order
    negatives : whether an image may show none of them
    pictures : whether the images are 2D without pixel size; all are scaled to one size then
    sequences : what the channels are, as in the bundle's config
    """

    class_names: tuple[str, ...]
    negatives: bool
    pictures: bool
    sequences: tuple[str, ...]

    @property
    def none_logit(self) -> bool:
        """Whether "none" takes part in the softmax, with the logit 0."""
        return self.negatives and len(self.class_names) > 1


def describe_task(
    table: LabelTable, sequences: Sequence[str], chosen: bool = False, fine_tune: bool = False
) -> OwnTask:
    """Say what a table of labels asks of a bundle.

    Parameters
    ----------
    table
        The labels.
    sequences
        What the bundle takes.
    chosen
        Whether the user chose them. If not, the network gets a channel for each sequence that
        the images are by their names, and a single one where these do not say, or for pictures.
    fine_tune
        Whether training goes on from weights for all of `sequences`, which then keep their
        channels.

    Raises
    ------
    InputError
        Pictures, which have no pixel size, are mixed with scans.
    OptionError
        The names speak of several sequences, not all of which the bundle takes.
    """
    paths = {row.path for row in table.rows}
    flat = [row for row in table.rows if is_picture(row.path)]
    if flat and len(flat) < len(table.rows):
        scan = next(row for row in table.rows if not is_picture(row.path))
        raise InputError(
            f"Pictures ({', '.join(PICTURE_SUFFIXES)}) have no pixel size and scans have, so that "
            f"one bundle cannot learn from both: line {flat[0].line} has '{flat[0].path.name}', "
            f"line {scan.line} '{scan.path.name}'. Train a bundle for each."
        )
    if not chosen:
        sequences = _choose_sequences(paths, tuple(sequences), bool(flat), fine_tune)
    return OwnTask(table.class_names, table.has_negatives, bool(flat), tuple(sequences))


def _choose_sequences(
    paths: set[Path], sequences: tuple[str, ...], pictures: bool, fine_tune: bool
) -> tuple[str, ...]:
    if pictures:
        return (UNKNOWN,)
    found = {find_clue(path).sequence for path in paths} - {UNKNOWN}
    if found <= set(sequences):
        present = tuple(name for name in sequences if name in found)
        return sequences if fine_tune else present or sequences[:1]
    if len(found) > 1:
        raise OptionError(
            f"By their names the images are {', '.join(sorted(found))}, and the bundle takes "
            f"{', '.join(sequences)}. Give the sequences that an image may be, for example --set "
            '\'sequences=["FLAIR","T1-Gd"]\', or train on a table for each.'
        )
    return tuple(found)
