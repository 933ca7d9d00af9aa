"""HeatmapInferer: every slice axis, any batch size, any thread gives the one right heatmap."""

import contextlib
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.networks import nets
from monai.transforms import Orientation
from torch import Tensor, nn

from heatmask.attribution import Explainer
from heatmask.errors import InputError, MethodError, OptionError
from heatmask.inferer import HeatmapInferer
from heatmask.masks.make import make_mask
from heatmask.masks.settings import MaskSettings
from heatmask.networks.gp_unet import GPUNet
from heatmask.networks.resnet import make_resnet
from helpers.planted import PlantedClassifier, draw_ball, make_affine, make_volume

SHAPE = (11, 14, 9)
BALL = draw_ball(SHAPE, centre=(4, 8, 5), radius=3.2)
EMPTY = -6.0


def make_scan(empty_planes: int = 2) -> Tensor:
    """Tissue of 1 with a ball of 2, and planes of zeros on the low side of every axis."""
    scan = torch.from_numpy(1.0 + BALL).float()
    for axis in range(3):
        scan.movedim(axis, 0)[:empty_planes] = 0
    return scan[None, None]


def make_gp_unet(seed: int = 0, num_classes: int = 1) -> GPUNet:
    torch.manual_seed(seed)
    network = GPUNet(
        features=(4, 6), norm="batch", pool_at="map", pooling="top", num_classes=num_classes
    )
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network.eval()


class PrecisionRecorder(nn.Module):
    """A classifier that notes whether convolutions may use TF32 when it is called, or fails."""

    seen: ClassVar[list[bool]] = []  # the inferer works on a copy of the network

    def __init__(self, fails: bool = False) -> None:
        super().__init__()
        self.layer, self.fails = nn.Conv2d(1, 1, 3), fails

    def forward(self, images: Tensor) -> Tensor:
        PrecisionRecorder.seen.append(torch.backends.cudnn.allow_tf32)
        if self.fails:
            raise ArithmeticError
        return self.layer(images).mean((2, 3))

    def forward_heatmap(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self(images), self.layer(images)


@pytest.mark.parametrize("fails", [False, True])
def test_a_gpu_calculates_in_full_precision(monkeypatch, fails):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    PrecisionRecorder.seen.clear()
    with contextlib.suppress(ArithmeticError):
        HeatmapInferer(empty_value=EMPTY)(make_scan(), PrecisionRecorder(fails))
    assert set(PrecisionRecorder.seen) == {False}
    assert torch.backends.cudnn.allow_tf32


def explain_naively(volume: Tensor, network: nn.Module, axis: int, gate: bool) -> dict[str, Tensor]:
    """The oracle: one slice at a time, everything spelt out."""
    channels = network(torch.ones(1, 1, 8, 8)).shape[1]
    heatmap = torch.full((channels, *volume.shape[1:]), EMPTY)
    count = volume.shape[axis + 1]
    shown = torch.zeros(count, channels, dtype=torch.bool)
    probabilities = torch.zeros(count, channels)
    for index in range(count):
        image = volume.select(axis + 1, index)
        if not image.any():
            continue
        with torch.no_grad():
            logits, attribution = network.forward_heatmap(image[None])
        p = torch.sigmoid(logits[0]) if channels == 1 else torch.softmax(logits[0], 0)
        probabilities[index] = p
        for k in range(channels):
            predicted = bool(p[k] >= 0.5) if channels == 1 else bool(p[k] == p.max())
            if predicted or not gate:
                shown[index, k] = True
                heatmap[k].select(axis, index)[:] = attribution[0, k]
    return {"heatmap": heatmap, "shown": shown, "slice_probabilities": probabilities}


def assert_matches(result: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    torch.testing.assert_close(result["heatmap"][0], expected["heatmap"], rtol=1e-5, atol=1e-5)
    assert torch.equal(result["shown"][0], expected["shown"])
    found = result["slice_probabilities"][0]
    torch.testing.assert_close(found, expected["slice_probabilities"], rtol=1e-5, atol=1e-6)
    assert torch.equal(result["probabilities"][0], found.max(0).values)


@pytest.mark.parametrize("slice_axis", [0, 1, 2])
def test_the_planted_ball_along_every_axis(slice_axis: int) -> None:
    """The heatmap is 8 x - 12 on the slices that hold the ball, and the filling elsewhere."""
    scan = make_scan()
    result = HeatmapInferer(slice_axis=slice_axis, batch_size=4, empty_value=EMPTY)(
        scan, PlantedClassifier()
    )
    plain = scan[0, 0].numpy()
    others = tuple(a for a in range(3) if a != slice_axis)
    holds_ball = (plain > 1.5).any(axis=others)
    expected = np.full(SHAPE, EMPTY, np.float32)
    np.moveaxis(expected, slice_axis, 0)[holds_ball] = np.moveaxis(8 * plain - 12, slice_axis, 0)[
        holds_ball
    ]
    np.testing.assert_allclose(result["heatmap"][0, 0].numpy(), expected, atol=1e-5)
    np.testing.assert_array_equal(result["shown"][0, :, 0].numpy(), holds_ball)
    assert result["heatmap"].dtype == torch.float32
    assert not result["heatmap"].requires_grad
    p = result["slice_probabilities"][0, :, 0].numpy()
    np.testing.assert_allclose(p[holds_ball], 1 / (1 + np.exp(-4.0)), rtol=1e-5)
    np.testing.assert_allclose(p[~holds_ball & (p > 0)], 1 / (1 + np.exp(4.0)), rtol=1e-5)


@pytest.mark.parametrize("num_classes", [1, 3])
@pytest.mark.parametrize("gate", [True, False])
@pytest.mark.parametrize("slice_axis", [0, 1, 2])
def test_against_one_slice_at_a_time(num_classes: int, gate: bool, slice_axis: int) -> None:
    network, scan = make_gp_unet(num_classes=num_classes), make_scan()
    scan *= 1 + 0.3 * torch.rand(scan.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():  # so that half of the slices pass the gate, none of them by a hair
        logits = torch.stack(
            [network(s[None])[0] for s in scan[0].unbind(slice_axis + 1) if s.any()]
        )
        ordered, middle = logits.sort(dim=0).values, len(logits) // 2
        network.head.bias -= (ordered[middle - 1] + ordered[middle]) / 2
    result = HeatmapInferer(slice_axis=slice_axis, batch_size=3, gate=gate, empty_value=EMPTY)(
        scan, network
    )
    expected = explain_naively(scan[0], network, slice_axis, gate)
    assert_matches(result, expected)
    filled = expected["shown"][2:].float().mean()
    assert 0.2 < filled < 0.8 if gate else filled == 1


@settings(max_examples=15, deadline=None)
@given(
    shape=st.tuples(*[st.integers(2, 7)] * 3),
    slice_axis=st.integers(0, 2),
    batch_size=st.integers(1, 9),
    gate=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_shape(
    shape: tuple[int, int, int], slice_axis: int, batch_size: int, gate: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    volume = 2 * torch.rand(1, *shape, generator=generator)
    empty = torch.rand(shape[slice_axis], generator=generator) < 0.4
    empty[seed % len(empty)] = False
    volume.movedim(slice_axis + 1, 0)[empty] = 0
    network = PlantedClassifier((4.0,), (-6.0,)).eval()
    result = HeatmapInferer(slice_axis, batch_size, gate, empty_value=EMPTY)(volume[None], network)
    assert sum(network.batches) == int((~empty).sum())
    assert_matches(result, explain_naively(volume, network, slice_axis, gate))


def test_all_zero_slices_are_not_run_and_batches_are_full() -> None:
    network = PlantedClassifier().eval()
    HeatmapInferer(slice_axis=1, batch_size=5)(make_scan(empty_planes=2), network)
    assert network.batches == [5, 5, 2]  # 14 slices, 2 of them empty


def test_all_zero_slices_are_filled_even_without_gate() -> None:
    result = HeatmapInferer(gate=False, empty_value=-3.5)(make_scan(), PlantedClassifier())
    assert (result["heatmap"][..., :2] == -3.5).all()
    assert (result["heatmap"][..., 2:] != -3.5).all()
    assert not result["shown"][:, :2].any()
    assert (result["slice_probabilities"][:, :2] == 0).all()


@pytest.mark.parametrize("num_classes", [1, 3])
def test_the_batch_size_changes_nothing(num_classes: int) -> None:
    network = make_gp_unet(seed=3, num_classes=num_classes)
    scan = make_scan() * (1 + torch.rand(1, 1, *SHAPE, generator=torch.Generator().manual_seed(2)))
    one, many = (
        HeatmapInferer(batch_size=size, gate=False)(scan, network)["heatmap"] for size in (1, 6)
    )
    assert (one - many).abs().max() <= 1e-5 * one.abs().max()
    rules = MaskSettings(
        calibration=(float(one.min()), float(one.max())), min_volume_mm3=0, keep="all", snap=False
    )
    shown = np.arange(SHAPE[2]) >= 2
    first, second = (
        make_mask(h[0, 0].numpy(), scan[0, 0].numpy(), (1, 1, 1), 2, shown, rules)
        for h in (one, many)
    )
    assert first.any()
    assert (first != second).mean() <= 1e-4


def test_the_gate_asks_for_its_probability() -> None:
    """The slices' probabilities rise along the axis; the gate cuts where it should."""
    logits = torch.linspace(-2, 2, 9)  # even odds among them: sigmoid(0) is 0.5
    volume = (logits - 5).view(1, 1, 1, 1, 9).expand(1, 1, 4, 5, 9)
    network = PlantedClassifier((1.0,), (5.0,))
    for wanted in (0.0, 0.3, 0.5, 0.8, 1.0):
        result = HeatmapInferer(gate_probability=wanted, empty_value=-9)(volume, network)
        expected = torch.sigmoid(logits) >= wanted
        assert torch.equal(result["shown"][0, :, 0], expected)
        assert torch.equal((result["heatmap"][0, 0] != -9).all(0).all(0), expected)


def test_one_slice_lets_a_whole_volume_through() -> None:
    logits = torch.tensor([[-2.0, -1, 1.5, -3], [-2, -1, -1, -3]])
    volumes = (logits - 5).view(2, 1, 1, 1, 4).expand(2, 1, 4, 5, 4)
    network = PlantedClassifier((1.0,), (5.0,))
    inferer = HeatmapInferer(gate_scope="volume", gate_probability=0.8, empty_value=-9)
    result = inferer(volumes, network)
    assert result["shown"][..., 0].all(dim=1).tolist() == [True, False]
    assert result["shown"][..., 0].any(dim=1).tolist() == [True, False]
    assert result["predicted"][0, :, 0].tolist() == [False, False, True, False]
    torch.testing.assert_close(result["slice_probabilities"][..., 0], torch.sigmoid(logits))
    with pytest.raises(OptionError, match="gate_scope must be one of slice, volume"):
        HeatmapInferer(gate_scope="patient")


def test_several_classes_share_a_softmax_and_show_the_largest() -> None:
    volume = torch.full((1, 1, 4, 5, 2), 1.0)
    volume[..., 1] = 3.0
    network = PlantedClassifier((1.0, 0.0, -1.0), (0.0, 2.0, 0.5))  # 1, 2, -.5 and 3, 2, -2.5
    result = HeatmapInferer(empty_value=-9)(volume, network)
    expected = torch.softmax(torch.tensor([[1, 2, -0.5], [3, 2, -2.5]]), dim=1)
    torch.testing.assert_close(result["slice_probabilities"][0], expected)
    torch.testing.assert_close(result["probabilities"][0], expected.max(0).values)
    assert result["shown"][0].tolist() == [[False, True, False], [True, False, False]]
    assert result["heatmap"][0, :, 0, 0].tolist() == [[-9, 3], [2, -9], [-9, -9]]


def test_several_volumes_in_a_batch_are_independent() -> None:
    first, second = make_scan(), 2 - make_scan(empty_planes=1)
    network, inferer = make_gp_unet(), HeatmapInferer(batch_size=4)
    together = inferer(torch.cat([first, second]), network)
    for index, alone in enumerate((first, second)):
        for name, value in inferer(alone, network).items():
            torch.testing.assert_close(together[name][index], value[0])


def test_geometry_and_history_travel_with_the_heatmap() -> None:
    affine = make_affine((0.9, 4.0, 1.1), "PSL", tilt_deg=(8, -12, 5))
    stored = make_volume(make_scan()[0], affine)
    volume = Orientation("RAS", labels=None)(stored)
    heatmap = HeatmapInferer()(volume[None], PlantedClassifier())["heatmap"]
    np.testing.assert_array_equal(heatmap.affine, volume.affine)
    assert heatmap.applied_operations == volume[None].applied_operations
    assert len(heatmap[0].applied_operations) == 1


def test_plain_tensors_stay_plain() -> None:
    assert type(HeatmapInferer()(make_scan(), PlantedClassifier())["heatmap"]) is Tensor


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_under_every_gradient_mode(mode: type) -> None:
    network, scan = make_gp_unet(), make_scan()
    expected = explain_naively(scan[0], network, 2, gate=True)
    with mode():
        result = HeatmapInferer(empty_value=EMPTY)(scan, network)
    assert_matches(result, expected)
    assert not result["heatmap"].requires_grad


def test_eight_threads_give_the_serial_results() -> None:
    network, inferer = make_gp_unet(seed=5), HeatmapInferer(batch_size=4, gate=False)
    scans = [make_scan() * (1 + 0.1 * i) for i in range(16)]
    serial = [inferer(scan, network) for scan in scans]
    with ThreadPoolExecutor(8) as pool:
        parallel = list(pool.map(lambda scan: inferer(scan, network), scans))
    for one, other in zip(serial, parallel, strict=True):
        for name in one:
            assert torch.equal(one[name], other[name])
    assert not torch.equal(serial[0]["heatmap"], serial[1]["heatmap"])


class FailsOnSecondBatch(PlantedClassifier):
    calls = 0  # of the class, because a network in training mode is run as a copy

    def forward_heatmap(self, images: Tensor) -> tuple[Tensor, Tensor]:
        FailsOnSecondBatch.calls += 1
        if FailsOnSecondBatch.calls > 1:
            raise ValueError("planted failure")
        return super().forward_heatmap(images)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", [PlantedClassifier, FailsOnSecondBatch])
def test_the_network_is_left_as_it_was(kind: type, training: bool) -> None:
    FailsOnSecondBatch.calls = 0
    network = kind().train(training)
    network.head.weight.grad = torch.ones_like(network.head.weight)
    before = deepcopy(network.state_dict())
    if kind is FailsOnSecondBatch:
        with pytest.raises(ValueError, match=r"planted failure"):
            HeatmapInferer(batch_size=2, check=False)(make_scan(), network)
    else:
        HeatmapInferer(batch_size=2)(make_scan(), network)
    assert all(module.training == training for module in network.modules())
    assert network.head.weight.grad.eq(1).all()
    assert network.head.bias.grad is None
    for module in network.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module._backward_hooks
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
    assert torch.is_grad_enabled()
    assert not torch.is_autocast_enabled("cpu")


def test_mixed_precision_agrees_closely() -> None:
    network, scan = make_gp_unet(), make_scan()
    exact, mixed = (HeatmapInferer(gate=False, amp=amp)(scan, network) for amp in (False, True))
    assert mixed["heatmap"].dtype == torch.float32
    span = exact["heatmap"].max() - exact["heatmap"].min()
    error = (exact["heatmap"] - mixed["heatmap"]).abs().max()
    assert 0 < error < 0.05 * span
    assert (exact["probabilities"] - mixed["probabilities"]).abs().max() < 0.02


def test_a_classifier_that_does_not_explain_itself() -> None:
    with pytest.raises(MethodError, match=r"needs a network that offers forward_heatmap"):
        HeatmapInferer(check=False)(make_scan(), nn.Conv2d(1, 1, 1))
    with pytest.raises(MethodError, match=r"must return logits of shape \(batch, classes\)"):
        HeatmapInferer()(make_scan(), nn.Conv2d(1, 1, 1))


def test_wrong_number_of_channels() -> None:
    volume = torch.rand(1, 2, *SHAPE)
    with pytest.raises(InputError, match=r"another number of channels than the images' 2"):
        HeatmapInferer(check=False)(volume, PlantedClassifier())
    with pytest.raises(InputError, match=r"must run on images of shape \(batch, 2, 11, 14\)"):
        HeatmapInferer()(volume, PlantedClassifier())


def test_other_runtime_errors_keep_their_name() -> None:
    network = PlantedClassifier()
    network.head = nn.Linear(3, 1)
    with pytest.raises(RuntimeError, match=r"shapes cannot be multiplied"):
        HeatmapInferer(check=False)(make_scan(), network)


def test_an_all_zero_volume() -> None:
    with pytest.raises(InputError, match=r"at least one slice that is not all zero"):
        HeatmapInferer()(torch.zeros(1, 1, *SHAPE), PlantedClassifier())


def test_a_volume_without_its_batch_axis() -> None:
    with pytest.raises(
        InputError, match=r"\(batch, channel, X, Y, Z\), got shape \(1, 11, 14, 9\)"
    ):
        HeatmapInferer()(make_scan()[0], PlantedClassifier())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slice_axis": 3}, "slice_axis must be one of 0, 1, 2, got 3"),
        ({"slice_axis": -1}, "slice_axis must be one of 0, 1, 2, got -1"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"batch_size": 2.5}, "batch_size must be a whole number of at least 1, got 2.5"),
        ({"gate_probability": 1.2}, "gate_probability must be a number from 0 to 1, got 1.2"),
        (
            {"gate_probability": float("nan")},
            "gate_probability must be .* 0 to 1, got nan",
        ),
    ],
)
def test_bad_options(options: dict[str, float], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        HeatmapInferer(**options)


# --- a plain classifier with a method -------------------------------------------------------


class BrightnessClassifier(nn.Module):
    """logit k = gain k * (mean of the image above 1) - 1; counts the slices it has seen."""

    seen = 0

    def __init__(self, gains: tuple[float, ...] = (40.0,)) -> None:
        super().__init__()
        self.gains = nn.Parameter(torch.tensor(gains))

    def forward(self, images: Tensor) -> Tensor:
        BrightnessClassifier.seen += len(images)
        return (images - 1).relu().flatten(1).mean(1, keepdim=True) * self.gains - 1


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("gains", [(40.0,), (40.0, 3.0, -5.0)])
def test_a_plain_classifier_is_explained_where_it_predicts(
    axis: int, gains: tuple[float, ...]
) -> None:
    """Gate first, explain after: the same as explaining every slice and gating then."""
    scan, network = make_scan(), BrightnessClassifier(gains)
    options = {"slice_axis": axis, "batch_size": 3, "empty_value": EMPTY}
    explainer = Explainer("input_x_gradient")
    gated = HeatmapInferer(**options, explainer=explainer)(scan, network)
    whole = HeatmapInferer(**options, gate=False, explainer=explainer)(scan, network)
    torch.testing.assert_close(gated["slice_probabilities"], whole["slice_probabilities"])
    shown = gated["shown"][0]
    assert 0 < shown[:, 0].sum() < len(shown)
    for k in range(len(gains)):
        stack, full = (r["heatmap"][0, k].movedim(axis, 0) for r in (gated, whole))
        torch.testing.assert_close(stack[shown[:, k]], full[shown[:, k]])
        assert (stack[~shown[:, k]] == EMPTY).all()
    ball = torch.from_numpy(BALL).movedim(axis, 0)[shown[:, 0]]
    hot = gated["heatmap"][0, 0].movedim(axis, 0)[shown[:, 0]] > 0
    assert torch.equal(hot, ball & (scan[0, 0].movedim(axis, 0)[shown[:, 0]] != 0))


def test_slices_without_a_prediction_cost_one_forward() -> None:
    network = BrightnessClassifier((0.001,))
    BrightnessClassifier.seen = 0
    explainer = Explainer("integrated_gradients", steps=9)
    inferer = HeatmapInferer(empty_value=EMPTY, explainer=explainer, check=False)
    result = inferer(make_scan(), network)
    assert not result["shown"].any()
    assert (result["heatmap"] == EMPTY).all()
    assert BrightnessClassifier.seen == SHAPE[2] - 2


def test_channels_are_named_when_the_gate_looks_first() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    inferer = HeatmapInferer(explainer=Explainer("saliency"), check=False)
    with pytest.raises(InputError, match="another number of channels than the images' 3"):
        inferer(torch.rand(1, 3, *SHAPE), network)


def test_a_method_that_would_be_wrong_is_refused() -> None:
    """MONAI's shortcut of type A hides the skip from the gradient."""
    network = nets.resnet10(
        spatial_dims=2, n_input_channels=1, num_classes=1, shortcut_type="A", widen_factor=0.1
    )
    scan = torch.rand(1, 1, 32, 32, 2)
    with pytest.raises(MethodError, match="saliency cannot be relied on with ResNet"):
        HeatmapInferer(explainer=Explainer("saliency"))(scan, network)


@pytest.mark.parametrize("method", ["saliency", "grad_cam", "occlusion"])
def test_a_gated_method_leaves_the_network_as_it_was(method: str) -> None:
    """In training mode too, and by a method that looks at the logits first."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1),
    ).train()  # fmt: skip
    before = deepcopy(network.state_dict())
    inferer = HeatmapInferer(explainer=Explainer(method), gate_probability=0.0, batch_size=2)
    volume = torch.rand(1, 1, 12, 14, 5)
    first, second = inferer(volume, network), inferer(volume, network)
    torch.testing.assert_close(first["heatmap"], second["heatmap"])
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("method", ["saliency", "grad_cam"])
def test_a_slice_that_is_not_finite_is_refused(method: str) -> None:
    torch.manual_seed(0)
    network = make_resnet(10, widen_factor=0.125)
    volume = torch.rand(1, 1, 32, 32, 3)
    volume[..., 5, 5, 1] = torch.nan
    with pytest.raises(MethodError, match=r"the images must be finite, and those of image\(s\) 1"):
        HeatmapInferer(explainer=Explainer(method), check=False)(volume, network)


class ClampsInPlace(nn.Module):
    def __init__(self, network: nn.Module, in_place: bool) -> None:
        super().__init__()
        self.network, self.in_place = network, in_place

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x.mul_(0.5) if self.in_place else x * 0.5)


def test_looking_at_the_logits_leaves_the_slices_alone() -> None:
    """What a network writes into its input must not reach the slices that are explained."""
    torch.manual_seed(0)
    network, volume = make_resnet(10, widen_factor=0.125), torch.rand(1, 1, 32, 32, 3)
    found, expected = (
        HeatmapInferer(explainer=Explainer("saliency"), gate_probability=0.0, check=False)(
            volume.clone(), ClampsInPlace(network, in_place)
        )
        for in_place in (True, False)
    )
    torch.testing.assert_close(found["heatmap"], expected["heatmap"])


def test_looking_at_the_logits_keeps_the_memory_promised() -> None:
    """Batches of the look at the logits are cut to fit, as those of the method are."""
    torch.manual_seed(0)
    network, volume = make_resnet(10, widen_factor=0.125), torch.rand(1, 1, 96, 96, 64)
    sizes: list[int] = []
    network.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    inferer = HeatmapInferer(
        explainer=Explainer("saliency"), gate_probability=1.0, batch_size=64, check=False,
        max_memory_gb=0.33,
    )  # fmt: skip
    assert not inferer(volume, network)["shown"].any()  # so the method itself is not run
    assert sizes[0] == 1
    assert 2 < max(sizes) < 61
    assert sum(sizes) == 64
