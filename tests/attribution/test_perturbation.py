"""The perturbation family: closed forms and plain loops in float64, Captum, and the invariants."""

import itertools
import logging
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

import pytest
import torch
from captum.attr import FeatureAblation, Occlusion
from torch import Tensor, nn

from heatmask.attribution import explain, get_method, list_methods
from heatmask.attribution.perturbation.superpixels import find_superpixels
from heatmask.attribution.perturbation.windows import WindowGrid
from heatmask.errors import DeviceError, MethodError, OptionError
from helpers.planted import draw_ball
from helpers.project import PROJECT

NAMES = ["occlusion", "occlusion_coarse_to_fine", "feature_ablation"]
OCCLUSIONS = NAMES[:2]
SIZES = {2: (9, 14), 3: (6, 5, 8)}
SMALL: dict[str, dict[str, Any]] = {
    "occlusion": {"window": 3, "stride": 2},
    "occlusion_coarse_to_fine": {"window": 2, "halvings": 1, "fraction": 0.3},
    "feature_ablation": {"segments": 6, "compactness": 10.0},
}
CPU = torch.device("cpu")


class Counting(nn.Module):
    """Passes images on, and notes how many each forward holds."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.batches: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.batches.append(len(images))
        return self.network(images)


class Evidence(nn.Module):
    """Logits that add up what is brighter than 1.5, and what is darker than 0.5."""

    def forward(self, images: Tensor) -> Tensor:
        flat = images.flatten(1)
        return torch.stack([(flat - 1.5).relu().sum(1), (0.5 - flat).relu().sum(1)], dim=1)


def make_linear(dims: int, channels: int = 2, classes: int = 3) -> nn.Module:
    torch.manual_seed(dims)
    count = channels * torch.Size(SIZES[dims]).numel()
    return nn.Sequential(nn.Flatten(), nn.Linear(count, classes)).double().eval()


def make_small(dims: int, channels: int = 2) -> nn.Module:
    torch.manual_seed(dims)
    conv = {2: nn.Conv2d, 3: nn.Conv3d}[dims]
    network = nn.Sequential(
        conv(channels, 5, 3, padding=1), nn.ReLU(), conv(5, 4, 3, stride=2), nn.ReLU(),
        nn.Flatten(), nn.LazyLinear(3),
    )  # fmt: skip
    network(torch.zeros(1, channels, *SIZES[dims]))
    return network.eval()


def draw_images(dims: int, count: int = 3, channels: int = 2) -> Tensor:
    """Noise whose first columns are an empty background, as wide as the image's number."""
    generator = torch.Generator().manual_seed(7)
    images = torch.randn(count, channels, *SIZES[dims], generator=generator, dtype=torch.float64)
    for index, image in enumerate(images):
        image[..., : index + 1] = 0
    return images


def attribute(
    network: nn.Module, images: Tensor, name: str, class_idx: Any = None, **options: Any
) -> tuple[Tensor, Tensor]:
    """Call a method without its explainer, which would give float32."""
    return get_method(name).function(network, images, class_idx, **options)


def list_windows(
    spatial: Sequence[int], window: Sequence[int], stride: Sequence[int]
) -> Iterator[tuple[slice, ...]]:
    """The oracle: every window, spelt out; the last of an axis ends where the axis does."""
    axes = []
    for size, length, step in zip(spatial, window, stride, strict=True):
        starts, at = [], 0
        while at + length < size:
            starts.append(at)
            at += step
        axes.append([slice(start, start + length) for start in [*starts, size - length]])
    return itertools.product(*axes)


def occlude_naively(
    network: nn.Module, image: Tensor, baseline: Tensor, windows: Iterator[tuple[slice, ...]]
) -> Tensor:
    """The oracle: (K, *spatial) of one image (C, *spatial), one window after the other."""
    with torch.no_grad():
        before = network(image[None])[0]
        total = torch.zeros(len(before), *image.shape[1:], dtype=torch.float64)
        count = torch.zeros(image.shape[1:])
        for window in windows:
            occluded = image.clone()
            occluded[:, *window] = baseline[:, *window]
            drop = before - network(occluded[None])[0]
            total[:, *window] += drop.double().reshape(-1, *[1] * count.ndim)
            count[window] += 1
    return total / count


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_occlusion_of_a_linear_network_is_weight_times_image(dims: int, seed: int) -> None:
    """A window's drop is the sum of w * (x - baseline) in it, and a pixel gets their mean."""
    network, images = make_linear(dims), draw_images(dims)
    generator = torch.Generator().manual_seed(seed)
    window = torch.randint(1, 6, (dims,), generator=generator).tolist()
    stride = [int(torch.randint(1, w + 1, (), generator=generator)) for w in window]
    shape = images.shape[seed % 2 :]  # one for each image, or one for all
    baseline = torch.randn(shape, generator=generator, dtype=torch.float64)
    options = {"window": window, "stride": stride, "baseline": baseline}
    logits, attribution = attribute(network, images, "occlusion", **options)

    weights = network[1].weight.reshape(3, *images.shape[1:])
    parts = (weights * (images - baseline)[:, None]).sum(2)
    expected, count = torch.zeros_like(parts), torch.zeros(images.shape[2:])
    for part in list_windows(SIZES[dims], window, stride):
        region = (..., *part)
        drop = parts[region].flatten(2).sum(2)
        expected[region] += drop.reshape(*drop.shape, *[1] * dims)
        count[region] += 1
    assert count.min() > 0
    torch.testing.assert_close(attribution, expected / count)
    torch.testing.assert_close(logits, network(images))
    assert not attribution.requires_grad


@pytest.mark.parametrize("dims", [2, 3])
def test_occlusion_equals_captum(dims: int) -> None:
    """Where the steps end at the border: elsewhere Captum cuts the last window."""
    network, images = make_small(dims).double(), draw_images(dims)
    window = [2 + n % 2 for n in images.shape[2:]]  # steps of 2 reach the border
    stride = [2] * dims
    _, found = attribute(network, images, "occlusion", window=window, stride=stride, baseline=0.2)
    for index in range(3):
        expected = Occlusion(network).attribute(
            images, (2, *window), (2, *stride), baselines=0.2, target=index
        )
        torch.testing.assert_close(found[:, index].float(), expected[:, 0].detach())


@pytest.mark.parametrize("dims", [2, 3])
def test_feature_ablation_equals_captum(dims: int) -> None:
    network, images = make_small(dims).double(), draw_images(dims)
    labels = find_superpixels(images, 6, 10.0)[:, None]
    assert (labels.flatten(1).amax(1) > 3).all()
    options = {"baseline": 0.3, **SMALL["feature_ablation"]}
    _, found = attribute(network, images, "feature_ablation", **options)
    for index in range(3):
        expected = FeatureAblation(network).attribute(
            images, baselines=0.3, target=index, feature_mask=labels
        )
        # The background is a superpixel to Captum, and belongs to none here.
        expected = expected[:, :1].where(labels > 0, 0).detach()
        torch.testing.assert_close(found[:, [index]], expected)


@pytest.mark.parametrize("dims", [2, 3])
def test_feature_ablation_of_a_linear_network(dims: int) -> None:
    network, images = make_linear(dims), draw_images(dims)
    _, found = attribute(network, images, "feature_ablation", **SMALL["feature_ablation"])
    parts = (network[1].weight.reshape(3, *images.shape[1:]) * images[:, None]).sum(2)
    for part, label, attribution in zip(
        parts, find_superpixels(images, 6, 10.0), found, strict=True
    ):
        for number in range(1, int(label.max()) + 1):
            drops = attribution[:, label == number]
            expected = part[:, label == number].sum(1, keepdim=True).expand_as(drops)
            torch.testing.assert_close(drops, expected)


@pytest.mark.parametrize("dims", [2, 3])
def test_empty_windows_are_skipped_exactly(dims: int) -> None:
    """In float32: the same map as without skipping, from the forwards there must be."""
    images = draw_images(dims).float()
    images[..., :3] = 0.25
    images[1] = 0.25  # an image that is nothing but background
    network = Counting(make_small(dims))
    baseline = torch.full_like(images[0], 0.25)
    window, stride = [3] * dims, [2] * dims
    options = {"window": 3, "stride": 2, "baseline": 0.25, "windows_per_batch": 5}
    _, attribution = attribute(network, images, "occlusion", **options)

    windows = list(list_windows(SIZES[dims], window, stride))
    busy = sum(bool((image[:, *w] != 0.25).any()) for image in images for w in windows)
    assert network.batches[0] == 3
    assert sum(network.batches[1:]) == busy < 3 * len(windows)
    assert network.batches[1:-1] == [5] * (busy // 5 - (busy % 5 == 0))  # full, across images
    assert (attribution[1] == 0).all()
    for image, found in zip(images, attribution, strict=True):
        expected = occlude_naively(network, image, baseline, iter(windows))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_one_channel_is_enough_to_be_worth_a_forward() -> None:
    images = torch.zeros(1, 2, *SIZES[2])
    images[0, 1, 4, 6] = 1
    network = Counting(make_small(2))
    _, attribution = attribute(network, images, "occlusion", window=3, stride=3)
    assert sum(network.batches) == 2
    assert attribution[0, 0].count_nonzero() == 9


def test_a_cpu_gets_small_batches() -> None:
    """Larger ones are slower there."""
    network = Counting(make_small(2))
    attribute(network, draw_images(2).float(), "occlusion", window=3)
    assert set(network.batches[1:-1]) == {8}


def test_superpixels_that_equal_the_baseline_are_skipped() -> None:
    images = torch.full((2, 1, 12, 12), 3.0)
    images[0, :, :, 6:] = 1
    images[1, :, :6] = 0
    network = Counting(nn.Sequential(nn.Flatten(), nn.Linear(144, 2)))
    labels = find_superpixels(images, 4, 0.1)
    _, attribution = attribute(network, images, "feature_ablation", segments=4, baseline=1.0)
    changed = [int(label[(image[0] != 1) & (label > 0)].unique().numel())
               for image, label in zip(images, labels, strict=True)]  # fmt: skip
    assert sum(network.batches) == 2 + sum(changed)
    assert changed[0] < labels[0].max()
    assert (attribution[0, :, labels[0] == labels[0, 0, -1]] == 0).all()


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_batches_change_nothing(name: str, dims: int) -> None:
    network, images = make_small(dims), draw_images(dims).float()
    whole = explain(network, images, name, **SMALL[name])
    size = "segments_per_batch" if name == "feature_ablation" else "windows_per_batch"
    again = explain(network, images, name, batch_size=2, **{size: 7}, **SMALL[name])
    single = [explain(network, image[None], name, **SMALL[name]) for image in images]
    scale = whole.attribution.abs().amax()
    assert scale > 0
    for other in (again.attribution, torch.cat([one.attribution for one in single])):
        assert (other - whole.attribution).abs().amax() <= 1e-5 * scale


@pytest.mark.parametrize("name", NAMES)
def test_a_class_does_not_depend_on_what_else_is_asked(name: str) -> None:
    network, images = make_small(2).double(), draw_images(2)
    _, every = attribute(network, images, name, **SMALL[name])
    assert every.shape == (3, 3, *SIZES[2])
    for chosen in ([2, 0], 1):
        _, some = attribute(network, images, name, chosen, **SMALL[name])
        torch.testing.assert_close(some, every[:, chosen if isinstance(chosen, list) else [chosen]])
    _, own = attribute(network, images, name, torch.tensor([2, 0, 1]), **SMALL[name])
    torch.testing.assert_close(own[:, 0], every[range(3), [2, 0, 1]])


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", OCCLUSIONS)
def test_a_window_larger_than_the_image_is_cut(name: str, dims: int) -> None:
    """It replaces the whole image, once."""
    images = draw_images(dims)
    network = Counting(make_small(dims).double())
    logits, attribution = attribute(network, images, name, window=100)
    expected = (logits - network(torch.zeros_like(images))).detach()
    expected = expected.reshape(3, 3, *[1] * dims).expand_as(attribution)
    torch.testing.assert_close(attribution, expected)
    assert sum(network.batches) <= 3 + 3 * 3 + 3


def test_an_axis_of_one_pixel() -> None:
    images = torch.rand(1, 1, 1, 12, 10, dtype=torch.float64)
    network = nn.Sequential(nn.Flatten(), nn.Linear(120, 1)).double()
    for name in OCCLUSIONS:
        _, flat = attribute(network, images[:, :, 0], name, window=4)
        _, deep = attribute(network, images, name, window=4)
        torch.testing.assert_close(deep[:, :, 0], flat)
    assert attribute(network, images, "feature_ablation")[1].shape == images.shape


# Coarse to fine


@pytest.mark.parametrize("dims", [2, 3])
def test_a_search_that_leaves_nothing_out_is_occlusion(dims: int) -> None:
    network, images = make_small(dims).double(), draw_images(dims) + 5
    options: dict[str, Any] = {"window": 3, "stride": 2, "baseline": 0.5}
    _, expected = attribute(network, images, "occlusion", **options)
    search = {"halvings": 2, "fraction": 1.0}
    _, found = attribute(network, images, "occlusion_coarse_to_fine", **options, **search)
    torch.testing.assert_close(found, expected)
    _, found = attribute(network, images, "occlusion_coarse_to_fine", **options, halvings=0)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.6])
def test_every_pixel_holds_the_occlusion_of_one_level(dims: int, fraction: float) -> None:
    """In the unit of the finest; no pixel is a mean over some of its windows only."""
    network, images = make_small(dims).double(), draw_images(dims)
    options: dict[str, Any] = {"window": 2, "stride": 1, "halvings": 2, "fraction": fraction}
    _, found = attribute(network, images, "occlusion_coarse_to_fine", **options)
    fits = torch.zeros_like(found, dtype=torch.bool)
    for level in range(5 - dims):  # in 3D the largest would cover the image
        window = [min(2 << level, n) for n in SIZES[dims]]
        _, maps = attribute(network, images, "occlusion", window=window, stride=1 << level)
        share = 2**dims / torch.Size(window).numel()
        fine = (found - share * maps).abs() < 1e-12
        assert fine.any()
        fits |= fine
    assert fits.all()


@pytest.mark.parametrize(("class_idx", "level"), [(0, 1.5), (1, -0.5)])
def test_an_empty_background_costs_nothing(class_idx: int, level: float) -> None:
    """Neither forwards, nor a share of the places that are looked at more closely.

    Nor does it outdo a head that speaks against the class throughout.
    """
    torch.manual_seed(4)
    head = (level + 0.5 * torch.rand(1, 1, 16, 24, dtype=torch.float64)).abs()
    scan = nn.functional.pad(head, (0, 48, 0, 32))
    options: dict[str, Any] = {"window": 4, "stride": 4, "halvings": 1, "fraction": 0.4}
    bare, padded = Counting(Evidence()), Counting(Evidence())
    _, expected = attribute(bare, head, "occlusion_coarse_to_fine", class_idx, **options)
    _, found = attribute(padded, scan, "occlusion_coarse_to_fine", class_idx, **options)
    assert padded.batches == bare.batches
    assert sum(bare.batches) == 1 + 6 + 3 * 4  # of 2 x 3 windows of 8 x 8 the best 3, quartered
    torch.testing.assert_close(found[..., :16, :24], expected)
    assert (found[..., 16:, :] == 0).all()


@pytest.mark.parametrize("dims", [2, 3])
def test_evidence_that_lies_evenly_gives_an_even_map(dims: int) -> None:
    """Coarse and fine places share one unit: the drop of one of the finest windows."""
    network = make_linear(dims, channels=1, classes=2)
    nn.init.constant_(network[1].weight, -0.5)
    images = torch.full((1, 1, *SIZES[dims]), 2.0, dtype=torch.float64)
    options = {"window": 2, "stride": 1, "halvings": 1, "fraction": 0.1}
    _, attribution = attribute(network, images, "occlusion_coarse_to_fine", **options)
    torch.testing.assert_close(attribution, torch.full_like(attribution, -(2.0**dims)))


@pytest.mark.parametrize(
    ("size", "centre", "radius"), [((64, 72), (41, 20), 4.0), ((32, 28, 36), (9, 17, 22), 3.0)]
)
def test_a_blob_is_found_with_a_fifth_of_the_forwards(
    size: tuple[int, ...], centre: tuple[int, ...], radius: float
) -> None:
    blob = torch.from_numpy(draw_ball(size, centre, radius))
    images = (1.0 + blob)[None, None].double()
    full, fast = Counting(Evidence()), Counting(Evidence())
    options = {"window": 4, "class_idx": 0, "baseline": 1.0 - 1e-9}
    _, expected = attribute(full, images, "occlusion", **options)
    _, found = attribute(fast, images, "occlusion_coarse_to_fine", **options)
    assert sum(fast.batches) * 5 < sum(full.batches)
    assert blob.flatten()[found.flatten().argmax()]
    assert found.max() == expected.max()
    fine = (found == expected) & (expected > 0)  # in its finest part it is occlusion
    assert fine[..., blob].double().mean() > 0.5
    assert found[..., ~blob].max() < expected.max()


def test_each_class_is_searched_where_its_own_evidence_lies() -> None:
    images = torch.ones(1, 1, 48, 48, dtype=torch.float64)
    images[..., 5:9, 6:10] = 2
    images[..., 37:41, 30:34] = 0.1
    network = Counting(Evidence())
    options = {"window": 4, "baseline": 1.0}
    _, found = attribute(network, images, "occlusion_coarse_to_fine", **options)
    places = found.flatten(2).argmax(2)[0]
    rows, columns = places // 48, places % 48
    assert 5 <= rows[0] < 9
    assert 6 <= columns[0] < 10
    assert 37 <= rows[1] < 41
    assert 30 <= columns[1] < 34


def test_evidence_against_a_class_is_negative_and_stays_coarse() -> None:
    images = torch.ones(1, 1, 32, 32, dtype=torch.float64)
    images[..., 24:28, 24:28] = 2
    network = nn.Sequential(Evidence(), nn.Linear(2, 1, bias=False)).double()
    nn.init.constant_(network[1].weight, -1)
    options = {"window": 4, "baseline": 0.9}
    _, fine = attribute(network, images, "occlusion", **options)
    _, found = attribute(network, images, "occlusion_coarse_to_fine", **options, fraction=0.01)
    assert fine.min() == -4.5
    assert -1 < found.min() < 0
    assert found.max() == 0


# Superpixels


def test_superpixels_know_their_image_alone_and_leave_the_background() -> None:
    images = draw_images(2)
    labels = find_superpixels(images, 6, 10.0)
    assert labels.max() > 3
    assert labels.dtype == torch.int64
    assert torch.equal(labels == 0, (images == 0).all(1))
    for image, label in zip(images, labels, strict=True):
        assert torch.equal(find_superpixels(image[None], 6, 10.0)[0], label)


def test_three_channels_are_not_colours() -> None:
    images = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    images = nn.functional.interpolate(images, size=(24, 24), mode="bilinear")
    flat = torch.full_like(images[:, :1], float(images.min()))  # adds nothing to a distance
    labels = find_superpixels(images, 8, 0.1)
    assert labels.max() > 3
    assert torch.equal(labels, find_superpixels(torch.cat([images, flat], dim=1), 8, 0.1))


@pytest.mark.parametrize("shape", [(12, 16), (6, 12, 16)])
def test_superpixels_follow_an_edge(shape: tuple[int, ...]) -> None:
    images = torch.ones(1, 1, *shape)
    images[..., :7] = 2
    labels = find_superpixels(images, 6, 0.01)
    assert not set(labels[..., :7].unique().tolist()) & set(labels[..., 7:].unique().tolist())


@pytest.mark.parametrize("pixels", [0, 2, 5])
def test_images_of_few_pixels(pixels: int) -> None:
    """Fewer than superpixels: nothing, or what there is."""
    images = torch.zeros(2, 1, *SIZES[2])
    images[1].flatten()[60 : 60 + pixels] = 1
    network = Counting(make_small(2, channels=1))
    _, attribution = attribute(network, images, "feature_ablation")
    assert (attribution[0] == 0).all()
    assert attribution[1, 0].count_nonzero() == pixels
    assert network.batches[1:] == ([] if pixels == 0 else network.batches[1:2])


# Bad input and bad luck


@pytest.mark.parametrize("name", OCCLUSIONS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0}, r"window \(pixels\) must be a whole number of at least 1, got 0"),
        ({"window": 2.5}, "window .* got 2.5"),
        ({"window": True}, "window .* got True"),
        ({"window": (4, 0)}, "window .* got 0"),
        ({"window": (4, 4, 4)}, "window must be one number or one for each of the 2 axes"),
        ({"stride": 0}, "stride .* got 0"),
        ({"window": 4, "stride": 5}, "stride must not exceed window"),
        ({"window": (4, 8), "stride": (4, 9)}, "stride must not exceed window"),
        ({"windows_per_batch": 0}, "regions per batch .* got 0"),
        ({"baseline": torch.zeros(2, 4, 4)}, r"A baseline must be .* got \(2, 4, 4\)"),
        ({"baseline": float("nan")}, "finite values only"),
    ],
)
def test_bad_options_of_occlusion(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        explain(make_small(2), draw_images(2).float(), name, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"halvings": -1}, "halvings must be a whole number from 0 to 16, got -1"),
        ({"halvings": 1.5}, "halvings"),
        ({"halvings": 17}, "halvings"),
        ({"fraction": 0.0}, "fraction must be greater than 0 and at most 1, got 0.0"),
        ({"fraction": 1.1}, "fraction"),
    ],
)
def test_bad_options_of_the_search(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        explain(make_small(2), draw_images(2).float(), "occlusion_coarse_to_fine", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"segments": 0}, "segments must be a whole number of at least 1"),
        ({"compactness": 0}, "compactness must be greater than 0, got 0"),
        ({"segments_per_batch": -1}, "regions per batch"),
        ({"baseline": torch.zeros(5)}, "A baseline must be"),
        ({"window": 4}, "feature_ablation has no option 'window'"),
    ],
)
def test_bad_options_of_feature_ablation(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        explain(make_small(2), draw_images(2).float(), "feature_ablation", **options)


def test_superpixels_need_two_axes() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(10, 1))
    with pytest.raises(OptionError, match="two or three axes, got 1"):
        explain(network, torch.rand(1, 1, 10), "feature_ablation")
    assert explain(network, torch.rand(1, 1, 10), "occlusion", window=3).attribution.abs().min() > 0


@pytest.mark.parametrize("name", NAMES)
def test_images_that_are_not_finite(name: str) -> None:
    images = draw_images(2).float()
    images[1, 0, 4, 8] = torch.nan
    with pytest.raises(MethodError, match=r"must be finite, and those of image\(s\) 1 of"):
        explain(make_small(2), images, name, **SMALL[name])


@pytest.mark.parametrize("name", NAMES)
def test_a_gpu_that_is_too_small_gets_smaller_batches(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    network, images = make_small(2), draw_images(2).float()
    expected = explain(network, images, name, **SMALL[name]).attribution
    limit = 3

    def refuse(module: nn.Module, inputs: tuple[Tensor]) -> None:
        if len(inputs[0]) > limit:
            raise torch.cuda.OutOfMemoryError("out of memory")

    network.register_forward_pre_hook(refuse)
    with caplog.at_level(logging.WARNING):
        found = explain(network, images, name, **SMALL[name]).attribution
    torch.testing.assert_close(found, expected)
    assert "out of memory: going on with a batch of 2." in caplog.text
    limit = 0
    with pytest.raises(DeviceError, match="must fit into the GPU's memory"):
        explain(network, images, name, **SMALL[name])


def test_a_gpu_that_holds_not_one_image_is_an_error() -> None:
    network, images = make_small(2), draw_images(2).float()
    batches: list[int] = []

    def refuse(module: nn.Module, inputs: tuple[Tensor]) -> None:
        assert len(inputs[0]) > 0
        batches.append(len(inputs[0]))
        if len(batches) > 1:
            raise torch.cuda.OutOfMemoryError("out of memory")

    network.register_forward_pre_hook(refuse)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        attribute(network, images, "occlusion", windows_per_batch=4, window=3)
    assert batches == [3, 4, 2, 1]


def test_sums_are_not_rounded_under_autocast() -> None:
    grid = WindowGrid((9, 7), (4, 3), (2, 1), CPU)
    drops = torch.rand(2, 3, *grid.shape, generator=torch.Generator().manual_seed(0))
    expected = grid.spread(drops)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(grid.spread(drops), expected)


@pytest.mark.parametrize("name", NAMES)
def test_no_gradient_is_needed(name: str) -> None:
    """Any network will do, and none of its forwards keeps a graph."""

    class Detached(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            assert not torch.is_grad_enabled()
            return torch.from_numpy(images.numpy().sum((2, 3)))

    attribution = explain(Detached(), draw_images(2).float(), name, **SMALL[name]).attribution
    assert attribution.abs().amax() > 0
    assert "gradients" not in get_method(name).needs


def test_the_registry_lists_the_family() -> None:
    family = [method for method in list_methods() if method.family == "perturbation"]
    assert [method.name for method in family] == [*NAMES, "shapley_sampling", "kernel_shap", "lime"]
    assert all(method.needs == {"baseline"} and method.summary for method in family)


# The benchmark's own arithmetic


def test_the_pointing_game_is_won_inside_the_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PROJECT / "benchmarks"))
    pointing = import_module("occlusion_pointing")
    images = torch.full((4, 1, 16, 16), 0.5)
    masks = torch.zeros(4, 16, 16, dtype=torch.bool)
    images[:, 0, 4:8, 8:12] = 2
    masks[:3, 4:8, 8:12] = True
    masks[3, 8:12, 4:8] = True  # as if rows and columns were mixed up
    records = {name: pointing.Record() for name in pointing.METHODS}
    for name, record in records.items():
        for part in (slice(0, 3), slice(3, 4)):
            pointing.add_patient(record, Evidence(), images[part], masks[part], name, window=4)
    full, fast = (records[name] for name in pointing.METHODS)
    assert full.hits == fast.hits == [1.0, 0.0]
    assert full.forwards == 4 * (1 + 49)
    assert full.forwards > fast.forwards > 0
    assert "maxima within 2 pixels: 1.000" in pointing.compare(records, 4, True)
    assert "minus full: +0.000" in pointing.compare(records, 4, True)
    assert len(pointing.make_table(records, True).columns) == 4
