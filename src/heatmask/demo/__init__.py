"""The main job on a synthetic brain, or on a scan of the user's.

The brain lies beside this file; ``benchmarks/phantom`` has drawn it, with its lesion.
"""

import shutil
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
from rich.console import Console

from heatmask.bundle import pick_bundle
from heatmask.errors import OptionError
from heatmask.files import write_atomically
from heatmask.pipeline import Pipeline

IMAGE, REFERENCE = (Path(__file__).with_name(f"{n}.nii.gz") for n in ("phantom_flair", "lesion"))
"""The synthetic brain and its lesion."""


def run_demo(
    image: Path | None, output: Path, bundle: str | None, device: str, console: Console
) -> None:
    """Segment the phantom, or `image`, and leave ``overview.png`` in `output`.

    For the phantom the Dice against its known lesion is printed.
    """
    subject = "a synthetic FLAIR brain (generated, not a patient)" if image is None else str(image)
    console.print(
        f"Heatmask: a classifier that was trained on slice labels alone looks at {subject}; "
        "its heatmap becomes a pseudo-mask.",
        markup=False,
    )
    reference = None
    if image is None:
        image, reference = (
            _copy(path, output / "input" / path.name) for path in (IMAGE, REFERENCE)
        )
    options = {"input": str(image), "output_dir": str(output)}
    folder = pick_bundle(bundle, image, None, partial(console.print, markup=False))
    with console.status("Segmenting ..."):
        pipeline = Pipeline.from_bundle(folder, options, device)
        if len(pipeline.dataset) != 1:
            raise OptionError(
                f"The demo must have one scan, {image} holds {len(pipeline.dataset)}. "
                "Give one of them, or use `heatmask segment`."
            )
        (report,) = pipeline.run()
    folder = output / report["case"]
    picture = _copy(folder / "overview.png", output / "overview.png")
    for line in (report["finding"], *report["warnings"]):
        console.print(line, markup=False)
    console.print(f"Scan, heatmap and mask: {picture}   (all files: {folder})", markup=False)
    if reference is not None:
        console.print(f"Dice against the phantom's known lesion: {_score(report, reference):.2f}")


def _copy(source: Path, target: Path) -> Path:
    with write_atomically(target) as draft:
        shutil.copyfile(source, draft)
    return target


def _score(report: dict, reference: Path) -> float:
    path = Path(report["output"]) / f"{report['case']}_mask.nii.gz"
    mask, lesion = (np.asarray(nib.load(file).dataobj) > 0 for file in (path, reference))
    return float(2 * (mask & lesion).sum() / (mask.sum() + lesion.sum()))
