"""What a file is called, by its own name and place: never by what a link points to.

git-annex and DataLad keep scans as readable links to files named by a hash.
"""

import os
import re
from pathlib import Path

from heatmask.data.words import find_sequence_word, normalise_text, split_camel_case

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
VOLUME_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr")
SCAN_SUFFIXES = (*VOLUME_SUFFIXES, *PICTURE_SUFFIXES)
SCAN_KINDS = (
    "a NIfTI (.nii, .nii.gz), an NRRD (.nrrd, .nhdr), a DICOM series folder, a DICOM slice "
    "or a picture"
)
"""For messages."""
MASK_FOLDERS = ("labelsTr", "labelsTs", "labelsVal")
"""Where the Medical Segmentation Decathlon and nnU-Net keep masks under the names of the scans."""
MASK_EXAMPLES = "_seg, _mask, _label, _lesion, _ROI, _heatmap"
"""For messages."""

# Folders of masks, but also of a user who calls his work so: they count where a name tells nothing.
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


def split_scan_name(name: str) -> tuple[str, str]:
    """Split a file name into stem and scan suffix; the suffix is empty for other files."""
    for suffix in SCAN_SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)], name[-len(suffix) :]
    return name, ""


def is_picture(path: str | Path) -> bool:
    """Whether a file is a 2D picture without geometry, by its name."""
    return str(path).lower().endswith(PICTURE_SUFFIXES)


def get_place(path: Path) -> Path:
    """Absolute path without following links, the last or any other."""
    return Path(os.path.abspath(path))


def get_name(path: Path) -> str:
    """Name of a file or folder; the real one also of "."."""
    return get_place(path).name


def get_stem(path: Path) -> str:
    """Name of a folder; of a file without its scan suffix."""
    name = get_name(path)
    return name if path.is_dir() else split_scan_name(name)[0]


def is_mask(path: Path) -> bool:
    """Whether a file is a mask or a result, not a scan, by its name or its folder's.

    Whole words tell (`MASK_EXAMPLES`), also joined ("LesionSeg", "brainmask"): "Segal" and
    "masked" tell nothing. What they do not tell, the voxels may (`heatmask.data.plausibility`).
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
    return normalise_text(split_camel_case(re.sub(r"(?:^|_)s(?:ub|es)-[A-Za-z0-9]+", " ", stem)))
