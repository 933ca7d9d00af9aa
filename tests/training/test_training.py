"""Training from slice labels: labels, position, augmentation, checkpoints, a run to the end."""

import itertools
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ignite.engine import Engine, Events
from monai.bundle import ConfigWorkflow
from monai.engines import SupervisedTrainer
from monai.metrics import compute_roc_auc
from sklearn import metrics
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from typer.testing import CliRunner

from heatmask.attribution import Explainer
from heatmask.attribution.calibration import read_calibration
from heatmask.bundle import read_bundle, run_bundle
from heatmask.cli import app
from heatmask.data.label_table import LabelledImage
from heatmask.data.labels import LabelledVolume, list_labelled_volumes, read_split
from heatmask.errors import InputError, OptionError, WeightsError
from heatmask.networks.cnn import TopPooling
from heatmask.networks.gp_unet import GPUNet
from heatmask.networks.weights import load_weights, save_weights
from heatmask.training.augment import Augmentation
from heatmask.training.blocks import BlockDataset
from heatmask.training.calibrate import measure_ranges
from heatmask.training.checkpoints import KeepBest, export_best, resume
from heatmask.training.engine import (
    AutocastInferer,
    PrepareSlices,
    SeedEpochs,
    draw_or_copy_weights,
    seed_network,
)
from heatmask.training.metrics import SliceScore, compute_probabilities, score_slices
from heatmask.training.parts import describe_run, take_settings
from heatmask.training.position import (
    PositionOffsetLoss,
    PositionPrior,
    add_none_logit,
    balance_classes,
)
from heatmask.training.settings import TrainSettings
from heatmask.training.slices import SliceDataset
from helpers.phantom import make_phantom
from helpers.planted import PlantedClassifier, make_affine, make_volume, store_as
from helpers.scan_files import write_nifti

# --- position ------------------------------------------------------------------------------


def test_the_prior_is_the_log_odds_of_each_bin() -> None:
    """Hand counts in four bins: 2 of 3, 0 of 2, 1 of 1 and none, half a slice added to each."""
    positions = [0.0, 0.1, 0.24, 0.3, 0.45, 0.74]
    labels = [1, 0, 1, 0, 0, 1]
    prior = PositionPrior(positions, labels, bins=4)
    expected = [math.log(v) for v in (2.5 / 1.5, 0.5 / 2.5, 1.5 / 0.5, 0.5 / 0.5)]
    found = prior([0.2, 0.4, 0.6, 0.8])
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-6)
    assert found.dtype == torch.float32
    assert found.shape == (4, 1)


def test_the_ends_of_the_stack_have_a_bin() -> None:
    prior = PositionPrior([0.0, 1.0], [0, 1], bins=10)
    np.testing.assert_allclose(prior([0.0, 1.0]), [[math.log(1 / 3)], [math.log(3)]], rtol=1e-6)
    assert prior(torch.zeros(2, 3)).shape == (2, 3, 1)


def test_even_labels_give_no_offset() -> None:
    """What the config gives without position offset: labels of one half."""
    assert (PositionPrior([0.1, 0.5, 0.9], [0.5, 0.5, 0.5])([0.0, 0.5, 1.0]) == 0).all()


def test_the_loss_in_closed_form() -> None:
    logits = torch.tensor([[1.0], [-2.0], [0.3]], requires_grad=True)
    target = torch.tensor([[1.0, 0.5], [0.0, -1.0], [1.0, 2.0]])
    loss = PositionOffsetLoss()(logits, target)
    sums = [1.5, -3.0, 2.3]
    expected = [math.log1p(math.exp(-s)) if y else math.log1p(math.exp(s))
                for s, y in zip(sums, (1, 0, 1), strict=True)]  # fmt: skip
    assert loss.item() == pytest.approx(np.mean(expected), rel=1e-6)
    loss.backward()
    slope = [(1 / (1 + math.exp(-s)) - y) / 3 for s, y in zip(sums, (1, 0, 1), strict=True)]
    np.testing.assert_allclose(logits.grad[:, 0], slope, rtol=1e-5)


def test_a_label_that_position_explains_asks_little_of_the_network() -> None:
    """The reason for the offset: the gradient is small where position says it already."""
    logits = torch.zeros(2, 1, requires_grad=True)
    PositionOffsetLoss()(logits, torch.tensor([[1.0, 4.0], [1.0, 0.0]])).backward()
    assert logits.grad[0].abs() < 0.05 * logits.grad[1].abs()


def test_the_prior_of_several_classes_is_against_no_finding() -> None:
    """One bin: 3 slices of none, 1 of the first class, 2 of the second, half of each added."""
    labels = [0, 0, 0, 1, 2, 2]
    prior = PositionPrior([0.5] * 6, labels, bins=1, num_classes=2)
    np.testing.assert_allclose(
        prior([0.1])[0], [math.log(1.5 / 3.5), math.log(2.5 / 3.5)], rtol=1e-6
    )
    weighted = PositionPrior([0.5] * 6, labels, 1, 2, class_weights=(2.0, 1.0, 3.0))
    np.testing.assert_allclose(
        weighted([0.1])[0], [math.log(1.5 / 7), math.log(7.5 / 7)], rtol=1e-6
    )


def test_the_prior_without_negatives_is_the_share_of_each_class() -> None:
    prior = PositionPrior([0.5] * 3, [1, 2, 2], bins=1, num_classes=2, negatives=False)
    np.testing.assert_allclose(prior([0.9])[0].exp(), [1.5 / 4, 2.5 / 4], rtol=1e-6)


def test_one_class_is_the_softmax_over_none_and_that_class() -> None:
    """Why no finding needs no logit of its own: K = 1 is the general loss."""
    torch.manual_seed(0)
    logits, labels, offset = torch.randn(9, 1), torch.arange(9) % 2, torch.randn(9, 1)
    target = torch.cat([labels[:, None].float(), offset], dim=1)
    whole = nn.functional.cross_entropy(add_none_logit(logits + offset), labels)
    torch.testing.assert_close(PositionOffsetLoss()(logits, target), whole)


@pytest.mark.parametrize("negatives", [True, False])
def test_the_loss_of_several_classes_in_closed_form(negatives: bool) -> None:
    logits, offset = [[1.0, -0.5], [0.2, 0.3]], [[0.5, 0.0], [-1.0, 0.25]]
    labels, weights = [2, 1], [0.5, 2.0, 4.0] if negatives else [2.0, 4.0]
    target = torch.tensor([[labels[i], *offset[i]] for i in range(2)])
    loss = PositionOffsetLoss(weights, negatives)(torch.tensor(logits), target)
    expected = []
    for z, o, label in zip(logits, offset, labels, strict=True):
        sums = [a + b for a, b in zip(z, o, strict=True)]
        total = sum(map(math.exp, sums)) + negatives
        expected.append(weights[label - (not negatives)] * (math.log(total) - sums[label - 1]))
    assert loss.item() == pytest.approx(np.mean(expected), rel=1e-5)


def test_no_finding_has_the_logit_0() -> None:
    """Its loss falls as the classes' logits do, which without it would mean nothing."""
    none = torch.tensor([[0.0]])
    losses = [PositionOffsetLoss()(torch.full((1, 3), z), none).item() for z in (2.0, 0.0, -9.0)]
    assert losses[0] > losses[1] > losses[2]
    assert losses[1] == pytest.approx(math.log(4))
    assert losses[2] < 1e-3


def test_the_weighted_loss_is_a_mean_over_slices_in_any_batches() -> None:
    torch.manual_seed(1)
    logits, labels = torch.randn(12, 3), torch.tensor([1.0, 1, 1, 1, 1, 1, 2, 2, 2, 3, 3, 3])
    loss = PositionOffsetLoss(balance_classes(labels, 3, negatives=False), negatives=False)
    parts = [loss(z, y) for z, y in zip(logits.split(4), labels[:, None].split(4), strict=True)]
    torch.testing.assert_close(torch.stack(parts).mean(), loss(logits, labels[:, None]))


@given(
    counts=st.lists(st.integers(1, 30), min_size=2, max_size=5),
    negatives=st.booleans(),
)
def test_balanced_classes_count_the_same(counts: list[int], negatives: bool) -> None:
    first = 0 if negatives else 1
    labels = torch.cat([torch.full((n,), float(first + i)) for i, n in enumerate(counts)])
    num_classes = len(counts) - negatives
    weights = balance_classes(labels, num_classes, negatives)
    if num_classes == 1:
        assert weights is None
        return
    totals = [n * w for n, w in zip(counts, weights, strict=True)]
    np.testing.assert_allclose(totals, sum(counts) / len(counts), rtol=1e-5)


# --- augmentation --------------------------------------------------------------------------

STILL = {
    "rotation_deg": 0,
    "scale": 0,
    "shift": 0,
    "flip": False,
    "gamma": 0,
    "gain": 0,
    "noise": 0,
}


def draw_slices(count: int = 6) -> Tensor:
    """Smooth, positive, asymmetric slices of 32 x 24."""
    row, column = torch.meshgrid(torch.arange(32.0), torch.arange(24.0), indexing="ij")
    blob = torch.exp(-((row - 9) ** 2) / 20 - (column - 14) ** 2 / 12)
    return (0.2 + blob).expand(count, 1, -1, -1).clone()


def test_no_range_is_no_change() -> None:
    images = draw_slices()
    torch.testing.assert_close(Augmentation(**STILL)(images), images, rtol=0, atol=1e-5)


def test_the_seed_decides() -> None:
    images, drawn = draw_slices(), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(Augmentation()(images))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0][0], drawn[0][1]), "each slice is drawn on its own"
    torch.testing.assert_close(images, draw_slices(), rtol=0, atol=0)
    assert drawn[0].shape == images.shape
    assert (drawn[0] >= 0).all()


def test_flips_mirror_the_first_in_plane_axis() -> None:
    torch.manual_seed(0)
    images = draw_slices(40)
    out = Augmentation(**{**STILL, "flip": True})(images)
    same = (out - images).abs().amax((1, 2, 3)) < 1e-4
    mirrored = (out - images.flip(2)).abs().amax((1, 2, 3)) < 1e-4
    assert (same ^ mirrored).all()
    assert 8 < mirrored.sum() < 32
    assert not torch.allclose(images, images.flip(3), atol=0.1)


def test_shifts_are_shares_of_the_field_of_view() -> None:
    torch.manual_seed(0)
    out = Augmentation(**{**STILL, "shift": 0.125})(draw_slices(60))
    peaks = out.flatten(1).argmax(1)
    rows, columns = (peaks // 24 - 9).abs(), (peaks % 24 - 14).abs()
    assert rows.max() in (3, 4)  # an eighth of 32 is 4
    assert columns.max() in (2, 3)  # an eighth of 24 is 3


def test_rotation_turns_around_the_centre_by_at_most_its_range() -> None:
    torch.manual_seed(0)
    images = torch.zeros(60, 1, 33, 33)
    images[..., 16, 26], images[..., 16, 16] = 50, 100
    out = Augmentation(**{**STILL, "rotation_deg": 30})(images)
    assert (out[..., 16, 16] > 90).all()
    out[..., 13:20, 13:20] = 0
    peaks = out.flatten(1).argmax(1)
    angles = torch.rad2deg(torch.atan2(peaks // 33 - 16.0, peaks % 33 - 16.0))
    assert 20 < angles.max() <= 34
    assert -34 <= angles.min() < -20


@pytest.mark.parametrize("name", ["gamma", "gain"])
def test_contrast_stays_in_its_range(name: str) -> None:
    torch.manual_seed(0)
    images = torch.full((200, 1, 4, 4), 0.5)
    out = Augmentation(**{**STILL, name: 0.5})(images)[:, 0, 0, 0]
    ratio = out / 0.5 if name == "gain" else out.log() / math.log(0.5)
    assert 1 / 1.5 - 1e-4 <= ratio.min() < 0.72
    assert 1.4 < ratio.max() <= 1.5 + 1e-4


def test_noise_is_at_most_its_bound() -> None:
    torch.manual_seed(0)
    images = torch.full((20, 1, 64, 64), 5.0)
    spread = (Augmentation(**{**STILL, "noise": 0.2})(images) - 5).flatten(1).std(1)
    assert 0.1 < spread.max() < 0.22
    assert spread.min() < 0.08


# --- labelled slices -----------------------------------------------------------------------


def read_plainly(case: dict[str, Any]) -> dict[str, Any]:
    """Stands in for the preprocessing: to RAS, nothing else; a file's array is its own value."""
    array, affine = VOLUMES[Path(case["image"]).name]
    ras, ras_affine = store_as(array, affine, "RAS")
    return {"image": make_volume(ras, ras_affine), "scan": make_volume(array, affine)}


def make_ramp(axcodes: str) -> tuple[np.ndarray, np.ndarray]:
    """A volume whose value is the height of its slice in the head, 1 to 5."""
    array = np.ones((6, 8, 5), np.float32) * np.arange(1, 6)
    return store_as(array, make_affine((2, 2, 5), "RAS", (6, 4, -3)), axcodes)


VOLUMES = {axcodes: make_ramp(axcodes) for axcodes in ("RAS", "LPS", "LPI", "SRA")}


def test_slices_without_a_label_are_left_out() -> None:
    """Stored upside down: slice 0 of the file is the highest of the head."""
    image = LabelledImage("p", Path("LPI"), {0: 2, 3: 0}, (2, 3))
    dataset = SliceDataset([image], read_plainly, (6, 8))
    assert dataset.labels.tolist() == [0, 2]
    assert [item["image"].max().item() for item in dataset] == [2, 5]
    np.testing.assert_allclose(dataset.positions, [0.3, 0.9], rtol=1e-6)


def test_images_that_cannot_be_used_are_all_named() -> None:
    images = [
        LabelledImage("p", Path("RAS"), {None: 1}, (2,)),
        LabelledImage("q", Path("SRA"), {0: 1, 1: 0, 3: 0}, (3, 4, 7)),
        LabelledImage("r", Path("LPS"), {9: 1}, (5,)),
        LabelledImage("s", Path("LPS"), {0: 1}, (6,)),
    ]
    with pytest.raises(InputError, match=r"3 of 4 images that cannot be used") as caught:
        SliceDataset(images, read_plainly)
    lines = str(caught.value).splitlines()
    assert lines[1].startswith("  line 2: 'RAS' has 5 slices along")
    assert lines[2].startswith("  lines 3-4, 7: The slices of SRA are not axial")
    assert "line 5: 'LPS' has 5 slices along its third axis" in lines[3]
    with pytest.raises(InputError, match=r"^line 5: 'LPS' has 5"):
        SliceDataset(images[2:], read_plainly)
    with pytest.raises(InputError, match="no labelled image in this split"):
        SliceDataset([], read_plainly)


@pytest.mark.parametrize("axcodes", ["RAS", "LPS", "LPI"])
def test_labels_follow_their_slices(axcodes: str) -> None:
    """Labels count the file's slices; where its third axis points down they turn with it."""
    array, _ = VOLUMES[axcodes]
    stored = tuple(int(value >= 4) for value in array[0, 0])
    assert stored == ((1, 1, 0, 0, 0) if axcodes[2] == "I" else (0, 0, 0, 1, 1))
    dataset = SliceDataset([LabelledVolume("p", Path(axcodes), stored)], read_plainly, (4, 12))
    assert len(dataset) == 5
    for index in range(5):
        item = dataset[index]
        assert item["image"].max() == index + 1
        assert item["label"] == float(index + 1 >= 4)
        assert item["position"] == pytest.approx((index + 0.5) / 5)
        assert item["image"].shape == (1, 4, 12)
        assert item["image"].dtype == torch.float32


def test_slices_are_cropped_and_padded_around_the_centre() -> None:
    dataset = SliceDataset([LabelledVolume("p", Path("RAS"), (0,) * 5)], read_plainly, (4, 12))
    image = dataset[2]["image"][0]
    assert (image[:, 2:10] == 3).all()
    assert (image[:, :2] == 0).all()
    assert (image[:, 10:] == 0).all()


def test_volumes_follow_one_another() -> None:
    volumes = [LabelledVolume(a, Path(a), (0, 0, 0, 1, 1)) for a in ("RAS", "LPS")]
    dataset = SliceDataset(volumes, read_plainly, (8, 8))
    assert dataset.labels.tolist() == [0, 0, 0, 1, 1] * 2
    np.testing.assert_allclose(dataset.positions, [0.1, 0.3, 0.5, 0.7, 0.9] * 2, rtol=1e-6)


def test_blocks_hold_neighbours_of_one_volume() -> None:
    volumes = [LabelledVolume(a, Path(a), (0, 0, 0, 1, 1)) for a in ("RAS", "LPS")]
    blocks = BlockDataset(volumes, read_plainly, (8, 8), 3)
    assert len(blocks) == 6
    assert blocks.labels.tolist() == pytest.approx([0, 1 / 3, 2 / 3] * 2)
    assert blocks.positions.tolist() == pytest.approx([0.3, 0.5, 0.7] * 2)
    item = blocks[4]
    assert item["image"].shape == (1, 8, 8, 3)
    assert item["image"][0, 4, 4].tolist() == [2, 3, 4], "the lowest slice first"
    assert item["label"] == pytest.approx(1 / 3)
    assert len(BlockDataset(volumes, read_plainly, (8, 8), 3, step=2)) == 4
    assert len(BlockDataset(volumes, read_plainly, (8, 8), 5)) == 2


def test_blocks_leave_out_slices_without_a_label() -> None:
    image = LabelledImage("p", Path("RAS"), {0: 1, 1: 0, 3: 0, 4: 1}, (2, 3, 4, 5))
    given = ([image], read_plainly, (6, 8))
    assert BlockDataset(*given, 2).members.tolist() == [[0, 1], [2, 3]]
    with pytest.raises(InputError, match="No volume has 3 neighbouring slices"):
        BlockDataset(*given, 3)
    with pytest.raises(OptionError, match="at least 1, got 0 and 1"):
        BlockDataset(*given, 0)


def test_blocks_have_one_class() -> None:
    image = LabelledImage("p", Path("RAS"), {0: 0, 1: 1, 2: 2, 3: 0, 4: 0}, (2, 3, 4, 5, 6))
    with pytest.raises(InputError, match="which one class has; there are 2"):
        BlockDataset([image], read_plainly, (6, 8), 2)


def test_a_wrong_number_of_labels() -> None:
    with pytest.raises(InputError, match=r"has 5 slices along .*, and the table labels 4"):
        SliceDataset([LabelledVolume("p", Path("RAS"), (0,) * 4)], read_plainly)


def test_slices_that_are_not_axial() -> None:
    labels = (0,) * VOLUMES["SRA"][0].shape[2]
    with pytest.raises(InputError, match=r"not axial: its axes are SRA"):
        SliceDataset([LabelledVolume("p", Path("SRA"), labels)], read_plainly)


# --- tables --------------------------------------------------------------------------------

SLICES = "patient,slice,tumour\nA,0,0\nA,1,1\nB,1,0\nB,0,1\nC,0,1\n"
PATIENTS = "patient,split\nB,train\nA,train\nC,val\n"


def write_tables(
    folder: Path, slices: str = SLICES, patients: str = PATIENTS, names: str = "A-t2f B_t2f C.t2f"
) -> dict[str, Any]:
    """Arguments of list_labelled_volumes; the scans are empty files, which nothing opens."""
    (folder / "slices.csv").write_text(slices, encoding="utf-8")
    (folder / "patients.csv").write_text(patients, encoding="utf-8")
    for name in names.split():
        (folder / f"{name}.nii.gz").write_bytes(b"")
    return {
        "images": folder,
        "pattern": "*t2f.nii.gz",
        "slice_labels": folder / "slices.csv",
        "patients": folder / "patients.csv",
    }


def test_volumes_of_a_split_with_their_labels_in_slice_order(tmp_path: Path) -> None:
    volumes = list_labelled_volumes(**write_tables(tmp_path), split="train")
    assert volumes == [
        LabelledVolume("B", tmp_path / "B_t2f.nii.gz", (1, 0)),
        LabelledVolume("A", tmp_path / "A-t2f.nii.gz", (0, 1)),
    ]
    (only,) = list_labelled_volumes(**write_tables(tmp_path), split="val")
    assert (only.patient, only.path.name) == ("C", "C.t2f.nii.gz")


def test_a_table_saved_by_a_spreadsheet(tmp_path: Path) -> None:
    """A byte order mark at the start, Windows line ends."""
    tables = write_tables(tmp_path, "\ufeff" + SLICES.replace("\n", "\r\n"), "\ufeff" + PATIENTS)
    assert len(list_labelled_volumes(**tables, split="train")) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"slices": "patient,slice\nA,0\n"},
            r"no column tumour",
        ),
        ({"patients": "patient\nA\n"}, r"no column split"),
        ({"patients": ""}, r"is empty. .*columns: patient, split"),
        ({"slices": SLICES + "A,x,0\n"}, r"slices.csv, line 7: slice must be .* got 'x' and '0'"),
        ({"slices": SLICES + "A,-1,0\n"}, r"line 7: slice must be .* got '-1'"),
        ({"slices": SLICES + "A,2,2\n"}, r"line 7: .*tumour 0 or 1, got '2' and '2'"),
        ({"slices": SLICES + "A,2\n"}, r"line 7: 2 values, and there are 3"),
        ({"slices": SLICES + "A\n"}, r"line 7: 1 values, and there are 3"),
        (
            {"slices": SLICES + "A,3,0\n"},
            r"slices of A are not labelled .*: 3 labels up to slice 3",
        ),
        (
            {"slices": SLICES + "A,1,0\n"},
            r"line 7: slice 1 of A has a second label",
        ),
        (
            {"slices": SLICES.replace("A,", "Z,")},
            r"A: No line labels a slice of A\.",
        ),
        (
            {"patients": PATIENTS + "A,val\n"},
            r"line 5: A is in two splits, 'train' and 'val'",
        ),
        ({"patients": "patient,split\nC,val\n"}, r"split 'train'; its splits are val\."),
        ({"patients": "patient,split\n"}, r"split 'train'; its splits are none\."),
        ({"names": "B_t2f C.t2f AA-t2f"}, r"name begins with A, and there are 0: none"),
        (
            {"names": "A-t2f A-2-t2f B_t2f"},
            r"are 2: .*A-2-t2f.nii.gz, .*A-t2f.nii.gz\. Narrow",
        ),
    ],
)
def test_bad_tables(tmp_path: Path, change: dict[str, str], message: str) -> None:
    tables = write_tables(tmp_path, **change)
    with pytest.raises(InputError, match=message):
        list_labelled_volumes(**tables, split="train")


@pytest.mark.fault("E")
def test_every_patient_that_cannot_be_learnt_from_is_named_before_training(tmp_path: Path) -> None:
    slices = SLICES.replace("B,", "Z,")
    tables = write_tables(tmp_path, slices=slices, names="A-t2f A-2-t2f B_t2f C.t2f")
    with pytest.raises(InputError, match=r"(?s)2 of 2 patients .*B: .* slice of B.*A: .* are 2: "):
        list_labelled_volumes(**tables, split="train")


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    tables = write_tables(tmp_path)
    (tmp_path / "slices.csv").unlink()
    with pytest.raises(InputError, match=r"slices.csv cannot be read: No such file"):
        list_labelled_volumes(**tables, split="train")


# --- engine parts --------------------------------------------------------------------------


def test_targets_hold_the_label_and_the_positions_log_odds() -> None:
    prior = PositionPrior([0.1, 0.9], [0, 1], bins=2)
    batch = {
        "image": draw_slices(2),
        "label": torch.tensor([1.0, 0.0]),
        "position": torch.tensor([0.2, 0.8]),
    }
    images, targets = PrepareSlices(prior)(batch, "cpu", non_blocking=True)
    assert torch.equal(images, batch["image"])
    third = math.log(3)
    np.testing.assert_allclose(targets, [[1, -third], [0, third]], rtol=1e-6)
    torch.manual_seed(0)
    moved, _ = PrepareSlices(prior, Augmentation())(batch, "cpu")
    assert not torch.allclose(moved, images, atol=0.01)
    _, labels = PrepareSlices(None)(batch, "cpu")
    assert labels.tolist() == [[1], [0]]
    loss = PositionOffsetLoss()(torch.tensor([[0.3], [0.4]]), labels)
    assert loss.item() == pytest.approx(
        (math.log1p(math.exp(-0.3)) + math.log1p(math.exp(0.4))) / 2
    )


@pytest.mark.parametrize("able", [True, False])
def test_training_runs_in_bfloat16_where_the_cpu_has_it(monkeypatch, able) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": able})
    seen = []
    network = nn.Linear(4, 1)
    network.register_forward_hook(lambda _, inputs, output: seen.append(output.dtype))
    out = AutocastInferer()(torch.rand(2, 4), network)
    assert seen == [torch.bfloat16 if able else torch.float32]
    assert out.dtype == torch.float32
    out.sum().backward()
    assert network.weight.grad is not None


def test_the_seed_decides_the_initial_weights() -> None:
    options = {"features": (4, 6), "norm": "batch"}
    first, second, third = (seed_network(GPUNet(**options), seed) for seed in (1, 1, 2))
    for (name, a), b in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert not torch.equal(first.head.weight, third.head.weight)


def draw_by_epoch(seed: int) -> list[Tensor]:
    drawn: list[Tensor] = []
    engine = Engine(lambda *_: drawn.append(torch.rand(3)))
    SeedEpochs(seed).attach(engine)
    engine.run([0], max_epochs=2)
    return drawn


def test_every_epoch_has_its_own_seed() -> None:
    drawn = draw_by_epoch(0) + draw_by_epoch(1)
    for one, other in itertools.combinations(drawn, 2):
        assert not torch.equal(one, other)
    torch.rand(1)
    assert torch.equal(draw_by_epoch(1)[1], drawn[3])


# --- scores --------------------------------------------------------------------------------


def test_scores_of_several_classes_against_sklearn() -> None:
    torch.manual_seed(0)
    logits, labels = 2 * torch.randn(40, 3), torch.randint(0, 4, (40,))
    found = torch.cat([torch.zeros(40, 1), logits], dim=1).softmax(1)
    torch.testing.assert_close(compute_probabilities(logits), found)
    engine = Engine(lambda _, batch: batch)
    for name in ("auroc", "macro_f1", "accuracy"):
        SliceScore(name).attach(engine, name)
    batches = zip(logits.split(7), labels[:, None].float().split(7), strict=True)
    scores = engine.run(list(batches)).metrics
    predicted = found.argmax(1)
    each = [metrics.roc_auc_score(labels == k, found[:, k]) for k in (1, 2, 3)]
    assert scores["auroc"] == pytest.approx(np.mean(each))
    assert scores["macro_f1"] == pytest.approx(metrics.f1_score(labels, predicted, average="macro"))
    assert scores["accuracy"] == pytest.approx((labels == predicted).float().mean().item())


def test_without_negatives_none_is_never_predicted() -> None:
    logits = torch.full((5, 2), -9.0)
    assert (compute_probabilities(logits, negatives=False)[:, 0] == 0).all()
    assert (compute_probabilities(logits)[:, 0] > 0.99).all()
    assert (compute_probabilities(logits[:, :1], negatives=False)[:, 0] > 0.99).all()


def test_scores_of_one_class_are_monais(tmp_path: Path) -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(30, 1), torch.randint(0, 2, (30, 1)).float()
    engine = Engine(lambda _, batch: batch)
    SliceScore("auroc").attach(engine, "auroc")
    scores = engine.run([(logits, torch.cat([labels, logits], dim=1))]).metrics
    assert scores["auroc"] == pytest.approx(compute_roc_auc(logits, labels))


def test_a_class_that_no_slice_has_is_left_out() -> None:
    dataset = SliceDataset([LabelledVolume("p", Path("RAS"), (0, 0, 1, 1, 1))], read_plainly)
    network = PlantedClassifier(gains=(8.0, 1.0), offsets=(-20.0, -99.0))
    scores = score_slices(network, dataset)
    assert scores == {"auroc": 1.0, "macro_f1": 1.0, "accuracy": 1.0}


def test_a_score_that_is_not_known() -> None:
    with pytest.raises(OptionError, match=r"score must be one of auroc, macro_f1, accuracy, got"):
        SliceScore("dice")


# --- starting from other weights -----------------------------------------------------------


def test_what_fits_is_taken_and_the_rest_is_drawn(tmp_path: Path) -> None:
    options = {"features": (4, 6), "norm": "batch"}
    trained = seed_network(GPUNet(**options), 5)
    torch.save(trained.state_dict(), tmp_path / "model.pt")
    fresh = seed_network(GPUNet(**options, num_classes=3), 1)
    started = draw_or_copy_weights(GPUNet(**options, num_classes=3), 1, tmp_path / "model.pt")
    for name, value in started.state_dict().items():
        source = fresh if name.startswith("head") else trained
        assert torch.equal(value, source.state_dict()[name]), name
    unstarted = draw_or_copy_weights(GPUNet(**options, num_classes=3), 1)
    for name, value in unstarted.state_dict().items():
        assert torch.equal(value, fresh.state_dict()[name]), name


def test_weights_of_another_network_start_nothing(tmp_path: Path) -> None:
    save_weights(nn.Linear(3, 2).state_dict(), tmp_path / "model.pt")
    with pytest.raises(WeightsError, match=r"Nothing in .* fits GPUNet"):
        draw_or_copy_weights(GPUNet(features=(4, 6)), 0, tmp_path / "model.pt")
    with pytest.raises(WeightsError, match=r"absent.pt, cannot be read"):
        draw_or_copy_weights(GPUNet(features=(4, 6)), 0, tmp_path / "absent.pt")


# --- checkpoints ---------------------------------------------------------------------------


def run_resumable(trainer: Engine, *run: Any) -> None:
    if resume(trainer, *run):
        trainer.run()


def validate(keeper: KeepBest, losses: list[float], first_epoch: int = 1) -> list[int]:
    """Hand a validator's losses to a keeper; return the epoch it holds after each."""
    held = []
    for epoch, loss in enumerate(losses, start=first_epoch):
        keeper.network.bias.data.fill_(epoch)
        engine = Engine(lambda *_: None)
        engine.state.epoch, engine.state.metrics = epoch, {"val_loss": loss, "val_auroc": 0.5}
        keeper(engine)
        content = torch.load(keeper.path, weights_only=True)
        assert content["model"]["bias"].item() == content["epoch"]
        held.append(content["epoch"])
    return held


def test_the_lowest_loss_is_kept(tmp_path: Path) -> None:
    keeper = KeepBest(nn.Linear(2, 1), tmp_path / "best.pt")
    assert validate(keeper, [0.9, 0.5, 0.5, 0.7, 0.4]) == [1, 2, 2, 2, 5]
    content = torch.load(tmp_path / "best.pt", weights_only=True)
    assert content["metrics"] == {"val_loss": 0.4, "val_auroc": 0.5}
    assert [p.name for p in tmp_path.iterdir()] == ["best.pt"]


def test_the_best_survives_a_resume_and_not_a_new_run(tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    assert validate(KeepBest(nn.Linear(2, 1), path), [0.9, 0.3]) == [1, 2]
    assert validate(KeepBest(nn.Linear(2, 1), path), [0.5, 0.2], first_epoch=3) == [2, 4]
    assert validate(KeepBest(nn.Linear(2, 1), path), [0.8, 0.9]) == [1, 1]


def test_a_diverged_epoch_is_never_the_best(tmp_path: Path) -> None:
    nan = float("nan")
    assert validate(KeepBest(nn.Linear(2, 1), tmp_path / "a.pt"), [0.9, nan, 0.95]) == [1, 1, 1]
    assert validate(KeepBest(nn.Linear(2, 1), tmp_path / "b.pt"), [nan, 0.9, nan]) == [1, 2, 2]


def make_trainer(max_epochs: int) -> tuple[SupervisedTrainer, dict[str, Any]]:
    torch.manual_seed(0)
    network = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    data = [{"image": torch.randn(4, 2), "label": torch.randn(4, 1)} for _ in range(3)]
    trainer = SupervisedTrainer(
        torch.device("cpu"), max_epochs, data, network, optimizer, nn.MSELoss()
    )
    return trainer, {"network": network, "optimizer": optimizer}


SETTINGS = {"data": "there", "seed": 0}


def test_a_run_of_another_network_is_not_gone_on_with(tmp_path: Path) -> None:
    """Also where every tensor fits: what is pooled how is no tensor."""
    trainer, state = make_trainer(1)
    run_resumable(trainer, {**state, "network": TopPooling(0.1)}, tmp_path, SETTINGS)
    with pytest.raises(OptionError, match=r"other settings \(network structure: "):
        run_resumable(trainer, {**state, "network": TopPooling(0.5)}, tmp_path, SETTINGS)


def test_a_run_leaves_its_last_checkpoint_alone(tmp_path: Path) -> None:
    trainer, state = make_trainer(3)
    run_resumable(trainer, state, tmp_path / "run", SETTINGS)
    names = sorted(p.name for p in (tmp_path / "run").iterdir())
    assert names == ["checkpoint_epoch=3.pt", "run.json"]


def test_a_run_goes_on_where_it_was(tmp_path: Path) -> None:
    whole, state = make_trainer(4)
    run_resumable(whole, state, tmp_path / "whole", SETTINGS)
    first, cut = make_trainer(4)
    first.add_event_handler(Events.EPOCH_STARTED(once=3), lambda engine: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run_resumable(first, cut, tmp_path / "cut", SETTINGS)
    second, again = make_trainer(4)
    epochs = []
    second.add_event_handler(Events.EPOCH_STARTED, lambda engine: epochs.append(engine.state.epoch))
    run_resumable(second, again, tmp_path / "cut", SETTINGS)
    assert epochs == [3, 4]
    for a, b in zip(state["network"].parameters(), again["network"].parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    run_resumable(*make_trainer(2), tmp_path, SETTINGS)
    before = (tmp_path / "checkpoint_epoch=2.pt").stat().st_mtime_ns
    trainer, state = make_trainer(2)
    run_resumable(trainer, state, tmp_path, SETTINGS)
    assert trainer.state.iteration == 0
    assert (tmp_path / "checkpoint_epoch=2.pt").stat().st_mtime_ns == before


def test_a_run_of_other_settings_is_not_gone_on_with(tmp_path: Path) -> None:
    run_resumable(*make_trainer(2), tmp_path, SETTINGS)
    before = (tmp_path / "checkpoint_epoch=2.pt").stat().st_mtime_ns
    with pytest.raises(OptionError, match=r"other settings \(data: there there, elsewhere now\)"):
        run_resumable(*make_trainer(3), tmp_path, {**SETTINGS, "data": "elsewhere"})
    assert (tmp_path / "checkpoint_epoch=2.pt").stat().st_mtime_ns == before


def test_a_setting_that_is_left_out_later_is_another_run(tmp_path: Path) -> None:
    run_resumable(*make_trainer(2), tmp_path, {**SETTINGS, "pattern": "*flair*"})
    with pytest.raises(OptionError, match=r"pattern: \*flair\* there, None now"):
        run_resumable(*make_trainer(2), tmp_path, SETTINGS)


def test_corrected_slice_labels_make_another_run(tmp_path: Path) -> None:
    """The tables beside the images count by their content, as those that are named do."""
    (tmp_path / "patients.csv").write_text("patient,split\n", encoding="utf-8")
    labels, records = tmp_path / "slice_labels.csv", []
    for label in (0, 1):
        labels.write_text(f"patient,slice,tumour\nP,0,{label}\n", encoding="utf-8")
        records.append(describe_run({"dataset_dir": str(tmp_path)}, TrainSettings()))
    assert records[0]["patients"] == records[1]["patients"]
    assert records[0]["slice_labels"] != records[1]["slice_labels"]


def test_a_batch_is_at_most_all_images() -> None:
    """A smaller one is dropped, so that nothing would be learnt."""
    assert take_settings({"batch_size": 32}, 1, range(5)).batch_size == 5
    assert take_settings({"batch_size": 4}, 1, range(5)).batch_size == 4


def test_a_new_run_drops_the_best_of_an_old_one(tmp_path: Path) -> None:
    (tmp_path / "best.pt").write_bytes(b"of another run")
    run_resumable(*make_trainer(1), tmp_path, SETTINGS)
    assert not (tmp_path / "best.pt").exists()


def test_a_kill_while_saving_loses_one_epoch_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = Path.write_bytes, []

    def die_half_way(path: Path, content: bytes) -> int:
        written.append(path)
        if len(written) == 2:  # of the second epoch
            write(path, b"half a checkpoint")
            raise KeyboardInterrupt
        return write(path, content)

    trainer, state = make_trainer(3)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", die_half_way)
        with pytest.raises(KeyboardInterrupt):
            run_resumable(trainer, state, tmp_path, SETTINGS)
    resumed, state = make_trainer(3)
    epochs = []
    resumed.add_event_handler(
        Events.EPOCH_STARTED, lambda engine: epochs.append(engine.state.epoch)
    )
    run_resumable(resumed, state, tmp_path, SETTINGS)
    assert epochs == [2, 3]


INHERENT = {"inherent": Explainer("inherent")}


class Slices(torch.utils.data.Dataset):
    """Two slices of tissue without, two with a blob; enough for the planted classifier."""

    labels = torch.tensor([0.0, 0.0, 1.0, 1.0])

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        image = torch.ones(1, 16, 16)
        if index >= 2:
            image[:, :8] = 2
        return {"image": image, "label": torch.tensor(float(index >= 2))}


def test_the_heatmaps_range_comes_from_labels_alone() -> None:
    """8 x - 12: -4 is what nothing looks like, 4 is the top of what is there."""
    ranges = measure_ranges(PlantedClassifier(), Slices(), INHERENT)
    assert ranges == {"inherent": (-4.0, 4.0)}


class ThreeKinds(Slices):
    """None, a blob of brightness 2 and one of 3; 0 without any tissue."""

    labels = torch.tensor([0.0, 1.0, 2.0])

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        image = torch.ones(1, 16, 16)
        image[:, :8] += index
        return {"image": image, "label": torch.tensor(float(index))}


def test_one_range_holds_for_all_classes() -> None:
    """Class 0 is 8 x - 12, class 1 x - 2: each by the slices with and without that class."""
    network = PlantedClassifier(gains=(8.0, 1.0), offsets=(-12.0, -2.0))
    ranges = measure_ranges(network, ThreeKinds(), INHERENT)
    # Without class 0: 1, 1, 1, 3 -> -4, -4, -4, 12; without class 1: 1, 1, 1, 2 -> -1, -1, -1, 0
    assert ranges["inherent"][0] == -1.0
    assert ranges["inherent"][1] == 4.0  # with class 0 at most 4, with class 1 at most 1


def test_the_best_is_shipped(tmp_path: Path) -> None:
    network = PlantedClassifier(gains=(8.0,), offsets=(-12.0,))
    best = {"model": network.state_dict(), "epoch": 7, "metrics": {"val_loss": 0.25}}
    torch.save(best, tmp_path / "best.pt")
    weights, other = tmp_path / "bundle" / "model.pt", PlantedClassifier((1.0,), (0.0,))
    report = export_best(
        tmp_path / "best.pt", weights, other, Slices(), INHERENT, seed=3, max_epochs=20
    )
    shipped = load_weights(PlantedClassifier((0.0,), (0.0,)), weights)
    assert shipped.head.weight.item() == 8
    assert torch.load(weights, weights_only=True)["head.bias"].dtype == torch.float16
    written = json.loads((tmp_path / "training.json").read_text(encoding="utf-8"))
    assert written == report == {
        "seed": 3, "max_epochs": 20, "best_epoch": 7, "validation": {"val_loss": 0.25},
        "calibration": {"inherent": [-4.0, 4.0]},
    }  # fmt: skip
    assert read_calibration(weights, "inherent") == [-4.0, 4.0]


def test_shipping_without_a_best(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no best checkpoint: .*best.pt is missing"):
        export_best(
            tmp_path / "best.pt", tmp_path / "model.pt", PlantedClassifier(), Slices(), INHERENT
        )
    assert not list(tmp_path.iterdir())


# --- the whole run, through MONAI's command ------------------------------------------------

EPOCHS = 5


@pytest.fixture(scope="module")
def slices_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five small heads with slice labels. Their masks are garbage that no reader would take."""
    folder = tmp_path_factory.mktemp("slices")
    slices, patients = ["patient,slice,tumour"], ["patient,split"]
    for seed in range(5):
        phantom = make_phantom(300 + seed, shape=(46, 58, 8), spacing_mm=(4.5, 4.5, 19.0))
        name = f"P{seed}"
        (folder / name).mkdir()
        write_nifti(folder / name / f"{name}-t2f.nii.gz", phantom.image, phantom.affine)
        (folder / name / f"{name}-seg.nii.gz").write_text("no mask is read")
        patients.append(f"{name},{'train' if seed < 3 else 'val'}")
        slices += [f"{name},{i},{label}" for i, label in enumerate(phantom.slice_labels)]
    (folder / "slice_labels.csv").write_text("\n".join(slices) + "\n", encoding="utf-8")
    (folder / "patients.csv").write_text("\n".join(patients) + "\n", encoding="utf-8")
    return folder


KILLED = """
import os, runpy, signal
from heatmask.training import checkpoints
save, saved = checkpoints._save_epoch, []
def save_one(*arguments):
    if saved:
        os.kill(os.getpid(), signal.SIGKILL)
    saved.append(save(*arguments))
checkpoints._save_epoch = save_one
runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)
"""
"""A training that is killed at the end of its second epoch, before that is saved."""


def start_training(
    bundle_dir: Path, data: Path, output: Path, log: Path, processes: int = 1, killed: bool = False
) -> subprocess.Popen[bytes]:
    configs = [str(bundle_dir / "configs" / "train.json")]
    configs += [str(bundle_dir / "configs" / "multi_gpu_train.json")] * (processes > 1)
    words = {
        "config_file": configs, "bundle_root": bundle_dir,
        "dataset_dir": data, "output_dir": output, "weights": output / "model.pt",
        "max_epochs": EPOCHS, "batch_size": 8, "device": "cpu", "pixel_spacing_mm": 4.5,
        "image_size": "[48, 48]", "network_def#features": "[4, 8]",
    }  # fmt: skip
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    program = ["-c", KILLED] if killed else ["-m", "monai.bundle"]
    command = [sys.executable, *torchrun * (processes > 1), *program, "run"]
    for name, value in words.items():
        command += [f"--{name}", str(value)]
    with log.open("wb") as file:
        return subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip


@pytest.fixture(scope="module")
def runs(
    bundle_dir: Path, slices_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """One run to the end, beside one that is killed in its second epoch and started again."""
    folder = tmp_path_factory.mktemp("runs")
    logs = {name: folder / f"{name}.log" for name in ("whole", "cut", "resumed")}
    whole = start_training(bundle_dir, slices_folder, folder / "whole", logs["whole"])
    cut = start_training(bundle_dir, slices_folder, folder / "cut", logs["cut"], killed=True)
    assert cut.wait() == -signal.SIGKILL, logs["cut"].read_text()
    left = [p.name for p in (folder / "cut").iterdir()]
    resumed = start_training(bundle_dir, slices_folder, folder / "cut", logs["resumed"])
    for name, process in (("whole", whole), ("resumed", resumed)):
        assert process.wait() == 0, logs[name].read_text()
    return {"folder": folder, "left": left, "logs": logs}


def test_a_killed_and_resumed_run_ends_with_the_same_weights(runs: dict[str, Any]) -> None:
    assert "model.pt" not in runs["left"], "it was killed before its end"
    contents = [
        torch.load(runs["folder"] / name / "best.pt", weights_only=True)
        for name in ("whole", "cut")
    ]
    assert contents[0]["epoch"] == contents[1]["epoch"]
    assert contents[0]["metrics"] == contents[1]["metrics"]
    for name, value in contents[0]["model"].items():
        assert torch.equal(value, contents[1]["model"][name]), name
    hashes = {(runs["folder"] / name / "model.pt").read_bytes() for name in ("whole", "cut")}
    assert len(hashes) == 1
    reports = {(runs["folder"] / name / "training.json").read_text() for name in ("whole", "cut")}
    assert len(reports) == 1


def test_a_resumed_run_does_not_start_again(runs: dict[str, Any]) -> None:
    """Its own TensorBoard log begins after the epochs that the killed run had finished."""
    events = sorted((runs["folder"] / "cut").glob("events.*"), key=lambda p: p.stat().st_mtime)
    steps = [p.step for p in EventAccumulator(str(events[-1])).Reload().Scalars("val_loss")]
    done = [n for n in runs["left"] if n.startswith("checkpoint_epoch=") and n.endswith(".pt")]
    last = max(int(name.removeprefix("checkpoint_epoch=").removesuffix(".pt")) for name in done)
    assert steps == list(range(last + 1, EPOCHS + 1))


def test_a_run_logs_shows_progress_and_trains(runs: dict[str, Any]) -> None:
    log = EventAccumulator(str(runs["folder"] / "whole")).Reload()
    assert {"train_loss", "val_loss", "val_auroc"} <= set(log.Tags()["scalars"])
    assert [p.step for p in log.Scalars("val_loss")] == list(range(1, EPOCHS + 1))
    assert f"[{EPOCHS}/{EPOCHS}]" in runs["logs"]["whole"].read_text(), "ignite's progress bar"
    report = json.loads((runs["folder"] / "whole" / "training.json").read_text())
    assert report["seed"] == 0
    low, high = report["calibration"]["inherent"]
    assert low < high
    losses = [p.value for p in log.Scalars("val_loss")]
    assert report["validation"]["val_loss"] == pytest.approx(min(losses), rel=1e-5)
    assert losses.index(min(losses)) + 1 == report["best_epoch"]


def test_the_trained_weights_fit_the_bundles_network(
    runs: dict[str, Any], bundle_dir: Path
) -> None:
    network, shipped = (
        run_bundle(read_bundle(bundle_dir, options=options), "network_def")
        for options in ({"network_def#features": [4, 8]}, {})
    )
    load_weights(network, runs["folder"] / "whole" / "model.pt")
    with pytest.raises(WeightsError, match=r"must fit GPUNet in every tensor"):
        load_weights(shipped, runs["folder"] / "whole" / "model.pt")


@pytest.mark.fault("F")
def test_monai_finds_and_sets_what_it_asks_of_a_training(
    bundle_dir: Path, slices_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MONAI Label sets the epochs and the handlers, to load weights before the first step."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    loader = {
        "_target_": "CheckpointLoader", "load_path": str(bundle_dir / "models" / "model.pt"),
        "load_dict": {"model": "$@network"},
    }  # fmt: skip
    settings = {"train#trainer#max_epochs": 1, "train#handlers": [loader], "pixel_spacing_mm": 9.0}
    workflow = ConfigWorkflow(
        config_file=str(bundle_dir / "configs" / "train.json"), workflow_type="train",
        logging_file=False, dataset_dir=str(slices_folder), output_dir=str(tmp_path / "run"),
        image_size=[24, 24], batch_size=8, device="cpu", averaging=1.0,
        learning_rate=0.0, **settings,
    )  # fmt: skip
    workflow.initialize()
    assert workflow.check_properties() == []
    assert workflow.max_epochs == workflow.trainer.state.max_epochs == 1
    workflow.run()
    trained = torch.load(tmp_path / "run" / "model.pt", weights_only=True)
    shipped = torch.load(bundle_dir / "models" / "model.pt", weights_only=True)
    name = "encoder.0.0.weight" if "encoder.0.0.weight" in shipped else next(iter(shipped))
    torch.testing.assert_close(trained[name], shipped[name], rtol=0.01, atol=0.01)


def test_no_mask_is_named_in_the_training_config(bundle_dir: Path) -> None:
    """Beside the run above, whose masks no reader could have opened."""
    text = (bundle_dir / "configs" / "train.json").read_text(encoding="utf-8").lower()
    assert "flair" in text
    assert "seg.nii" not in text
    assert "mask_key" not in text


@pytest.mark.slow
def test_two_processes_train_one_network(
    bundle_dir: Path, slices_folder: Path, tmp_path: Path
) -> None:
    """As two GPUs would, on the CPU: one network comes out, and one of them writes it."""
    log, output = tmp_path / "log", tmp_path / "run"
    process = start_training(bundle_dir, slices_folder, output, log, processes=2)
    assert process.wait() == 0, log.read_text()
    content = torch.load(output / "best.pt", weights_only=True)["model"]
    assert not [name for name in content if name.startswith("module.")]
    assert (output / "model.pt").is_file()
    assert len(list(output.glob("checkpoint_epoch=*.pt"))) == 1
    assert log.read_text().count('"best_epoch"') == 1
    assert log.read_text().count(f"Epoch[{EPOCHS}] Metrics") == 1


@pytest.mark.slow
def test_all_four_channels_of_the_decathlon(tmp_path: Path) -> None:
    """From the layout as it is downloaded to a network of four sequences, labels on request."""
    task = tmp_path / "Task01_BrainTumour"
    for folder in ("imagesTr", "labelsTr"):
        (task / folder).mkdir(parents=True)
    names = {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}
    (task / "dataset.json").write_text(json.dumps({"modality": names}), encoding="utf-8")
    for seed in range(5):
        phantom = make_phantom(300 + seed, shape=(46, 58, 8), spacing_mm=(4.5, 4.5, 19.0))
        channels = np.stack([phantom.image, *[phantom.image[::-1] * f for f in (1, 2, 3)]], -1)
        path = f"BRATS_{seed:03}.nii.gz"
        write_nifti(task / "imagesTr" / path, channels, phantom.affine)
        write_nifti(task / "labelsTr" / path, phantom.lesion, phantom.affine)
    table = tmp_path / "labels.csv"
    words = ["derive-labels", task / "labelsTr", table]
    options = {
        "slice_labels": table, "patients": table, "sequences": '["FLAIR","T1","T1-Gd","T2"]',
        "batch_size": 8, "pixel_spacing_mm": 4.5, "image_size": "[48,48]",
    }  # fmt: skip
    train = ["train", task / "imagesTr", "--run-dir", tmp_path / "run", "--epochs", 1]
    for name, value in options.items():
        train += ["--set", f"{name}={value}"]
    for command in (words, [*train, "--device", "cpu"]):
        done = CliRunner().invoke(app, [str(word) for word in command])
        assert done.exit_code == 0, (done.output, done.exception)
    state = torch.load(tmp_path / "run" / "model.pt", weights_only=True)
    assert state["encoder.0.0.weight"].shape[1] == 4
    drawn = [patient for split in ("train", "val", "test") for patient in read_split(table, split)]
    assert sorted(drawn) == [f"BRATS_{seed:03}" for seed in range(5)], "each in one split"
