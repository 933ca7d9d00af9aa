"""Write one case: mask, heatmap, report and picture, all of it or nothing."""

import json
import os
import platform
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import DTypeLike

from heatmask import __version__
from heatmask.data.readers.nifti import make_nifti
from heatmask.errors import OutputError
from heatmask.report.overview import NOTICE, draw_overview
from heatmask.report.summary import summarise_result


class CaseWriter:
    """Write results below `output_dir`, a folder a case.

    Parameters
    ----------
    output_dir
        Made if it is not there. ``<output_dir>/<case>/`` receives ``<case>_mask.nii.gz``
        (uint8 labels), ``<case>_heatmap.nii.gz`` (float32, [0, 1] by the bundle's fixed
        calibration), ``report.json`` and ``overview.png``; files of these names are
        replaced, others stay.
    class_names
        Name of each class of the classifier, in order.
    slice_axis
        As given to the inferer.
    bundle_root
        The bundle's folder; its name and version go into the report.
    parameters
        The options of this run, for the report.
    overrides
        What else was set for this run (`heatmask.bundle.list_overrides`), for the report.
    weights, gate_probability
        Not used: both come with the result. Bundles trained before give them.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        class_names: Sequence[str],
        slice_axis: int,
        bundle_root: str | os.PathLike[str],
        parameters: Mapping[str, Any],
        overrides: Mapping[str, Any] | None = None,
        weights: str | os.PathLike[str] | None = None,
        gate_probability: float | None = None,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.class_names, self.slice_axis = list(class_names), slice_axis
        self.bundle = _describe_bundle(Path(bundle_root))
        self.parameters = {**(overrides or {}), **parameters}

    def prepare(self) -> None:
        """Make the output folder, or say at once why nothing can be written there."""
        make_folder(self.output_dir)

    def write(self, result: dict[str, Any]) -> dict[str, Any]:
        """Write one result and return its report."""
        case = result["case"]
        report = self._report(result)
        try:
            with tempfile.TemporaryDirectory(prefix=f".{case}-", dir=self.output_dir) as partial:
                self._save_files(result, report, Path(partial))
                move_files(Path(partial), self.output_dir / case)
        except OSError as error:
            raise OutputError(
                f"The results of {case} must be written below {self.output_dir}, and were not: "
                f"{error}. Check space and permissions."
            ) from error
        return report

    def _save_files(self, result: dict[str, Any], report: dict[str, Any], folder: Path) -> None:
        case = result["case"]
        scan = result["scan"]
        save_volume(result["mask"], scan, folder / f"{case}_mask.nii.gz", np.uint8)
        save_volume(result["display"], scan, folder / f"{case}_heatmap.nii.gz", np.float32)
        draw_overview(result, report, self.slice_axis).savefig(folder / "overview.png", dpi=110)
        text = json.dumps(report, indent=2, default=str) + "\n"
        (folder / "report.json").write_text(text, encoding="utf-8")

    def _report(self, result: dict[str, Any]) -> dict[str, Any]:
        summary = summarise_result(result, self.class_names, self.slice_axis)
        return {
            "case": result["case"],
            "input": str(result["image_path"]),
            "output": str((self.output_dir / result["case"]).resolve()),
            **summary,
            "bundle": self.bundle,
            "parameters": self.parameters,
            "versions": describe_versions(),
            "notice": NOTICE,
        }


def make_folder(folder: Path) -> None:
    """Make a folder for results, or raise `OutputError` where nothing can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(
            f"output_dir must be a folder that can be written, and {folder} cannot: "
            f"{error.strerror}. Give another --output_dir."
        ) from error


def move_files(source: Path, target: Path) -> None:
    """Move all files of a folder into another one, which is not made if that fails."""
    made = not target.exists()
    target.mkdir(exist_ok=True)
    try:
        for file in sorted(source.iterdir()):
            os.replace(file, target / file.name)
    except OSError:
        if made:
            shutil.rmtree(target, ignore_errors=True)
        raise


def save_volume(volume: MetaTensor, scan: MetaTensor, path: Path, dtype: DTypeLike) -> None:
    """Save (C, X, Y, Z) as NIfTI where its scan lies; one channel becomes (X, Y, Z)."""
    # MONAI's writer would drop the third axis of a volume of one slice.
    array = volume[0] if len(volume) == 1 else volume.movedim(0, -1)
    voxels = array.numpy(force=True).astype(dtype)
    nib.save(make_nifti(voxels, volume.affine.numpy(), scan.meta.get("nifti_header")), path)


def describe_versions() -> dict[str, str]:
    """Return the versions a result depends on."""
    packages = {name: version(name) for name in ("monai", "numpy", "scipy", "scikit-image")}
    return {
        "heatmask": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        **packages,
    }


def _describe_bundle(root: Path) -> dict[str, str]:
    metadata = json.loads((root / "configs" / "metadata.json").read_text(encoding="utf-8"))
    return {"name": root.resolve().name, "version": metadata["version"]}
