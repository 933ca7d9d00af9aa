"""The worked example of docs/tutorials/train_your_own.md on a few of its images, to the server."""

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import verify_metadata, verify_net_in_out
from typer.testing import CliRunner

from heatmask.cli import app
from helpers.project import PROJECT

pytestmark = pytest.mark.slow
KINDS = ("meningioma", "glioma", "pituitary")
SOURCE = "brain_mri_gradcam_segmentation"
TUTORIAL = PROJECT / "docs" / "tutorials" / "train_your_own.md"


def write_table(figshare: Path, path: Path, count: int) -> None:
    """The example's own table, of `count` images of each kind and split."""
    with (figshare / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    chosen = [
        row
        for split in ("train", "val", "test")
        for kind in KINDS
        for row in [r for r in rows if (r["split"], r["label"]) == (split, kind)][::9][:count]
    ]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(chosen)


def run(*words: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.exception
    return " ".join(done.output.split())


@pytest.fixture(scope="module")
def figshare(shared_data: Path) -> Path:
    return shared_data / "figshare"


@pytest.fixture(scope="module")
def bundle(figshare: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("example")
    write_table(figshare, folder / "labels.csv", 8)
    output = folder / "bundles" / "tumour_type_segmentation"
    run("train", "--labels", folder / "labels.csv", "--images", figshare,
        "--set", "patient_column=group", "--classes", ",".join(KINDS), "--output", output,
        "--run-dir", folder / "run",
        "--bundle", SOURCE, "--epochs", 1, "--device", "cpu", "--set", "image_size=[64,64]",
        "--set", 'calibrated_methods=["guided_grad_cam"]')  # fmt: skip
    return output


def test_the_tutorial_says_these_commands() -> None:
    text = " ".join(TUTORIAL.read_text(encoding="utf-8").replace("\\\n", " ").split())
    folder = "../shared/data/figshare"
    assert f"heatmask train --labels {folder}/labels.csv --images {folder}" in text
    assert "--set patient_column=group --classes meningioma,glioma,pituitary" in text
    assert f"--output bundles/tumour_type_segmentation --bundle {SOURCE} --epochs 40" in text


def test_it_passes_monais_verifiers(bundle: Path, figshare: Path) -> None:
    schema = figshare.parents[1] / "schema" / "meta_schema_20240725.json"
    meta, config = (str(bundle / f"configs/{name}.json") for name in ("metadata", "inference"))
    verify_metadata(meta_file=meta, filepath=str(schema))
    verify_net_in_out(
        net_id="network_def", meta_file=meta, config_file=config, bundle_root=str(bundle)
    )


def test_it_segments_a_picture(bundle: Path, figshare: Path, tmp_path: Path) -> None:
    image = figshare / "images" / "0001.jpg"
    output = run("segment", image, "--bundle", bundle, "-o", tmp_path, "--device", "cpu")
    assert output.count("predicted") == len(KINDS)
    (mask,) = (nib.load(path) for path in tmp_path.glob("*/*_mask.nii.gz"))
    assert mask.shape == (256, 256, 1)
    assert set(np.unique(mask.dataobj)) <= {0, 1, 2, 3}


def test_it_is_served_with_a_segment_for_each_class(
    bundle: Path, figshare: Path, tmp_path: Path
) -> None:
    pytest.importorskip("monailabel", reason="needs the extra 'serve'")
    from helpers.server import run_server

    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "p1.jpg").symlink_to(figshare / "images" / "0001.jpg")
    with run_server(tmp_path / "studies", bundle.parent, tmp_path, pattern="*.jpg") as server:
        info = server.client.info()["models"][bundle.name]
        labels = {name: value for value, name in enumerate(KINDS, start=1)}
        assert info["labels"] == labels
        data, header, params = server.infer("p1", model=bundle.name)
    assert data.shape == (256, 256, 1)
    assert set(np.unique(data)) <= {0, 1, 2, 3}
    np.testing.assert_allclose(np.diag(header["space directions"]), [1, 1, 1])
    assert json.dumps(params["label_names"]) == json.dumps(labels)
