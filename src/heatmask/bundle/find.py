"""Which bundles there are, and where they lie."""

from pathlib import Path

from heatmask.errors import InputError

PROJECT = Path(__file__).resolve().parents[3]
DEFAULT_BUNDLE = "brain_mri_gp_unet_segmentation"


def find_bundle(name: str | Path = DEFAULT_BUNDLE) -> Path:
    """Return the folder of a bundle, by path or by its name below the project's ``bundles``.

    Raises
    ------
    InputError
        There is no such bundle; the message lists those there are.
    """
    for folder in (Path(name).expanduser(), PROJECT / "bundles" / name):
        if (folder / "configs" / "inference.json").is_file():
            return folder
    known = sorted(
        p.parents[1].name for p in (PROJECT / "bundles").glob("*/configs/inference.json")
    )
    raise InputError(
        f"bundle must be a bundle's folder or one of {', '.join(known) or 'none'}, got {name!s}."
    )
