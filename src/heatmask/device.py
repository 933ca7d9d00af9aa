"""The device a run asked for, or a clear refusal."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from heatmask.errors import DeviceError, OptionError

_LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """Return the torch device for ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.

    ``"auto"`` takes CUDA where there is one and the CPU otherwise; every other name is
    taken at its word and refused where it cannot be had.

    Raises
    ------
    OptionError
        The name is none of the above.
    DeviceError
        CUDA was asked for by name and is not there.
    """
    if isinstance(device, torch.device):
        device = str(device)
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise OptionError(f"device must be auto, cpu, cuda or cuda:N, got {device!r}.") from error
    if resolved.type not in ("cpu", "cuda"):
        raise OptionError(f"device must be auto, cpu, cuda or cuda:N, got {device!r}.")
    if resolved.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (resolved.index or 0) >= count:
            raise DeviceError(
                f"device {device!r} needs a CUDA GPU that torch can see, and it sees {count}. "
                "Give --device cpu, or auto to take a GPU only where there is one."
            )
    return resolved


@contextmanager
def use_full_float32() -> Iterator[None]:
    """Switch TF32 off within the block, or within a function that this decorates.

    With it, which is torch's default for convolutions, heatmaps of a GPU and a CPU differ by up to
    5 % of their largest value; without, by less than 0.03 %, and a scan takes at most 30 ms longer
    (docs/results.md, CUDA).
    """
    switches: tuple[Any, ...] = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [switch.allow_tf32 for switch in switches]
    try:
        for switch in switches:
            switch.allow_tf32 = False
        yield
    finally:
        for switch, allowed in zip(switches, before, strict=True):
            switch.allow_tf32 = allowed


def autocast_bfloat16(device: torch.device) -> torch.autocast:
    """Return a context that calculates in bfloat16 where the device can; for training.

    A CPU without instructions for it imitates them, eight times slower than float32, which it then
    calculates in.
    """
    able = device.type != "cpu" or any(
        torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16", "bf16")
    )
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=able)


def place_network(network: nn.Module, device: torch.device) -> nn.Module:
    """Move a network to a device, in place, and return it in eval mode, channels last in memory.

    Convolutions in that layout take about a fifth less time on a CPU (benchmarks/precision.py); the
    result is the same but for rounding.
    """
    return lay_channels_last(network).to(device).eval()


def lay_channels_last(network: nn.Module) -> nn.Module:
    """Put a network's weights channels last in memory, in place, in 2D and 3D; return it."""
    for parameter in network.parameters():
        parameter.data = to_channels_last(parameter.data)
    return network


def to_channels_last(tensor: Tensor) -> Tensor:
    """Return images (B, C, *spatial) or weights channels last in memory; others contiguous."""
    layout = _LAYOUTS.get(tensor.ndim, torch.contiguous_format)
    return tensor.contiguous(memory_format=layout)
