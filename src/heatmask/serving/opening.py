"""From what a user names, a folder or a PACS, to a flat folder of links and the models for it."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from heatmask.bundle import BundleInfo, list_sequences, order_bundles
from heatmask.bundle.choose import count_kinds, keep_taken
from heatmask.pacs import Pacs, PacsStudies, is_address
from heatmask.serving.studies import LABELS, find_pacs_index, index_pacs, index_studies


@dataclass(frozen=True)
class OpenedStudies:
    """Studies that are linked, and what is to be known of them.

    Attributes
    ----------
    name : what the user called them
    index : the flat folder
    bundles : the best for most of the studies first
    source : the PACS that they are in; None for a folder
    """

    name: str
    index: Path
    bundles: Sequence[BundleInfo]
    source: PacsStudies | None = None

    @property
    def store(self) -> Path:
        """The folder of their store."""
        return self.index / "store"

    @property
    def labels(self) -> Path | None:
        """The table of image-level labels in the folder of studies, None if there is none."""
        table = Path(self.name).expanduser().absolute() / LABELS
        return table if self.source is None and table.is_file() else None

    def configure(self, device: str) -> dict[str, str]:
        """Return the app's ``conf``."""
        folders = os.pathsep.join(str(bundle.folder) for bundle in self.bundles)
        return {"device": device, "bundles": folders}


def open_studies(
    studies: str | Path,
    workdir: Path,
    bundles: Sequence[BundleInfo],
    pattern: str | None = None,
    filters: Mapping[str, str] | None = None,
) -> OpenedStudies:
    """Link the studies of a folder, or of a PACS by its DICOMweb address, into a flat folder.

    Parameters
    ----------
    studies
        A folder, or an address such as ``http://host:8042/dicom-web``.
    workdir
        Where the flat folder is made, and what comes from a PACS is kept.
    bundles
        Models; the studies' reference scans are of the first sequence that one takes.
    pattern
        Of files in a folder, see `index_studies`.
    filters
        Of series in a PACS, see `heatmask.pacs.PacsStudies`.

    Raises
    ------
    HeatmaskError
        There is no study, the PACS does not answer, or the work folder cannot be written.
    """
    sequences = list_sequences(bundles)
    if is_address(str(studies)):
        pacs = Pacs(str(studies))
        index = find_pacs_index(pacs.url, workdir)
        source = PacsStudies(pacs, index / "series", filters)
        index_pacs(source, index, sequences)
        kinds = keep_taken(source.count_heads(), bundles)
    else:
        source, folder = None, Path(studies).expanduser()
        index = index_studies(folder, workdir, sequences, pattern)
        kinds = count_kinds(folder, pattern, bundles)
    ((most, _),) = kinds.most_common(1)
    return OpenedStudies(str(studies), index, order_bundles(bundles, most), source)
