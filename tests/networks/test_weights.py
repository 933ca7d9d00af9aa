"""Checkpoints: what was saved comes back, what does not fit is refused."""

import hashlib
from pathlib import Path

import pytest
import torch
from torch import nn

from heatmask.errors import OutputError, WeightsError
from heatmask.networks.gp_unet import GPUNet
from heatmask.networks.weights import load_weights, save_weights


def make_network(seed: int = 0, num_classes: int = 1) -> GPUNet:
    torch.manual_seed(seed)
    return GPUNet(features=(4, 6), norm="batch", pool_at="map", num_classes=num_classes)


def assert_same_state(first: nn.Module, second: nn.Module) -> None:
    for (name, a), (_, b) in zip(
        first.state_dict().items(), second.state_dict().items(), strict=True
    ):
        assert a.dtype == b.dtype, name
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_round_trip(tmp_path: Path) -> None:
    network = make_network(seed=1)
    torch.save(network.state_dict(), tmp_path / "model.pt")
    other = make_network(seed=2).train()
    loaded = load_weights(other, tmp_path / "model.pt")
    assert loaded is other
    assert not loaded.training
    assert_same_state(network, loaded)


def test_half_precision_is_stored_and_widened(tmp_path: Path) -> None:
    network = make_network(seed=1)
    save_weights(network.state_dict(), tmp_path / "model.pt")
    stored = torch.load(tmp_path / "model.pt", weights_only=True)
    assert {v.dtype for v in stored.values()} == {torch.float16, torch.int64}
    loaded = load_weights(make_network(seed=2), tmp_path / "model.pt")
    for name, value in loaded.state_dict().items():
        expected = network.state_dict()[name]
        assert value.dtype == expected.dtype
        rounded = expected.half().float() if value.is_floating_point() else expected
        torch.testing.assert_close(value, rounded, rtol=0, atol=0)


def test_a_state_dict_under_the_key_model_is_read_too(tmp_path: Path) -> None:
    network = make_network(seed=1)
    torch.save({"model": network.state_dict()}, tmp_path / "older.pt")
    assert_same_state(network, load_weights(make_network(seed=2), tmp_path / "older.pt"))


def change_state(kind: str) -> dict[str, torch.Tensor]:
    state = make_network().state_dict()
    if kind == "missing":
        del state["head.bias"]
    elif kind == "extra":
        state["tail.bias"] = torch.zeros(3)
    elif kind == "shape":
        state["head.weight"] = torch.zeros(3, 4, 1, 1)
    return state


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", r"must fit GPUNet in every tensor: .*model.pt\n  missing: head.bias\n"),
        ("extra", r"\n  not in the network: tail.bias\n"),
        ("shape", r"head.weight: network \(1, 4, 1, 1\), file \(3, 4, 1, 1\)\n"),
    ],
)
def test_loading_is_strict(tmp_path: Path, kind: str, message: str) -> None:
    torch.save({"model": change_state(kind)}, tmp_path / "model.pt")
    network = make_network(seed=3)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with pytest.raises(WeightsError, match=message):
        load_weights(network, tmp_path / "model.pt")
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_a_wrongly_wrapped_file_is_refused(tmp_path: Path) -> None:
    """The trap: MONAI Label loads with strict=False and would go on with random weights."""
    torch.save({"network": make_network().state_dict()}, tmp_path / "model.pt")
    with pytest.raises(WeightsError, match=r"must be a dict of tensors"):
        load_weights(make_network(), tmp_path / "model.pt")


def test_many_problems_are_cut_short(tmp_path: Path) -> None:
    torch.save({"model": {}}, tmp_path / "model.pt")
    network = make_network()
    with pytest.raises(WeightsError, match=rf"\.\.\. and {len(network.state_dict()) - 10} more"):
        load_weights(network, tmp_path / "model.pt")


class Payload:
    """What a malicious checkpoint does: its unpickling leaves a file behind."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.trace,)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    state = {**make_network().state_dict(), "payload": Payload(tmp_path / "trace")}
    torch.save({"model": state}, tmp_path / "model.pt")
    with pytest.raises(WeightsError, match=r"must be a checkpoint that holds only tensors"):
        load_weights(make_network(), tmp_path / "model.pt")
    assert not (tmp_path / "trace").exists()
    torch.load(tmp_path / "model.pt", weights_only=False)
    assert (tmp_path / "trace").exists(), "the payload would have run"


@pytest.mark.parametrize("content", [[torch.zeros(2)], {"model": {"a": 1}}, torch.zeros(2)])
def test_other_contents_are_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(WeightsError, match=r"must be a dict of tensors, and .* something else"):
        load_weights(make_network(), tmp_path / "model.pt")


def test_no_checkpoint_at_all(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(WeightsError, match=r"holds only tensors, and .*text.pt is not"):
        load_weights(make_network(), tmp_path / "text.pt")
    with pytest.raises(WeightsError, match=r"there is no file .*absent.pt"):
        load_weights(make_network(), tmp_path / "absent.pt")


def test_a_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    save_weights(make_network().state_dict(), path)
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(WeightsError, match=r"holds only tensors"):
        load_weights(make_network(), path)


def test_a_failing_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.pt"
    save_weights(make_network(seed=1).state_dict(), path)
    before = path.read_bytes()

    def fail_half_way(target: Path, content: bytes) -> None:
        with target.open("wb") as file:
            file.write(content[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail_half_way)
    with pytest.raises(OutputError, match=r"No space left on device"):
        save_weights(make_network(seed=2).state_dict(), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file/deep/model.pt cannot be written"):
        save_weights(make_network().state_dict(), tmp_path / "file" / "deep" / "model.pt")


@pytest.mark.fault("H")
def test_the_hash_is_of_what_was_read(tmp_path: Path) -> None:
    """Not of the file that lies there later."""
    path = tmp_path / "model.pt"
    save_weights(make_network(seed=1).state_dict(), path)
    used = hashlib.sha256(path.read_bytes()).hexdigest()
    network = load_weights(make_network(), path)
    save_weights(make_network(seed=2).state_dict(), path)
    assert network.weights_sha256 == used != hashlib.sha256(path.read_bytes()).hexdigest()
    assert load_weights(network, path).weights_sha256 != used
