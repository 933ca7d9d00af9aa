"""The bundle of breast ultrasound on pictures and DICOM, and through a server."""

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from heatmask.pipeline import Pipeline
from helpers.project import PROJECT
from helpers.scan_files import write_us

BUNDLE = PROJECT / "bundles" / "breast_us_lesion_segmentation"


@pytest.fixture(scope="module")
def lesion(shared_data: Path) -> tuple[Path, np.ndarray]:
    """An image of the validation split and its reference mask (rows, columns)."""
    root = shared_data / "busi"
    with (root / "labels.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "val" and row["mask"]]
    return root / rows[0]["image"], np.asarray(
        Image.open(root / rows[0]["mask"]).convert("L")
    ) > 127


def test_a_picture_and_the_same_as_dicom_give_one_mask(lesion, tmp_path: Path) -> None:
    path, reference = lesion
    pixels = np.asarray(Image.open(path).convert("L"))
    colours = np.stack([pixels] * 3, -1)
    pipeline = Pipeline.from_bundle(BUNDLE, device="cpu")
    results = [
        pipeline(str(given))
        for given in (
            path,
            write_us(tmp_path / "grey.dcm", pixels),
            write_us(tmp_path / "colour.dcm", colours),
        )
    ]
    masks = [np.asarray(result.mask[0, :, :, 0]).T > 0 for result in results]
    overlap = 2 * (masks[0] & reference).sum() / (masks[0].sum() + reference.sum())
    assert overlap > 0.5
    for result, mask in zip(results[1:], masks[1:], strict=True):
        assert (mask != masks[0]).mean() < 0.001
        assert not [w for w in result.warnings if "Expected" in w], "it is what the network takes"


def test_the_panel_offers_the_effort_and_no_slice_axis() -> None:
    from heatmask.bundle import read_bundle
    from heatmask.parts import offer_options

    offered = offer_options(BUNDLE, read_bundle(BUNDLE).get())
    assert offered["effort"].choices == ("fast", "best")
    assert offered["effort"].default == "best"
    assert "slice_axis" not in offered


@pytest.mark.slow
def test_a_server_masks_a_picture(lesion, tmp_path: Path) -> None:
    from helpers.server import run_server

    path, reference = lesion
    studies = tmp_path / "studies"
    studies.mkdir()
    (studies / path.name).write_bytes(path.read_bytes())
    with run_server(studies, None, tmp_path, pattern=f"*{path.suffix}") as server:
        file, params = server.client.infer(BUNDLE.name, path.stem, {"result_extension": ".nii.gz"})
    mask = np.asarray(nib.load(file).dataobj)[..., 0].T > 0
    assert "Lesion predicted" in params["finding"]
    assert 2 * (mask & reference).sum() / (mask.sum() + reference.sum()) > 0.5
