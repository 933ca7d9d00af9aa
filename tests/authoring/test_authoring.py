"""From a table of labels to a bundle that runs: `heatmask train --labels`."""

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow, verify_metadata, verify_net_in_out
from skimage.io import imsave
from typer.testing import CliRunner

from heatmask.attribution.calibration import write_calibration
from heatmask.authoring.bundle import OwnBundle, adapt_inference
from heatmask.authoring.config import adapt_training, choose_methods
from heatmask.authoring.task import OwnTask, describe_task
from heatmask.authoring.train import FEW, OwnData, train_own_bundle, warn_of_few
from heatmask.bundle import find_bundle, read_bundle, run_bundle
from heatmask.check import inspect_bundle
from heatmask.cli import app
from heatmask.data.label_table import LabelTable, read_label_table
from heatmask.data.tables.label_rows import LabelRow
from heatmask.errors import HeatmaskError, InputError, OptionError, OutputError
from heatmask.networks.weights import load_weights
from heatmask.parts import offer_options
from heatmask.serving.options import build_panel
from heatmask.training.calibrate import list_explainers
from helpers.planted import make_affine
from helpers.project import PROJECT
from helpers.scan_files import write_nifti

SOURCE = "brain_mri_gp_unet_segmentation"
CLASSES = ("disc", "bar")
OPTIONS: dict[str, Any] = {
    "max_epochs": 2,
    "batch_size": 8,
    "device": "cpu",
    "image_size": [32, 32],
    "network_def": {
        "_target_": "heatmask.networks.gp_unet.GPUNet",
        "spatial_dims": 2,
        "in_channels": 1,
        "num_classes": 1,
        "features": [4, 8],
        "norm": "batch",
        "pool_at": "map",
        "pooling": "top",
        "top_fraction": 0.02,
    },
}


def draw(kind: str, seed: int, shape: tuple[int, int] = (48, 64)) -> np.ndarray:
    """Noisy tissue, with a bright disc, a bright bar, or neither: rows and columns, uint8."""
    random = np.random.default_rng(seed)
    picture = random.normal(60, 6, shape)
    row, column = random.integers(12, shape[0] - 12), random.integers(12, shape[1] - 12)
    rows, columns = np.indices(shape)
    if kind == "disc":
        picture[(rows - row) ** 2 + (columns - column) ** 2 < 50] = 180
    if kind == "bar":
        picture[row - 2 : row + 2, column - 11 : column + 11] = 180
    return picture.clip(0, 255).astype(np.uint8)


def write_pictures(folder: Path, kinds: tuple[str, ...], count: int = 10) -> Path:
    """Pictures in `folder` and their table, with a test split; return the table."""
    lines = ["image,label,patient,split"]
    (folder / "pictures").mkdir(parents=True)
    for number in range(count * len(kinds)):
        kind = kinds[number % len(kinds)]
        split = ("train", "train", "train", "val", "test")[number // len(kinds) % 5]
        name = f"pictures/{number:03d}.png"
        imsave(folder / name, draw(kind, number), check_contrast=False)
        lines.append(f"{name},{kind},P{number},{split}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "labels.csv"


def write_volumes(folder: Path, kinds: tuple[str, ...], count: int = 8) -> Path:
    """Volumes of nine slices, not RAS, of which the table labels six; return the table."""
    lines = ["image,slice,label"]
    for number in range(count):
        names = [kinds[(number + i) % len(kinds)] for i in range(9)]
        array = np.stack(
            [draw(kind, 100 * number + i).T for i, kind in enumerate(names)], axis=-1
        ).astype(np.int16)
        affine = make_affine((2, 2, 6), "LPI")
        write_nifti(folder / f"p{number}.nii.gz", array, affine)
        lines += [f"p{number}.nii.gz,{i},{names[i]}" for i in range(2, 8)]
    (folder / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "labels.csv"


def train(
    folder: Path, labels: Path, options: Mapping[str, Any] | None = None, **given: Any
) -> Path:
    output = folder / "bundles" / "mine_segmentation"
    data = OwnData(labels, labels.parent, output, bundle=SOURCE, run_dir=folder / "run",
                   options={**OPTIONS, **(options or {})}, **given)  # fmt: skip
    return train_own_bundle(data)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of two classes and none, from pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    labels = write_pictures(folder / "data", ("none", *CLASSES))
    return train(folder, labels, classes=CLASSES)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of two classes, one of which each slice shows, from volumes."""
    folder = tmp_path_factory.mktemp("volumes")
    (folder / "data").mkdir()
    return train(folder, write_volumes(folder / "data", CLASSES), options={"pixel_spacing_mm": 3.0})


@pytest.fixture(scope="module")
def one_class(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of one class from volumes, fine-tuned."""
    folder = tmp_path_factory.mktemp("one")
    (folder / "data").mkdir()
    options = {"network_def": read_json(SOURCE_DIR / "configs/inference.json")["network_def"]}
    labels = write_volumes(folder / "data", ("0", "disc"), count=6)
    return train(folder, labels, fine_tune=True,
                 options={**options, "max_epochs": 1, "learning_rate": 1e-6})  # fmt: skip


SOURCE_DIR = PROJECT / "bundles" / SOURCE
ALL = ("pictures", "volumes", "one_class")


def read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


# --- the bundle ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_the_bundle_is_whole(name: str, request: pytest.FixtureRequest) -> None:
    bundle: Path = request.getfixturevalue(name)
    files = {str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file()}
    assert files >= {
        "LICENSE", "configs/inference.json", "configs/logging.conf", "configs/metadata.json",
        "configs/train.json", "docs/README.md", "docs/data_license.txt", "docs/training.png",
        "models/calibration.json", "models/model.pt",
    }  # fmt: skip
    assert "configs/evaluate.json" not in files
    assert [path.name for path in bundle.parent.iterdir()] == [bundle.name], "nothing else is left"
    texts = [path.read_text(encoding="utf-8") for path in bundle.rglob("*.json")]
    texts.append((bundle / "docs" / "README.md").read_text(encoding="utf-8"))
    assert not any(str(bundle.parents[1]) in text for text in texts), "a path of this machine"


@pytest.mark.parametrize("name", ALL)
def test_the_bundle_passes_monais_verifiers(
    name: str, request: pytest.FixtureRequest, meta_schema: Path, tmp_path: Path
) -> None:
    bundle: Path = request.getfixturevalue(name)
    configs = {n: str(bundle / "configs" / f"{n}.json") for n in ("metadata", "inference")}
    verify_metadata(meta_file=configs["metadata"], filepath=str(meta_schema))
    verify_net_in_out(
        net_id="network_def", meta_file=configs["metadata"], config_file=configs["inference"],
        bundle_root=str(bundle),
    )  # fmt: skip
    hook = sys.excepthook
    data = bundle.parents[1] / "data"
    for kind, needs in (
        ("inference", {"input": str(next(data.rglob("*[0-9].*")))}),
        ("train", {"labels": str(data / "labels.csv"), "dataset_dir": str(data)}),
    ):
        workflow = ConfigWorkflow(
            config_file=str(bundle / "configs" / f"{kind}.json"), meta_file=configs["metadata"],
            logging_file=str(bundle / "configs" / "logging.conf"), workflow_type=kind,
            bundle_root=str(bundle), output_dir=str(tmp_path), **needs,
        )  # fmt: skip
        try:
            workflow.initialize()
            assert workflow.check_properties() == [], kind
        finally:
            sys.excepthook = hook


@pytest.mark.parametrize("name", ALL)
def test_the_classes_are_everywhere(name: str, request: pytest.FixtureRequest) -> None:
    bundle: Path = request.getfixturevalue(name)
    names = ["disc"] if name == "one_class" else sorted(CLASSES)
    names = list(CLASSES) if name == "pictures" else names
    config = read_json(bundle / "configs" / "inference.json")
    assert config["class_names"] == names
    assert config["network_def"]["num_classes"] == len(names)
    formats = read_json(bundle / "configs" / "metadata.json")["network_data_format"]
    expected = {"0": "background", **{str(k): n for k, n in enumerate(names, start=1)}}
    assert formats["outputs"]["pred"]["channel_def"] == expected
    assert formats["outputs"]["pred"]["num_channels"] == len(names)
    assert config.get("none_logit", False) == (name == "pictures")
    diagnosis = inspect_bundle(str(bundle), "inherent", "cpu")
    assert diagnosis.sound


def test_the_card_says_what_was_measured(pictures: Path) -> None:
    card = (pictures / "docs" / "README.md").read_text(encoding="utf-8")
    report = read_json(pictures.parents[1] / "run" / "training.json")
    assert "| data | data: 18 train, 6 val, 6 test |" in card
    assert "| train | 6 none, 6 disc, 6 bar |" in card
    assert "by the table's column split" in card
    assert f"the best is epoch {report['best_epoch']}" in card
    found = report["validation"]
    row = [f"{round(found[n], 4):.3f}" for n in ("val_loss", "val_auroc", "val_macro_f1")]
    assert f"| validation (chose the epoch) | {' | '.join(row)} |" in card
    assert "| test | - | " in card
    assert f"heatmask train --bundle {SOURCE} --labels labels.csv --images data" in card
    assert "--classes disc,bar" in card
    assert "none gives no mask" in card
    assert "every slice gets" not in card
    metrics = read_json(pictures / "configs" / "metadata.json")["eval_metrics"]
    assert metrics["val_auroc"] == pytest.approx(found["val_auroc"], abs=1e-4)
    assert 0 <= metrics["test_macro_f1"] <= 1


def test_the_card_of_other_tasks(volumes: Path, one_class: Path) -> None:
    card = (volumes / "docs" / "README.md").read_text(encoding="utf-8")
    assert "one image (the table names no patients) in one split" in card
    assert "every image, and every slice of a" in " ".join(card.split())
    card = (one_class / "docs" / "README.md").read_text(encoding="utf-8")
    assert "trained on from its weights" in card
    assert "--fine-tune" in card
    assert "--classes" not in card, "the table's own"


def test_the_licence_of_the_weights_is_the_users_to_state(pictures: Path, one_class: Path) -> None:
    text = (pictures / "docs" / "data_license.txt").read_text(encoding="utf-8")
    assert "trained on the images of data, whose licence only their owner" in text
    assert "CC BY-NC-SA" not in text
    inherited = (one_class / "docs" / "data_license.txt").read_text(encoding="utf-8")
    assert SOURCE in inherited.split("\n\n")[0], "what a server shows"
    assert "CC BY-NC-SA 4.0" in inherited


def test_training_and_inference_prepare_alike(pictures: Path, volumes: Path) -> None:
    for bundle in (pictures, volumes):
        train_config = read_json(bundle / "configs" / "train.json")
        config = read_json(bundle / "configs" / "inference.json")
        for name in ("sequences", "min_slices", "size_mm", "channels"):
            assert train_config[name] in (config[name], "@sequences")
        pictured = bundle == pictures
        assert train_config.get("pictures", False) == ("image_size" in config) == pictured
        for option in ("network_def", "sequences", "pixel_spacing_mm"):
            assert train_config[option] == config[option]
        assert train_config.get("position_offset", True) == (bundle == volumes), (
            "pictures have no position"
        )
        assert "_meta_" not in train_config
    assert config["pixel_spacing_mm"] == 3.0
    assert config["sequences"] == ["FLAIR"]
    assert read_json(pictures / "configs" / "inference.json")["sequences"] == ["unknown"]
    assert config["channels"] == config["sequences"]
    assert "slice_axis" not in offer_options(
        pictures, read_json(pictures / "configs" / "inference.json")
    )


def test_the_bundle_trains_again(volumes: Path, tmp_path: Path) -> None:
    """Its own training config is whole; through MONAI's parser, on the same table."""
    data = volumes.parents[1] / "data"
    options = {"dataset_dir": str(data), "device": "cpu", "output_dir": str(tmp_path / "run")}
    parser = read_bundle(volumes, ("train",), options)
    run_bundle(parser)
    first = torch.load(volumes / "models" / "model.pt", weights_only=True)
    again = torch.load(tmp_path / "run" / "model.pt", weights_only=True)
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_a_run_that_was_stopped_goes_on(tmp_path: Path) -> None:
    labels = write_pictures(tmp_path / "data", ("none", "disc"), count=5)
    first = train(tmp_path, labels)
    before = (tmp_path / "run" / "checkpoint_epoch=2.pt").stat().st_mtime_ns
    first.rename(tmp_path / "moved")
    second = train(tmp_path, labels)
    assert (tmp_path / "run" / "checkpoint_epoch=2.pt").stat().st_mtime_ns == before
    weights = [(folder / "models/model.pt").read_bytes() for folder in (tmp_path / "moved", second)]
    assert weights[0] == weights[1]
    second.rename(tmp_path / "moved again")
    text = labels.read_text(encoding="utf-8").replace("P0,train", "P0,val")
    labels.write_text(text, encoding="utf-8")
    with pytest.raises(OptionError, match=r"other settings .*labels: "):
        train(tmp_path, labels)


# --- running it ----------------------------------------------------------------------------


def segment(bundle: Path, image: Path, output: Path) -> tuple[dict[str, Any], Any, Any]:
    options = {"input": str(image), "output_dir": str(output), "device": "cpu"}
    (report,) = run_bundle(read_bundle(bundle, options=options), "evaluator").run()
    files = (next(output.glob(f"*/*_{kind}.nii.gz")) for kind in ("mask", "heatmap"))
    return report, *(nib.load(file) for file in files)


def test_a_picture_is_segmented_on_its_own_grid(pictures: Path, tmp_path: Path) -> None:
    image = tmp_path / "one.png"
    imsave(image, draw("disc", 999, (90, 70)), check_contrast=False)
    report, mask, heatmap = segment(pictures, image, tmp_path / "out")
    assert mask.shape == (70, 90, 1)
    assert heatmap.shape[:3] == (70, 90, 1)
    assert heatmap.shape[3] == len(CLASSES)
    assert np.diag(mask.affine) == pytest.approx([-256 / 90, -256 / 90, 1, 1])
    assert set(np.unique(mask.dataobj)) <= {0, 1, 2}
    assert [entry["name"] for entry in report["classes"]] == list(CLASSES)
    assert sum(entry["probability"] for entry in report["classes"]) < 1, "none has its share"
    assert any("counts as 256 mm wide" in warning for warning in report["warnings"])


def test_none_of_the_classes_gives_no_mask(pictures: Path, tmp_path: Path) -> None:
    """With weights by which nothing is ever there."""
    bundle = tmp_path / "mine_segmentation"
    bundle.mkdir()
    for part in ("configs", "docs"):
        (bundle / part).symlink_to(pictures / part)
    (bundle / "models").mkdir()
    content = torch.load(pictures / "models" / "model.pt", weights_only=True)
    content["head.bias"] -= 99
    torch.save(content, bundle / "models" / "model.pt")
    (bundle / "models" / "calibration.json").symlink_to(pictures / "models" / "calibration.json")
    image = tmp_path / "one.png"
    imsave(image, draw("disc", 999), check_contrast=False)
    report, mask, _ = segment(bundle, image, tmp_path / "out")
    assert not np.asarray(mask.dataobj).any()
    assert report["finding"].startswith("No disc predicted (p = 0.00). No bar predicted")


def test_a_volume_is_segmented_on_its_own_grid(volumes: Path, tmp_path: Path) -> None:
    scan = volumes.parents[1] / "data" / "p0.nii.gz"
    report, mask, _ = segment(volumes, scan, tmp_path)
    assert mask.shape == nib.load(scan).shape
    np.testing.assert_allclose(mask.affine, nib.load(scan).affine, atol=1e-4)
    slices = np.array([entry["slice_probabilities"] for entry in report["classes"]])
    np.testing.assert_allclose(slices.sum(axis=0), 1, atol=1e-5)
    counted = [entry["name"] for entry in report["classes"] if "predicted" in report["finding"]]
    assert counted == sorted(CLASSES)


def test_fine_tuning_starts_from_the_weights_of_the_bundle(one_class: Path) -> None:
    """Its steps were too small to move them."""
    networks = [
        load_weights(
            read_bundle(bundle).get_parsed_content("network_def"), bundle / "models" / "model.pt"
        )
        for bundle in (one_class, SOURCE_DIR)
    ]
    for own, source in zip(*(network.parameters() for network in networks), strict=True):
        torch.testing.assert_close(own, source, atol=1e-3, rtol=1e-2)


# --- what is refused -----------------------------------------------------------------------


def test_the_patients_column_is_kept_in_the_bundle(tmp_path: Path) -> None:
    """What must not be in two splits is told by the column that the user names, and again later."""
    labels = write_pictures(tmp_path / "data", CLASSES)
    header, *rows = labels.read_text(encoding="utf-8").splitlines()
    labels.write_text("\n".join([f"{header},case", *(f"{row},C" for row in rows)]))
    with pytest.raises(InputError, match="more than one split"):
        train(tmp_path, labels, options={"patient_column": "case"})

    parser = read_bundle(find_bundle(SOURCE), ("train",))
    task = describe_task(read_label_table(labels, labels.parent), parser["sequences"])
    adapt_training(parser, task, patient_column="case")
    parser.update({"labels": str(labels), "dataset_dir": str(labels.parent)})
    with pytest.raises(InputError, match="more than one split"):
        run_bundle(parser, "volumes")


def test_a_folder_that_exists_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "bundles" / "mine_segmentation").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"mine_.* exists"):
        train(tmp_path, tmp_path / "absent.csv")
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "bundles").write_text("a file", encoding="utf-8")
    with pytest.raises(OutputError, match=r"cannot be written to"):
        train(tmp_path, tmp_path / "absent.csv")


def test_damaged_pictures_are_all_named(tmp_path: Path) -> None:
    """Those of every split, before anything is trained."""
    labels = write_pictures(tmp_path / "data", ("none", "disc"))
    for number in (0, 3, 7, 9):
        (tmp_path / "data" / "pictures" / f"{number:03d}.png").write_bytes(b"damaged")
    with pytest.raises(HeatmaskError, match=r"4 of 20 images that cannot") as caught:
        train(tmp_path, labels)
    for line in (2, 5, 9, 11):
        assert f"line {line}: The picture" in str(caught.value)
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "bundles" / "mine_segmentation").exists()


def make_table(folder: Path, *names: str) -> LabelTable:
    lines = ["image,label,split"]
    for number, name in enumerate(names):
        (folder / name).touch()
        lines.append(f"{name},{'ab'[number % 2]},{'train' if number < 2 else 'val'}")
    (folder / "labels.csv").write_text("\n".join(lines), encoding="utf-8")
    return read_label_table(folder / "labels.csv", folder)


def test_few_images_of_a_label_are_said(caplog: pytest.LogCaptureFixture) -> None:
    rows = [
        LabelRow(n, Path(f"{n}.png"), None, label, str(n), split)
        for n, (label, split) in enumerate(
            [(1, "train")] * (FEW - 1) + [(1, "val")] * FEW + [(0, "train")] * FEW
        )
    ]
    warn_of_few(LabelTable(("disc",), tuple(rows), ""))
    (record,) = caplog.records
    assert f"few training images: {FEW - 1} of disc. The masks" in record.getMessage()
    caplog.clear()
    warn_of_few(LabelTable(("disc",), (*rows, rows[0]), ""))
    assert not caplog.records


def test_pictures_and_scans_are_not_mixed(tmp_path: Path) -> None:
    table = make_table(tmp_path, "a.nii.gz", "b.nii.gz", "c.jpg", "d.jpg")
    with pytest.raises(InputError, match=r"line 4 has 'c.jpg', line 2 'a.nii.gz'"):
        describe_task(table, ("FLAIR",))


@pytest.mark.parametrize(
    ("ending", "taken", "expected"),
    [
        ("-flair.nii.gz", ("FLAIR", "T1-Gd"), ("FLAIR",)),
        ("-t1c.nii.gz", ("FLAIR", "T1-Gd"), ("T1-Gd",)),
        (".nii.gz", ("FLAIR", "T1-Gd"), ("FLAIR",)),
        ("-t1c.nii.gz", ("FLAIR",), ("T1-Gd",)),
        (".png", ("FLAIR", "T1-Gd"), ("unknown",)),
    ],
)
def test_the_channels_follow_the_images(
    tmp_path: Path, ending: str, taken: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    table = make_table(tmp_path, *(f"{name}{ending}" for name in "pqrs"))
    task = describe_task(table, taken)
    assert task.sequences == expected
    assert describe_task(table, taken, chosen=True).sequences == taken
    kept = describe_task(table, taken, fine_tune=True).sequences
    assert kept == (taken if set(expected) <= set(taken) else expected)
    assert task.pictures == (ending == ".png")
    assert not task.negatives


def test_several_other_sequences_are_the_users_to_choose(tmp_path: Path) -> None:
    table = make_table(tmp_path, "a-t2w.nii", "b-t2w.nii", "a-t1c.nii", "b-t1c.nii")
    with pytest.raises(OptionError, match=r"the images are T1-Gd, T2, and the bundle takes FLAIR"):
        describe_task(table, ("FLAIR",))


def test_a_bundle_of_an_earlier_version_is_not_trained(tmp_path: Path) -> None:
    task = describe_task(make_table(tmp_path, *(f"{n}.png" for n in "abcd")), ("FLAIR",))
    parser = read_bundle(find_bundle(), ("train",))
    del parser.config["options"]
    with pytest.raises(InputError, match=r"must be one of this version: its train.json"):
        adapt_training(parser, task)


def test_damaged_test_volumes_are_named_before_training(tmp_path: Path) -> None:
    table = write_volumes(tmp_path, CLASSES)
    rows = table.read_text(encoding="utf-8").splitlines()
    splits = ["test" if "p7" in row else "val" if "p6" in row else "train" for row in rows[1:]]
    lines = [f"{row},{split}" for row, split in zip(rows[1:], splits, strict=True)]
    table.write_text("\n".join([f"{rows[0]},split", *lines]), encoding="utf-8")
    (tmp_path / "p7.nii.gz").write_bytes(b"damaged")
    with pytest.raises(HeatmaskError, match=r"^lines 44-49: .*p7\.nii\.gz"):
        train(tmp_path, table)
    assert not (tmp_path / "run").exists()


# --- what is offered -----------------------------------------------------------------------

MANY = "brain_mri_gradcam_segmentation"


def offer(methods: Any, layers: tuple[str, ...] = (), source: str = MANY) -> dict[str, Any]:
    """What the panel of a new bundle offers; the ranges measured are the same."""
    folder = find_bundle(source)
    parser = read_bundle(folder, ("train",))
    config = read_json(folder / "configs" / "inference.json")
    choose_methods(parser, config.get("method", "inherent"), methods, layers)
    task, training = OwnTask(("x",), True, False, ("FLAIR",)), SimpleNamespace(learnt={})
    made = OwnBundle(folder, task, training, parser.get(), folder, folder)
    adapted = adapt_inference(config, made)
    if "calibrated_methods" not in parser:
        return offer_options(folder, adapted)
    explainers = list_explainers(parser["calibrated_methods"], parser["calibrated_layers"])
    with TemporaryDirectory() as made_folder:
        weights = Path(made_folder, "models", "model.pt")
        write_calibration(dict.fromkeys(explainers, (0.0, 1.0)), weights)
        panel = build_panel(offer_options(made_folder, adapted))
    chosen = panel["method"]
    assert {*chosen.choices, chosen.default} == {*parser["calibrated_methods"]}
    assert panel["target_layer"].choices in ((), ("auto", *parser["calibrated_layers"]))
    assert adapted["method"] == panel["method"].default
    return {name: option.choices for name, option in panel.items()}


def test_a_few_quick_methods_are_measured_and_offered() -> None:
    wanted = ("guided_grad_cam", "guided_backprop", "multi_stage_cam", "grad_cam")
    assert offer(None)["method"] == wanted
    resnet = offer(None, source="brain_mri_resnet_attribution_segmentation")["method"]
    assert resnet[0] == "guided_backprop"
    assert set(resnet) == set(wanted)


def test_all_methods_are_offered_on_request() -> None:
    folder = find_bundle(MANY)
    panel = build_panel(offer_options(folder, read_bundle(folder).get()))
    assert {*offer("all")["method"]} == {*panel["method"].choices}


def test_other_methods_are_offered_on_request() -> None:
    panel = offer(["saliency", "layer_cam"], ("stage2",))
    assert panel["method"] == ("saliency", "layer_cam")
    assert panel["target_layer"] == ("auto", "stage2")
    assert offer("saliency")["method"] == ()
    with pytest.raises(OptionError, match=r"got 'grad_cat'\. Closest: grad_cam"):
        offer("grad_cat")


def test_a_network_with_a_heatmap_of_its_own_offers_no_choice() -> None:
    assert "method" not in offer(None, source=SOURCE)


# --- the command ---------------------------------------------------------------------------


def test_the_command_trains_and_says_how_to_go_on(tmp_path: Path) -> None:
    labels = write_pictures(tmp_path / "data", ("none", "disc"), count=5)
    words = ["train", "--bundle", SOURCE, "--labels", labels, "--images", labels.parent]
    words += ["--classes", "disc", "--output", tmp_path / "mine_segmentation", "--epochs", "1"]
    words += ["--run-dir", tmp_path / "run", "--device", "cpu", "--seed", "3"]
    for option in ("image_size", "network_def"):
        words += ["--set", f"{option}={json.dumps(OPTIONS[option])}"]
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.exception
    assert "Try it: heatmask segment IMAGE --bundle" in done.output
    metrics = read_json(tmp_path / "mine_segmentation/configs/metadata.json")["eval_metrics"]
    assert math.isfinite(metrics["val_loss"])
    assert read_json(tmp_path / "run" / "run.json")["seed"] == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], r"Give DATA, or --labels, --images, --output for"),
        (["--labels", "a.csv", "--images", "b"], r"DATA, or --output for"),
        (["DATA", "--labels", "a.csv"], r"--labels for yours\. Leave"),
        (["DATA", "--fine-tune"], r"own task and --fine-tune"),
        (
            ["--labels", "a", "--images", "b", "--output", "c", "--weights", "d"],
            r"Leave out --weights",
        ),
    ],
)
def test_the_two_forms_of_the_command_are_not_mixed(words: list[str], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        CliRunner().invoke(app, ["train", *words], catch_exceptions=False)
