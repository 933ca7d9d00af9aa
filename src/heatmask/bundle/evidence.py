"""How well each bundle did on scans of which sequence, and which bundles come first.

The evidence is `eval_metrics` in a bundle's metadata.json: ``mean_dice_CODE`` per volume and
``mean_slice_dice_CODE`` on pictures or single slices. CODE is a sequence as BraTS names its files
(`CODES`); without one, or with ``both``, the network was given all its sequences.
"""

import json
import logging
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heatmask.bundle.find import list_folders, read_metadata
from heatmask.data.recognition.sequence import check_sequences
from heatmask.errors import HeatmaskError

logger = logging.getLogger(__name__)

CODES = {"t1n": "T1", "t1c": "T1-Gd", "t2w": "T2", "t2f": "FLAIR"}


@dataclass(frozen=True)
class Evidence:
    """A mean Dice against reference masks.

    Attributes
    ----------
    sequences
        What the network was given.
    dice
        From 0 to 1.
    single_slices
        Whether it was measured on pictures or single slices; otherwise per volume.
    """

    sequences: frozenset[str]
    dice: float
    single_slices: bool = False

    def __str__(self) -> str:
        what = "single slices of " if self.single_slices else ""
        return f"Dice {self.dice:.2f} on {what}{join_sequences(self.sequences)}"


@dataclass(frozen=True)
class BundleInfo:
    """A bundle as its configs describe it.

    Attributes
    ----------
    folder
        Where it lies; its name is the bundle's.
    sequences
        What its network takes, in the order of its channels.
    metadata
        Content of metadata.json; empty without one.
    evidence
        The best first.
    refuses_volumes
        Whether it takes single slices alone.
    """

    folder: Path
    sequences: tuple[str, ...]
    metadata: Mapping[str, Any]
    evidence: tuple[Evidence, ...]
    refuses_volumes: bool = False

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def best(self) -> Evidence | None:
        """The highest Dice, on whatever sequences; None if none was measured."""
        return self.evidence[0] if self.evidence else None

    def find_evidence(self, sequences: Iterable[str]) -> Evidence | None:
        """Return how well it did on what it takes of these sequences; None if not measured.

        None too if it refuses volumes: nothing here says whether a scan is a single slice.
        """
        if self.refuses_volumes:
            return None
        seen = {*self.sequences} & {*sequences}
        return next((found for found in self.evidence if found.sequences == seen), None)


def list_bundles(places: Iterable[Path] | None = None) -> list[BundleInfo]:
    """Return all bundles as `order_bundles` puts them for any scan.

    One whose configs cannot be read is left out, with a warning.

    Parameters
    ----------
    places
        Folders of bundles, by default `heatmask.bundle.find.list_places`.
    """
    return order_bundles(filter(None, map(_try_read, list_folders(places))))


def order_bundles(
    bundles: Iterable[BundleInfo], sequences: Collection[str] = ()
) -> list[BundleInfo]:
    """Return bundles with the best one first.

    Parameters
    ----------
    sequences
        Of the scans to work on: bundles that were measured on them come first, by their Dice.
        The others follow by their best Dice on anything, and then those without any, by name. Dice
        counts to one digit, for a few patients tell no more; of equals those that take more
        sequences come first, then the higher Dice.
    """

    def rank(bundle: BundleInfo) -> tuple[float, float, int, float, float, str]:
        scores = (bundle.find_evidence(sequences), bundle.best)
        fitting, best = (-score.dice if score else 1.0 for score in scores)
        rough = round(fitting, 1), round(best, 1), -len(bundle.sequences)
        return *rough, fitting, best, bundle.name

    return sorted(bundles, key=rank)


def read_info(folder: Path) -> BundleInfo:
    """Read what the configs of a bundle say about it.

    Raises
    ------
    HeatmaskError
        The metadata or `sequences` are not what they must be.
    OSError, ValueError, TypeError
        The config cannot be read.
    """
    config = json.loads((folder / "configs/inference.json").read_text("utf-8"))
    metadata = read_metadata(folder)
    sequences = check_sequences(config.get("sequences", ["FLAIR"]))
    metrics = metadata.get("eval_metrics", {})
    evidence = read_evidence(metrics, sequences)
    single = bool(config.get("single_slices", False))
    return BundleInfo(folder, sequences, metadata, evidence, single)


def read_evidence(metrics: Mapping[str, Any], sequences: Iterable[str]) -> tuple[Evidence, ...]:
    """Return the Dice among a bundle's `eval_metrics`, the best first.

    Parameters
    ----------
    metrics
        Numbers by name; names that are no Dice are passed over.
    sequences
        What the network takes.
    """
    found = []
    for name, value in metrics.items():
        match = re.fullmatch(r"mean_(slice_)?dice(?:_(both|" + "|".join(CODES) + "))?", name)
        if match:
            given = {CODES[match[2]]} if match[2] in CODES else {*sequences}
            found.append(Evidence(frozenset(given), float(value), bool(match[1])))
    return tuple(sorted(found, key=lambda evidence: -evidence.dice))


def list_sequences(bundles: Iterable[BundleInfo]) -> list[str]:
    """Return the sequences that bundles take, without repetition."""
    taken = (name for bundle in bundles for name in bundle.sequences)
    return list(dict.fromkeys(taken)) or ["FLAIR"]


def join_sequences(sequences: Iterable[str]) -> str:
    """Return sequences as text: "FLAIR and T1-Gd"."""
    return " and ".join(sorted(sequences))


def _try_read(folder: Path) -> BundleInfo | None:
    try:
        return read_info(folder)
    except (OSError, ValueError, TypeError, HeatmaskError) as error:
        logger.warning("Left out the bundle '%s', which cannot be read: %s", folder, error)
        return None
