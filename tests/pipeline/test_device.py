"""The device asked for, or a refusal; never another one in silence."""

import copy

import pytest
import torch

from heatmask.device import autocast_bfloat16, place_network, resolve_device
from heatmask.errors import DeviceError, OptionError
from heatmask.networks.resnet import make_resnet


@pytest.fixture
def see_gpus(monkeypatch: pytest.MonkeyPatch):
    """Make torch see that many GPUs."""

    def see(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return see


@pytest.mark.parametrize(
    ("device", "gpus", "expected"),
    [
        ("auto", 0, "cpu"),
        ("auto", 2, "cuda"),
        ("cpu", 2, "cpu"),
        ("cuda", 1, "cuda"),
        ("cuda:1", 2, "cuda:1"),
        (torch.device("cuda", 1), 2, "cuda:1"),
        (torch.device("cpu"), 0, "cpu"),
    ],
)
def test_what_was_asked_for(see_gpus, device, gpus: int, expected: str) -> None:
    see_gpus(gpus)
    assert resolve_device(device) == torch.device(expected)


@pytest.mark.parametrize(("device", "gpus"), [("cuda", 0), ("cuda:0", 0), ("cuda:2", 2)])
def test_a_gpu_that_is_not_there(see_gpus, device: str, gpus: int) -> None:
    see_gpus(gpus)
    message = rf"device '{device}' needs a CUDA GPU that torch can see, and it sees {gpus}"
    with pytest.raises(DeviceError, match=message):
        resolve_device(device)


@pytest.mark.parametrize("device", ["gpu", "", "mps", "cuda:x", None])
def test_names_that_are_none(device: object) -> None:
    with pytest.raises(OptionError, match=r"device must be auto, cpu, cuda or cuda:N, got"):
        resolve_device(device)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_placed_network_is_the_same_with_channels_last(dims: int) -> None:
    torch.manual_seed(0)
    network = make_resnet(10, spatial_dims=dims, widen_factor=0.125).train()
    images = torch.rand(2, 1, *(32, 40, 24)[:dims])
    expected = copy.deepcopy(network).eval()(images)
    placed = place_network(network, torch.device("cpu"))
    assert placed is network
    assert not placed.training
    layout = {2: torch.channels_last, 3: torch.channels_last_3d}[dims]
    weight = placed.layer2[0].conv1.weight
    assert weight.is_contiguous(memory_format=layout)
    assert not weight.is_contiguous()
    torch.testing.assert_close(placed(images), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("able", [False, True])
def test_bfloat16_only_where_the_cpu_has_it(monkeypatch, able):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": able})
    with autocast_bfloat16(torch.device("cpu")):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if able else torch.float32)
