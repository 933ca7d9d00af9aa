"""Checkpoints: tensors only, loaded strictly, written whole or not at all."""

import hashlib
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from heatmask.errors import WeightsError
from heatmask.files import write_atomically

Network = TypeVar("Network", bound=nn.Module)


def load_weights(network: Network, path: str | os.PathLike[str]) -> Network:
    """Fill `network` from the checkpoint at `path`, on the CPU, and return it in eval mode.

    A half-precision checkpoint is widened to the network's own type. The file holds a
    state dict, as is or under the key ``"model"``. The network keeps the SHA-256 of what was
    read as ``weights_sha256``: the file may be another one by the time of the report.

    Raises
    ------
    WeightsError
        The file is missing, is no tensor-only checkpoint, or does not fit in every key
        and shape. MONAI Label alone would go on with random weights here.
    """
    state, sha256 = _read_state(Path(path))
    expected = network.state_dict()
    problems = _compare_states(expected, state)
    if problems:
        raise WeightsError(
            f"The checkpoint must fit {type(network).__name__} in every tensor: {path}\n  "
            + "\n  ".join(problems)
            + "\nGive the weights that belong to this bundle's network_def, or retrain it."
        )
    network.load_state_dict({k: v.to(expected[k].dtype) for k, v in state.items()})
    vars(network)["weights_sha256"] = sha256
    return network.eval()


def save_weights(state: Mapping[str, Tensor], path: str | os.PathLike[str]) -> None:
    """Write a state dict in half precision to `path`, first beside it, then in place.

    It is written as is, which is what `monai.bundle.load` takes: of a state dict under a key it
    loads nothing, without an error.

    Raises
    ------
    OutputError
        The file cannot be written; what stood there is as it was.
    """
    tensors = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    content = io.BytesIO()  # torch.save reports a full disk as any RuntimeError, a file does not
    torch.save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, content)
    with write_atomically(path) as draft:
        draft.write_bytes(content.getbuffer())


def _read_state(path: Path) -> tuple[dict[str, Tensor], str]:
    """Return the state dict in a file, and the SHA-256 of the file in hexadecimal."""
    if not path.is_file():
        raise WeightsError(
            f"The weights must exist, and there is no file {path}. Restore models/model.pt of the "
            "bundle, say where it lies (--bundle_root), or train it with `heatmask train`."
        )
    try:
        read = path.read_bytes()
        content = torch.load(io.BytesIO(read), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen types here, pickle's among them
        raise WeightsError(
            f"The weights must be a checkpoint that holds only tensors, and {path} is not "
            f"({str(error).split('. ')[0]}). Copy or download it again."
        ) from error
    state = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(
            f"The weights must be a dict of tensors, and {path} holds something else."
        )
    return state, hashlib.sha256(read).hexdigest()


def _compare_states(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    problems = [f"missing: {name}" for name in expected.keys() - found.keys()]
    problems += [f"not in the network: {name}" for name in found.keys() - expected.keys()]
    problems += [
        f"{name}: network {tuple(expected[name].shape)}, file {tuple(found[name].shape)}"
        for name in expected.keys() & found.keys()
        if expected[name].shape != found[name].shape
    ]
    shown = sorted(problems)
    return shown[:10] + ([f"... and {len(shown) - 10} more"] if len(shown) > 10 else [])
