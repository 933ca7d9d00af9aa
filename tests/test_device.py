"""The device asked for, or a refusal; never another one in silence."""

import pytest
import torch

from heatmask.device import resolve_device
from heatmask.errors import DeviceError, OptionError


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
