"""Which MR sequence a scan is, from all that lies beside it."""

from pathlib import Path

from heatmask.data.paths import get_name, get_stem
from heatmask.data.recognition.channels import find_channel_clue
from heatmask.data.recognition.header import find_sidecar, read_header_clue, read_sidecar
from heatmask.data.recognition.sequence import Header, SequenceClue, read_name_clue, weigh_clues


def find_clue(path: str | Path, header: Header | None = None) -> SequenceClue:
    """Name the sequence of a scan, and where the knowledge comes from.

    In this order: the DICOM header or the JSON sidecar, the ``dataset.json`` of the Decathlon or
    nnU-Net, the file's own name. A link is known by its own name and place.

    Parameters
    ----------
    path
        A file, or the folder of a DICOM series.
    header
        Of a DICOM series or slice.

    Raises
    ------
    InputError
        A ``dataset.json`` is damaged.
    """
    path = Path(path)
    clue = read_name_clue(get_name(path), get_stem(path))
    channel = find_channel_clue(path)
    if channel is not None:
        clue = weigh_clues(channel, clue)
    if header is not None:
        return weigh_clues(read_header_clue(header), clue)
    sidecar = find_sidecar(path)
    if sidecar is None:
        return clue
    source = f"the sidecar '{sidecar.name}'"
    return weigh_clues(read_header_clue(read_sidecar(sidecar), source), clue)
