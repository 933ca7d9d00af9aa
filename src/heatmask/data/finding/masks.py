"""Files that are masks or results by their names, and so no scans to work on."""

import re
from pathlib import Path

from heatmask.data.paths import get_place, split_scan_name
from heatmask.data.recognition.words import find_sequence_word, normalise_text

MASK_FOLDERS = ("labelsTr", "labelsTs", "labelsVal")
"""Where the Medical Segmentation Decathlon and nnU-Net keep masks under the names of the scans."""
MASK_EXAMPLES = "_seg, _mask, _label, _lesion, _ROI, _heatmap"
"""For messages."""

# Folders of masks, or so called by a user: they count where a file name says nothing.
_PERHAPS_MASK_FOLDERS = ("labels", "masks", "segmentations", "annotations", "gt", "groundtruth")
_MASK_WORD = re.compile(
    r"(?<!\bno )(?<!\bnon )(?<!\bwithout )\b(?:"
    # LesionSeg, brainmask, dseg, labels, mask1
    r"(?:brain|head|skull|lesion|tumou?r|wmh|flair|t[12]\w{0,2}|d|prob|a)?"
    r"(?:mask|msk|seg|segm|segmentation|segmented|label|lbl|labelmap)s?\d*"
    r"|ground ?truth|annotations?|delineations?|heatmaps?|aparc|glistr ?boost"
    # Alone these may be a name or a diagnosis: at the end only
    r"|(?:lesions?|rois?|vois?|gt|truth|contours?|outlines?|annots?|consensus|pred(?:iction)?s?"
    r"|prob(?:ability|map)?s?|pve|parc(?:ellation)?s?|wmh|saliency)\d*"
    r"(?: (?:\d+|[a-z]|left|right|final|manual|auto|corrected|consensus|r(?:eade|ate)r\d*))*$"
    r")\b(?! (?:free|fill(?:ed|ing)|inpainted)\b)"
)


def is_mask(path: Path) -> bool:
    """Whether a file is a mask or a result, not a scan, by its name or its folder's.

    Whole words count (`MASK_EXAMPLES`), also joined ("LesionSeg", "brainmask"), but not "Segal"
    and "masked". What names do not show, the voxels may
    (`heatmask.data.checks.plausibility`).
    """
    folder = get_place(path).parent
    stem = split_scan_name(path.name)[0]
    if folder.name in MASK_FOLDERS or _MASK_WORD.search(_list_mask_words(stem)):
        return True
    if folder.name.lower() in _PERHAPS_MASK_FOLDERS:
        return find_sequence_word(normalise_text(stem)) is None
    return stem == "overview" and (folder / "report.json").exists()


def _list_mask_words(stem: str) -> str:
    """Words of a name, without the subject and session of BIDS, which may be called anything."""
    stem = re.sub(r"(?:^|_)s(?:ub|es)-[A-Za-z0-9]+", " ", stem)
    return normalise_text(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", stem))  # LesionSeg: two words
