"""max_memory_gb: the meter counts by closed forms, and real processes keep the promise."""

import json
import math
import os
import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor, nn

from heatmask.attribution import Explainer, explain, memory
from heatmask.attribution.memory import MARGINS, MemoryBudget, StorageMeter, choose_batch_size
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


def measure_need(method: str, network: nn.Module, images: Tensor) -> float:
    """Return what a batch needs with the margin, in bytes."""
    with StorageMeter() as meter:
        Explainer(method, **METHODS[method])(network, images)
    return meter.peak * MARGINS["cpu"]


def test_the_meter_counts_what_is_made_while_it_lives() -> None:
    given = torch.zeros(1000)
    with StorageMeter() as meter:
        made = given + 1
        assert meter.live == meter.peak == 4000
        view, same = made[::2].reshape(5, 100), made.detach()
        made.mul_(2), given.add_(1), torch.add(given, 1, out=made)
        assert meter.live == meter.peak == 4000  # views and work in place make nothing
        double = view.double()
        assert meter.live == 8000
        del made, view
        assert meter.live == 8000  # `same` holds the memory of `made` alone
        del same
        assert (meter.live, meter.peak) == (4000, 8000)
        del double
        assert meter.live == 0
        given.clone()
    given.clone()
    assert (meter.live, meter.peak) == (0, 8000)


def test_the_meter_sees_the_backward_pass() -> None:
    images = torch.ones(1000, requires_grad=True)
    with StorageMeter() as meter:
        value = images.exp().sin().sum()  # exp and sin; sin goes when its sum is there
        assert (meter.live, meter.peak) == (8004 - 4000 + 0, 8004) or meter.live <= 8004
        torch.autograd.grad(value, images)
    forward = 4000 + 4000 + 4
    assert meter.peak > forward
    assert meter.live <= forward


def test_the_meter_survives_an_error() -> None:
    with pytest.raises(ValueError, match="stop"), StorageMeter() as meter:
        held = torch.zeros(10) + 1
        raise ValueError("stop")
    assert meter.live == held.nbytes
    held + 1
    assert meter.peak <= 80


@pytest.fixture
def fake_need(monkeypatch: pytest.MonkeyPatch):
    """Let a batch need what `needs["fixed"] + needs["each"] * size` says, in bytes."""
    needs = {"fixed": 0.0, "each": 0.0, "size": 0}

    @contextmanager
    def measure(device: torch.device):
        yield lambda: (needs["fixed"] + needs["each"] * needs["size"]) / MARGINS["cpu"]

    monkeypatch.setattr(memory, "measure_peak", measure)

    def learn(budget: MemoryBudget, size: int, fixed: float, each: float) -> None:
        needs.update(fixed=fixed, each=each, size=size)
        with budget.measure(torch.zeros(size, 1, 2, 2)):
            pass

    return learn


def test_fixed_and_each_images_part_are_told_apart(fake_need) -> None:
    budget = MemoryBudget(1.0)
    assert budget.batch_size == 1
    fake_need(budget, 1, 2e8, 1e7)
    assert budget.batch_size == 2
    fake_need(budget, 2, 2e8, 1e7)
    assert budget.batch_size == 80


def test_two_images_are_not_tried_where_twice_one_is_too_much(fake_need) -> None:
    budget = MemoryBudget(0.3)
    fake_need(budget, 1, 1e8, 1e8)
    assert budget.batch_size == 1


def test_images_that_need_more_shrink_the_next_batches(fake_need) -> None:
    budget = MemoryBudget(1.0)
    fake_need(budget, 1, 0, 1e7)
    fake_need(budget, 2, 0, 1e7)
    assert budget.batch_size == 100
    fake_need(budget, 90, 0, 2e7)  # as where the first slices were nearly empty
    assert 45 <= budget.batch_size <= 50
    fake_need(budget, 10, 0, 1e6)
    assert budget.batch_size <= 50


def test_an_image_that_seems_free_is_not_believed(fake_need) -> None:
    budget = MemoryBudget(1.0)
    fake_need(budget, 1, 5e8, 0)
    fake_need(budget, 2, 5e8, 0)
    assert budget.batch_size == 101


def test_the_first_image_alone_may_refuse(fake_need) -> None:
    budget = MemoryBudget(0.5)
    with pytest.raises(OptionError, match=r"at least 0\.61.*\(1, 2, 2\) needs, got 0\.5"):
        fake_need(budget, 1, 0, 6.1e8)
    budget = MemoryBudget(0.5)
    fake_need(budget, 1, 0, 1e8)
    fake_need(budget, 1, 0, 6e8)  # late: the work goes on, one by one
    assert budget.batch_size == 1


@pytest.mark.parametrize("promise", [0, -1.0, math.nan, math.inf, "4", None])
def test_a_promise_is_a_positive_number(promise) -> None:
    with pytest.raises(OptionError, match="max_memory_gb must be a positive number"):
        MemoryBudget(promise)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("method", METHODS)
def test_the_chosen_batch_is_the_largest_that_fits(method: str, dims: int) -> None:
    network, image = make_network(dims), draw_images(1, dims)
    two = measure_need(method, network, image.expand(2, *image.shape[1:]).contiguous())
    size = choose_batch_size(
        Explainer(method, **METHODS[method]), network, image, max_memory_gb=3 * two / 1e9
    )
    assert 5 <= size <= 12
    needs = [
        measure_need(method, network, image.repeat(n, *[1] * (dims + 1))) for n in (size, size + 1)
    ]
    assert needs[0] <= 3 * two < needs[1] * 1.05


@pytest.mark.parametrize("method", METHODS)
def test_a_promise_changes_the_batches_and_nothing_else(method: str) -> None:
    network, images = make_network(), draw_images(9)
    sizes: list[int] = []
    network.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    promise = 4.5 * measure_need(method, network, images[:1]) / 1e9
    expected = explain(network, images, method, batch_size=9, **METHODS[method])
    sizes.clear()
    result = explain(
        network, images, method, batch_size=9, max_memory_gb=promise, **METHODS[method]
    )
    assert sorted(set(sizes))[:2] == [1, 2]
    assert 3 <= max(sizes) <= 6
    for found, right in zip(result, expected, strict=True):
        torch.testing.assert_close(found, right, rtol=1e-5, atol=1e-5 * float(right.abs().max()))
    sizes.clear()
    explain(network, images, method, batch_size=3, max_memory_gb=1.0, **METHODS[method])
    assert max(sizes) == 3  # batch_size stays the bound


def test_each_image_keeps_its_class_and_its_affine() -> None:
    network, images = make_network(), MetaTensor(draw_images(7), affine=torch.eye(4) * 2)
    class_idx = torch.tensor([0, 1, 1, 0, 1, 0, 0])
    promise = 3.5 * measure_need("saliency", network, images[:1].as_tensor()) / 1e9
    result = explain(network, images, class_idx=class_idx, max_memory_gb=promise)
    every = explain(network, images).attribution
    right = torch.stack([every[at, k] for at, k in enumerate(class_idx.tolist())])[:, None]
    torch.testing.assert_close(result.attribution.as_tensor(), right.as_tensor())
    assert torch.equal(result.attribution.affine, images.affine)


def test_what_one_image_needs_is_told() -> None:
    network, images = make_network(), draw_images(4)
    need = measure_need("saliency", network, images[:1])
    with pytest.raises(OptionError, match=f"at least {need / 1e9:.2g}, which one image of") as told:
        explain(network, images, max_memory_gb=need / 2e9)
    assert "(1, 24, 20)" in str(told.value)
    with pytest.raises(OptionError, match="which one image"):
        choose_batch_size(Explainer("saliency"), network, images[:1], need / 2e9)


def test_no_images_are_refused() -> None:
    with pytest.raises(InputError, match="at least one image"):
        explain(make_network(), draw_images(0))


# The promise as the system sees it: the growth of a fresh process's resident memory.
_KEEP_PROMISE = """
import json, sys
import torch
from heatmask.attribution import Explainer, explain
from heatmask.attribution.memory import StorageMeter, choose_batch_size
from heatmask.networks.resnet import make_resnet

def read_mib(key):
    lines = open("/proc/self/status", encoding="utf-8").read().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key))

method, promise, options = sys.argv[1], float(sys.argv[2]), json.loads(sys.argv[3])
network = make_resnet(18, num_classes=2, widen_factor=0.25, max_pool=False)
images, explainer = torch.rand(40, 1, 96, 80), Explainer(method, **options)
before = read_mib("VmRSS")
open("/proc/self/clear_refs", "w", encoding="utf-8").write("5")  # begin the peak anew
size = choose_batch_size(explainer, network, images[:1], promise)
explain(network, images, method, batch_size=size, **options)
print(json.dumps({"size": size, "mib": read_mib("VmHWM") - before}))
"""
_CODE_MIB = 25  # libraries and kernels that the first call of a process loads


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("method", ["saliency", "grad_cam", "integrated_gradients"])
def test_a_process_keeps_the_promise(method: str) -> None:
    promise_gb = 0.1 if method == "grad_cam" else 0.2
    command = [sys.executable, "-c", _KEEP_PROMISE, method, str(promise_gb)]
    done = subprocess.run(
        [*command, json.dumps(METHODS[method])],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert 4 <= found["size"] <= 40
    assert found["mib"] <= promise_gb * 1e9 / 2**20 + _CODE_MIB
    assert found["mib"] >= 0.2 * promise_gb * 1e9 / 2**20  # the test sees the work at all
