"""max_memory_gb: the meter counts by closed forms, and real processes keep the promise."""

import json
import math
import os
import subprocess
import sys

import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor, nn

from heatmask.attribution import Explainer, explain
from heatmask.attribution.batches import run_batches
from heatmask.attribution.memory import GB, KEPT_BYTES, MARGINS, StorageMeter
from heatmask.errors import InputError, OptionError
from heatmask.networks.resnet import make_resnet

METHODS = {
    "saliency": {},
    "guided_backprop": {},
    "grad_cam": {},
    "integrated_gradients": {"steps": 2},
}


def make_network(dims: int = 2) -> nn.Module:
    torch.manual_seed(0)
    return make_resnet(10, spatial_dims=dims, num_classes=2, widen_factor=0.0625)


def draw_images(count: int, dims: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.rand(count, 1, *(24, 20, 22)[:dims], generator=generator)


def measure_peak(method: str, network: nn.Module, images: Tensor) -> int:
    with StorageMeter() as meter:
        Explainer(method, **METHODS[method])(network, images)
    return meter.peak


def promise_for(peak: float) -> float:
    """Return the promise, in GB, that a measured peak just keeps: what malloc keeps included."""
    return (peak * MARGINS["cpu"] + KEPT_BYTES["cpu"]) / GB


def test_the_meter_counts_what_is_made_while_it_lives() -> None:
    given = torch.zeros(1000)
    with StorageMeter() as meter:
        made = given + 1
        assert (meter.live, meter.peak) == (4000, 8000)  # the sum, and room for as much again
        view, same = made[::2].reshape(5, 100), made.detach()
        made.mul_(2), given.add_(1), torch.add(given, 1, out=made)
        assert (meter.live, meter.peak) == (4000, 8000)  # views and work in place make nothing
        double = view.double()
        assert (meter.live, meter.peak) == (8000, 12000)
        del made, view
        assert meter.live == 8000  # `same` holds the memory of `made` alone
        del same
        assert meter.live == 4000
        del double
        assert meter.live == 0
        given.clone()
    given.clone()
    assert (meter.live, meter.peak) == (0, 12000)


def test_the_meter_sees_the_backward_pass() -> None:
    images = torch.ones(1000, requires_grad=True)
    with StorageMeter() as meter:
        value = images.exp().exp().sum()
        assert meter.live == 8004  # both exp are saved, and the sum
        forward = meter.peak
        (gradient,) = torch.autograd.grad(value, images)
        del value
        assert meter.live == gradient.nbytes
    assert forward == 12000  # the second exp, as it is made
    assert meter.peak > forward


def test_the_meter_ends_with_an_error() -> None:
    meter = StorageMeter()
    with pytest.raises(IndexError, match="out of bounds"), meter:
        (torch.zeros(10) + 1)[10]
    held = torch.zeros(10)
    assert meter.live == 0
    assert (held.nbytes, meter.peak) == (40, 120)


@pytest.mark.parametrize("promise", [0, -1.0, math.nan, math.inf, "4"])
def test_a_promise_is_a_positive_number(promise) -> None:
    with pytest.raises(OptionError, match="max_memory_gb must be a positive number"):
        explain(make_network(), draw_images(2), check=False, max_memory_gb=promise)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("method", METHODS)
def test_the_chosen_batch_fits(method: str, dims: int) -> None:
    network, images = make_network(dims), draw_images(12, dims)
    sizes = watch_batches(network)
    measure_peak(method, network, images[:1])  # in which default layers are found
    promised = 7.5 * measure_peak(method, network, images[:1])
    sizes.clear()
    options = {"check": False, "batch_size": 12, **METHODS[method]}
    explain(network, images, method, max_memory_gb=promise_for(promised), **options)
    assert max(sizes) == 7
    assert measure_peak(method, network, images[:7]) <= promised


def watch_batches(network: nn.Module) -> list[int]:
    sizes: list[int] = []
    network.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    return sizes


@pytest.mark.parametrize("method", METHODS)
def test_a_promise_changes_the_batches_and_nothing_else(method: str) -> None:
    network, images = make_network(), draw_images(9)
    sizes = watch_batches(network)
    options = {"check": False, "batch_size": 9, **METHODS[method]}
    expected = explain(network, images, method, **options)
    sizes.clear()
    promise_gb = promise_for(4.5 * measure_peak(method, network, images[:1]))
    result = explain(network, images, method, max_memory_gb=promise_gb, **options)
    assert set(sizes) == {1, 4}
    for found, right in zip(result, expected, strict=True):
        torch.testing.assert_close(found, right, rtol=1e-5, atol=1e-5 * float(right.abs().max()))
    sizes.clear()
    explain(network, images, method, max_memory_gb=1.0, **(options | {"batch_size": 3}))
    assert max(sizes) == 3  # batch_size stays the bound


def test_each_image_keeps_its_class_and_its_affine() -> None:
    network, images = make_network(), MetaTensor(draw_images(7), affine=torch.eye(4) * 2)
    class_idx = torch.tensor([0, 1, 1, 0, 1, 0, 0])
    promise_gb = promise_for(3.5 * measure_peak("saliency", network, images[:1].as_tensor()))
    result = explain(network, images, class_idx=class_idx, max_memory_gb=promise_gb)
    every = explain(network, images).attribution.as_tensor()
    right = torch.stack([every[at, k] for at, k in enumerate(class_idx.tolist())])[:, None]
    torch.testing.assert_close(result.attribution.as_tensor(), right)
    assert torch.equal(result.attribution.affine, images.affine)


def test_what_one_image_needs_is_told() -> None:
    network, images = make_network(), draw_images(4)
    need_gb = promise_for(measure_peak("saliency", network, images[:1]))
    told = f"at least {need_gb + 0.005:.2f}, which one image needs, got 0.2"
    with pytest.raises(OptionError, match=told):
        explain(network, images, max_memory_gb=0.2)


@pytest.mark.parametrize(("title", "bar"), [("working", True), ("", False)])
def test_a_progress_bar_on_demand(title: str, bar: bool, capsys) -> None:
    parts = run_batches(
        lambda part: (part.start, part.stop), torch.zeros(5), 2, None, title, bool(title)
    )
    assert parts == [(0, 2), (2, 4), (4, 5)]
    assert (title in capsys.readouterr().out) is bar or not bar


def test_no_images_are_refused() -> None:
    with pytest.raises(InputError, match="at least one image"):
        explain(make_network(), draw_images(0))


# The promise as the system sees it: the growth of a fresh process's resident memory.
_KEEP_PROMISE = """
import json, sys
import torch
from heatmask.attribution import explain
from heatmask.networks.resnet import make_resnet

def read_gb(key):
    lines = open("/proc/self/status", encoding="utf-8").read().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e9 for line in lines if line.startswith(key))

method, promise, options = sys.argv[1], float(sys.argv[2]), json.loads(sys.argv[3])
network = make_resnet(10, num_classes=2, widen_factor=0.125, max_pool=False)
images, sizes = torch.rand(60, 1, 144, 120), []
network.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
before = read_gb("VmRSS")
open("/proc/self/clear_refs", "w", encoding="utf-8").write("5")  # begin the peak anew
explain(network, images, method, batch_size=60, max_memory_gb=promise, check=False, **options)
print(json.dumps({"size": max(sizes), "gb": read_gb("VmHWM") - before}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("method", ["saliency", "grad_cam", "integrated_gradients"])
def test_a_process_keeps_the_promise(method: str) -> None:
    promise_gb = 0.5
    command = [sys.executable, "-c", _KEEP_PROMISE, method, str(promise_gb)]
    done = subprocess.run(
        [*command, json.dumps(METHODS[method])],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert 4 <= found["size"] <= 100
    assert 0.1 <= found["gb"] <= promise_gb  # no tolerance beyond the margins themselves
