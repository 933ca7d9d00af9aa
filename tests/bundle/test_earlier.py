"""Bundles that users trained with Heatmask 0.1: their configs spell out the whole graph."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from heatmask.bundle import find_bundle, read_bundle
from heatmask.bundle.export import export_bundle
from heatmask.cli import app
from heatmask.errors import OutputError
from heatmask.parts import list_all_options, offer_options
from heatmask.pipeline import Pipeline
from helpers.phantom import make_phantom, write_phantom

OPTIONS = {"gate": False, "min_volume_mm3": 50.0, "threshold_rule": "multi_otsu"}


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """The GP-UNet's config as that version wrote it."""
    shutil.copytree(find_bundle(), tmp_path / "earlier_segmentation")
    config = Path(__file__).with_name("earlier_inference.json")
    shutil.copyfile(config, tmp_path / "earlier_segmentation" / "configs" / "inference.json")
    return tmp_path / "earlier_segmentation"


def test_an_earlier_bundle_gives_the_same(earlier: Path, tmp_path: Path) -> None:
    phantom = make_phantom(5, shape=(96, 112, 14), spacing_mm=(2.0, 2.0, 6.0))
    scan = tmp_path / "head_flair.nii.gz"
    write_phantom(phantom, scan, tmp_path / "head-seg.nii.gz")
    ours, theirs = (
        Pipeline.from_bundle(folder, OPTIONS, device="cpu")(str(scan))
        for folder in (find_bundle(), earlier)
    )
    assert theirs.mask.any()
    for name in ("mask", "heatmap", "display", "probabilities"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    assert theirs.class_names == ("tumour",)
    assert theirs.provenance.bundle == "earlier_segmentation"
    assert theirs.provenance.options.items() >= OPTIONS.items()
    assert theirs.provenance.weights_sha256 == ours.provenance.weights_sha256


def test_an_exported_bundle_spells_out_every_option(tmp_path: Path) -> None:
    words = ["export", "brain_mri_relevance3d_segmentation", str(tmp_path / "given_away")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    source = find_bundle("brain_mri_relevance3d_segmentation")
    for config in ("inference", "train"):
        theirs, ours = (read_bundle(f, (config,)).get() for f in (tmp_path / "given_away", source))
        assert {**theirs, **ours, "bundle_root": ""} == {**theirs, "bundle_root": ""}
        options = {name: option.default for name, option in list_all_options(ours).items()}
        assert options.items() <= theirs.items()
    assert (theirs["batch_size"], theirs["segments"]) == (32, 96)
    for name in ("models/model.pt", "models/calibration.json", "docs/data_license.txt"):
        assert (tmp_path / "given_away" / name).read_bytes() == (source / name).read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        export_bundle(source, tmp_path / "given_away")


def test_an_earlier_bundle_offers_what_its_config_has(earlier: Path) -> None:
    offered = offer_options(earlier, read_bundle(earlier).get())
    assert offered["min_volume_mm3"].default == 200.0
    assert "method" not in offered
