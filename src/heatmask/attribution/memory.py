"""How many images fit into a promise of memory: measured, for PyTorch tells nobody beforehand."""

import math
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from heatmask.attribution.classes import ClassIdx
from heatmask.attribution.explainer import Explainer
from heatmask.errors import OptionError

GB = 1e9
MARGINS = {"cpu": 1.2, "cuda": 1.15}
"""By what share the real need may exceed what is measured: the workspaces of convolutions."""

KEPT_BYTES = {"cpu": 0.3 * GB, "cuda": 0.0}
"""What may be held on top: malloc keeps memory that was freed, in pieces of up to 32 MB.

With both, resident memory stayed below what is promised for ResNets and DenseNets in 2D and
3D and batches of 0.01 to 2 GB. On CUDA the promise is about what torch allocates.
"""


def choose_batch_size(
    explainer: Explainer,
    network: nn.Module,
    image: Tensor,
    max_memory_gb: float,
    class_idx: ClassIdx = None,
) -> int:
    """Return how many images like this one a batch may hold; costs explaining three.

    `heatmask.attribution.explain` with `max_memory_gb` finds the same on its way, at no cost.

    Parameters
    ----------
    image
        (1, C, *spatial), on the network's device.
    max_memory_gb
        Memory that a batch may take, in 10^9 bytes, beside what is there before: the network,
        the images and the results of earlier batches.

    Raises
    ------
    OptionError
        Not even one image fits; the message says how much one needs.
    """
    budget = MemoryBudget(max_memory_gb, image.device)
    for size in (1, 2):
        if size <= budget.batch_size:
            images = image.expand(size, *image.shape[1:]).contiguous()
            with budget.measure(size):
                explainer(network, images, class_idx)
    return budget.batch_size


class MemoryBudget:
    """A promise of memory, and what batches were seen to need.

    Parameters
    ----------
    max_memory_gb
        See `choose_batch_size`.
    device
        Where the batches are run.

    Notes
    -----
    The first batch should hold one image, the second two: `batch_size` says so. What they need
    gives the fixed part and the part of each image. Later batches are measured as well, and
    where images turn out to need more the next batches are smaller.

    Raises
    ------
    OptionError
        The promise is not a positive number.
    """

    def __init__(self, max_memory_gb: float, device: torch.device) -> None:
        if not isinstance(max_memory_gb, int | float) or not 0 < max_memory_gb < math.inf:
            raise OptionError(
                f"max_memory_gb must be a positive number of 10^9 bytes, got {max_memory_gb!r}."
            )
        self.max_memory_gb, self.device = max_memory_gb, device
        kind = "cuda" if device.type == "cuda" else "cpu"
        self._margin, self._kept = MARGINS[kind], KEPT_BYTES[kind]
        self._capacity = (max_memory_gb * GB - self._kept) / self._margin
        self._peaks: dict[int, int] = {}

    @property
    def batch_size(self) -> int:
        """How many images the next batch may hold."""
        if not self._peaks:
            return 1
        one = self._peaks[1]
        if len(self._peaks) == 1:
            return 2 if 2 * one <= self._capacity else 1
        by_image = [(peak - one) / (size - 1) for size, peak in self._peaks.items() if size > 1]
        # A method may take its images one by one; that a hundred cost as one is not believed.
        each = max(*by_image, one / 100, 1)
        return max(1, 1 + math.floor((self._capacity - one) / each))

    @contextmanager
    def measure(self, size: int) -> Iterator[None]:
        """Learn from what a batch of so many images needs inside the context.

        Raises
        ------
        OptionError
            It is the first, and needs more than was promised.
        """
        first = not self._peaks
        with measure_peak(self.device) as read_peak:
            yield
        self._peaks[size] = max(read_peak(), self._peaks.get(size, 0))
        if first and self._peaks[size] > self._capacity:
            need = self._peaks[size] * self._margin + self._kept
            raise OptionError(
                f"max_memory_gb must be at least {math.ceil(need / GB * 100) / 100:g}, which one "
                f"image needs, got {self.max_memory_gb:g}. Give more, or take a smaller image or a "
                "method that needs less."
            )


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
    live : int
        Bytes alive now.
    peak : int
        Bytes alive at most, with room for what an operation holds beside its results.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._watched: dict[int, weakref.ref] = {}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run one operation and count what it made: what shares no memory with what it got."""
        kwargs = kwargs or {}
        outputs = func(*args, **kwargs)
        made = {id(storage): storage for storage in _list_storages(outputs)}
        if made:
            given = {id(storage) for storage in _list_storages((args, kwargs))}
            new = made.keys() - given - self._watched.keys()
            for key in new:
                self._watch(key, made[key])
            # A convolution takes about as much again for itself as it gives.
            self.peak = max(self.peak, self.live + sum(made[key].nbytes() for key in new))
        return outputs

    def _watch(self, key: int, storage: torch.UntypedStorage) -> None:
        size = storage.nbytes()

        def forget(reference: object) -> None:
            del self._watched[key]
            self.live -= size

        self.live += size
        self._watched[key] = weakref.ref(storage, forget)


def _list_storages(values: Any) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
