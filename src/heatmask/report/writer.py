"""Write one case: mask, heatmap, report and picture, all of it or nothing."""

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.data import MetaTensor
from numpy.typing import DTypeLike

from heatmask.data.readers.nifti import make_nifti
from heatmask.errors import OutputError
from heatmask.report.overview import NOTICE, draw_overview
from heatmask.report.summary import summarise_result
from heatmask.result import Result


class CaseWriter:
    """Write results below `output_dir`, a folder a case.

    Parameters
    ----------
    output_dir
        Made if it is not there. ``<output_dir>/<case>/`` receives ``<case>_mask.nii.gz``
        (uint8 labels), ``<case>_heatmap.nii.gz`` (float32, [0, 1] by the bundle's fixed
        calibration), ``report.json`` and ``overview.png``; files of these names are
        replaced, DICOM objects of an earlier run removed; others stay.
    dicom
        Also write ``<case>_mask.dcm``, a DICOM SEG, and ``<case>_heatmap.dcm``, a parametric map
        (see `heatmask.report.dicom`). Scans must then be DICOM series.
    earlier
        What the result holds now. Bundles that were trained with Heatmask 0.1 give it here.
    """

    def __init__(
        self, output_dir: str | os.PathLike[str], *, dicom: bool = False, **earlier: Any
    ) -> None:
        self.output_dir, self.dicom, self.earlier = Path(output_dir), dicom, earlier

    def prepare(self) -> None:
        """Make the output folder, or say at once why nothing can be written there."""
        make_folder(self.output_dir)

    def write(self, result: Result) -> dict[str, Any]:
        """Write one result and return its report."""
        case = result.case
        report = describe_result(result, self.output_dir)
        try:
            with tempfile.TemporaryDirectory(prefix=f".{case}-", dir=self.output_dir) as partial:
                _save_files(result, report, Path(partial))
                if self.dicom:
                    _save_dicom(result, Path(partial))
                for name in (f"{case}_mask.dcm", f"{case}_heatmap.dcm"):  # of an earlier run
                    if not Path(partial, name).exists():
                        Path(self.output_dir, case, name).unlink(missing_ok=True)
                move_files(Path(partial), self.output_dir / case)
        except OSError as error:
            raise OutputError(
                f"The results of {case} must be written below {self.output_dir}, and were not: "
                f"{error}. Check space and permissions."
            ) from error
        return report


def describe_result(result: Result, output_dir: Path) -> dict[str, Any]:
    """Return what goes into ``report.json``."""
    made = result.provenance
    return {
        "case": result.case,
        "input": result.image,
        "output": str((output_dir / result.case).resolve()),
        **summarise_result(result),
        "bundle": {"name": made.bundle, "version": made.version},
        "parameters": dict(made.options),
        "versions": dict(made.versions),
        "notice": NOTICE,
    }


def _save_files(result: Result, report: dict[str, Any], folder: Path) -> None:
    save_volume(result.mask, result.scan, folder / f"{result.case}_mask.nii.gz", np.uint8)
    heatmap = folder / f"{result.case}_heatmap.nii.gz"
    save_volume(result.display, result.scan, heatmap, np.float32)
    draw_overview(result, report).savefig(folder / "overview.png", dpi=110)
    text = json.dumps(report, indent=2, default=str) + "\n"
    (folder / "report.json").write_text(text, encoding="utf-8")


def _save_dicom(result: Result, folder: Path) -> None:
    from heatmask.report.dicom import list_objects  # brings highdicom

    for name, dataset in list_objects(result).items():
        dataset.save_as(folder / f"{result.case}_{name}.dcm")


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
