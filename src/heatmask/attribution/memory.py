"""Batches that fit into memory: what one takes is measured, for PyTorch tells nobody beforehand."""

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from heatmask.errors import OptionError
from heatmask.progress import advance

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

GB = 1e9
MARGINS = {"cpu": 1.2, "cuda": 1.15}
"""By what share the real need may exceed what is measured: the workspaces of convolutions."""

KEPT_BYTES = {"cpu": 0.3 * GB, "cuda": 0.0}
"""What may be held on top: malloc keeps memory that was freed, in pieces of up to 32 MB.

With both, resident memory stayed below what is promised for ResNets and DenseNets in 2D and
3D and batches of 0.01 to 2 GB. On CUDA the promise is about what torch allocates.
"""


def run_in_parts(run: Callable[[slice], Result], start: int, count: int, size: int) -> list[Result]:
    """Call ``run(part)`` for parts of at most `size` of the things from `start` to `count`.

    Between parts a run can be stopped (see `heatmask.progress`).
    Where a GPU runs out of memory parts are halved from there on, which is logged. Of nothing there
    is one empty part.

    Raises
    ------
    torch.cuda.OutOfMemoryError
        Not even a part of one fits.
    """
    results: list[Result] = []
    while start < max(count, 1):
        part = slice(start, min(start + size, count))
        advance(0)
        try:
            results.append(run(part))
            start = max(part.stop, 1)
            continue
        except torch.cuda.OutOfMemoryError:
            if part.stop - start <= 1:
                raise
        # Outside of the handler, so that the failed call's tensors are let go first.
        torch.cuda.empty_cache()
        size = (part.stop - start) // 2
        logger.warning("The GPU is out of memory: going on with a batch of %d.", size)
    return results


def measure_batch_size(
    run_one: Callable[[], Result], device: torch.device, max_memory_gb: float
) -> tuple[Result, int]:
    """Run a batch of one image; return its result, and how many images a batch may hold.

    As many as fit if each takes what this one took. A part of that is the same for any number,
    so that more than these might fit, but no fewer.

    Raises
    ------
    OptionError
        The promise is not a positive number, or not even one image fits.
    """
    if not isinstance(max_memory_gb, int | float) or not 0 < max_memory_gb < math.inf:
        raise OptionError(
            f"max_memory_gb must be a positive number of 10^9 bytes, got {max_memory_gb!r}."
        )
    kind = "cuda" if device.type == "cuda" else "cpu"
    with measure_peak(device) as read_peak:
        result = run_one()
    each = MARGINS[kind] * max(read_peak(), 1)
    fitting = math.floor((max_memory_gb * GB - KEPT_BYTES[kind]) / each)
    if fitting < 1:
        need_gb = (each + KEPT_BYTES[kind]) / GB
        raise OptionError(
            f"max_memory_gb must be at least {math.ceil(need_gb * 100) / 100:g}, which one "
            f"image needs, got {max_memory_gb:g}. Give more, or take a smaller image or a "
            "method that needs less."
        )
    return result, fitting


@contextmanager
def measure_peak(device: torch.device) -> Iterator[Callable[[], int]]:
    """Measure the bytes allocated on a device inside the context, beside what was there before.

    Yields a function that returns the peak so far. On CUDA torch's own record of the peak is
    begun anew, and other threads' work on the device is counted in; on the CPU only tensors
    made in this thread are counted, backward passes included.
    """
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        yield lambda: torch.cuda.max_memory_allocated(device) - before
    else:
        with StorageMeter() as meter:
            yield lambda: meter.peak


class StorageMeter(TorchDispatchMode):
    """Context that counts the bytes of the tensors made in it that are alive.

    Attributes
    ----------
    peak : int
        Bytes alive at most, with room for what an operation holds beside its results.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._alive: WeakValueDictionary[int, torch.UntypedStorage] = WeakValueDictionary()

    @property
    def live(self) -> int:
        """Bytes alive now."""
        return sum(storage.nbytes() for storage in self._alive.values())

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run one operation and count what it made: what shares no memory with what it got."""
        kwargs = kwargs or {}
        outputs = func(*args, **kwargs)
        made = _find_storages(outputs)
        if made:
            known = _find_storages((args, kwargs)).keys() | self._alive.keys()
            new = {key: storage for key, storage in made.items() if key not in known}
            self._alive.update(new)
            # A convolution takes about as much again for itself as it gives.
            self.peak = max(self.peak, self.live + sum(one.nbytes() for one in new.values()))
        return outputs


def _find_storages(values: Any) -> dict[int, torch.UntypedStorage]:
    storages = (one.untyped_storage() for one in tree_leaves(values) if isinstance(one, Tensor))
    return {id(storage): storage for storage in storages}
