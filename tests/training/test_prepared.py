"""Pictures prepared for training: once, by content, the same in every process."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.transforms import Compose, MapTransform
from skimage.io import imsave

from heatmask.data.label_table import LabelledImage
from heatmask.data.load import LoadSequencesd
from heatmask.errors import InputError, OutputError
from heatmask.training import prepared
from heatmask.training.prepared import PreparedPictures, prepare_pictures
from heatmask.training.slices import SliceDataset
from heatmask.transforms import NormalizeHeadd, ResizeInPlaned

SIZE = (16, 24)


class Count(MapTransform):
    """Counts what passes; not across processes."""

    calls = 0

    def __call__(self, data: Mapping[Any, Any]) -> Mapping[Any, Any]:
        Count.calls += 1
        return data


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Count.calls = 0
    return tmp_path / "cache"


def make_chain(size: tuple[int, int] = SIZE, sequences: tuple[str, ...] = ("unknown",)) -> Compose:
    return Compose([
        LoadSequencesd("image", sequences, min_slices=1), ResizeInPlaned("image", size),
        NormalizeHeadd("image"), Count("image"),
    ])  # fmt: skip


def draw_pictures(folder: Path, count: int) -> list[str]:
    random = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    paths = [str(folder / f"{number:02d}.png") for number in range(count)]
    for path in paths:
        imsave(path, random.integers(1, 255, (30, 40), np.uint8), check_contrast=False)
    return paths


def prepare(paths: list[str], chain: Compose | None = None) -> PreparedPictures:
    pictures, problems = prepare_pictures(paths, chain or make_chain(), SIZE)
    assert not any(problems)
    return pictures


def test_a_picture_is_what_inference_sees(tmp_path: Path) -> None:
    paths, chain = draw_pictures(tmp_path, 3), make_chain()
    pictures = prepare(paths)
    assert len(pictures) == 3
    for picture, path in zip(pictures[:], paths, strict=True):
        seen = chain({"image": path})["image"][..., 0]
        assert picture.shape == (1, *SIZE)
        assert picture.dtype == torch.float16
        torch.testing.assert_close(picture.float(), seen.as_tensor(), atol=0, rtol=2**-11)
    assert torch.equal(pictures[torch.tensor([2, 0])], torch.stack([pictures[2], pictures[0]]))
    assert torch.equal(pictures[torch.tensor(1)], pictures[1])


def test_nothing_is_prepared_twice(tmp_path: Path, cache: Path) -> None:
    paths = draw_pictures(tmp_path / "a", 4)
    first = prepare(paths)
    (tmp_path / "a").rename(tmp_path / "b")
    moved = [path.replace("/a/", "/b/") for path in paths]
    again = prepare([*reversed(moved), moved[0]])
    assert Count.calls == 4
    assert torch.equal(again[:4], first[:].flip(0))
    assert len(list(cache.rglob("*.*"))) == 0, "nothing half written"
    imsave(moved[1], np.arange(1200, dtype=np.uint16).reshape(30, 40), check_contrast=False)
    changed = prepare(moved)
    assert Count.calls == 5
    assert not torch.equal(changed[1], first[1])


def test_another_way_of_preparing_has_a_folder_of_its_own(tmp_path: Path) -> None:
    paths = draw_pictures(tmp_path, 1)
    chains = [make_chain(), make_chain((9, 9)), make_chain(sequences=("T1", "unknown"))]
    folders = {prepare(paths, chain).folder for chain in [*chains, make_chain()]}
    assert len(folders) == 3


@pytest.mark.parametrize("part", ["data", "transforms"])
def test_another_version_has_a_folder_of_its_own(
    cache: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """What code reads and scales pictures decides what they look like."""
    before, read = prepared._make_folder(make_chain(), SIZE), Path.read_bytes
    changed = Path(prepared.__file__).parents[1] / part / "__init__.py"
    monkeypatch.setattr(Path, "read_bytes", lambda path: read(path) + b"#" * (path == changed))
    assert prepared._make_folder(make_chain(), SIZE) != before


def test_the_name_chooses_the_channel(tmp_path: Path) -> None:
    """The same content under names of two sequences."""
    (path,) = draw_pictures(tmp_path, 1)
    names = [str(tmp_path / name) for name in ("p_t1.png", "p_flair.png")]
    for name in names:
        Path(name).write_bytes(Path(path).read_bytes())
    pictures = prepare(names, make_chain(sequences=("FLAIR", "T1")))
    assert pictures[:].flatten(2).any(2).tolist() == [[False, True], [True, False]]


def test_worker_processes_prepare_the_same(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = draw_pictures(tmp_path, 66)
    Path(paths[65]).write_bytes(b"damaged")
    alone, _ = prepare_pictures(paths[:64], make_chain(), SIZE)
    assert Count.calls == 64
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        pictures, problems = prepare_pictures(paths, make_chain(), SIZE)
    finally:
        torch.set_num_threads(threads)
    assert Count.calls == 65, "the others elsewhere"
    assert torch.equal(pictures[:64], alone[:])
    assert [bool(problem) for problem in problems] == [False] * 65 + [True]


def test_pictures_that_cannot_be_used_are_all_named(tmp_path: Path) -> None:
    paths = draw_pictures(tmp_path, 5)
    Path(paths[1]).write_bytes(b"damaged")
    Path(paths[3]).unlink()
    labels = [{None: 0}, {None: 1}, {4: 1}, {0: 0}, {None: 1}]
    images = [
        LabelledImage("p", Path(path), own, (line,))
        for line, (path, own) in enumerate(zip(paths, labels, strict=True), start=2)
    ]
    with pytest.raises(InputError, match="3 of 5 images that cannot be used") as caught:
        SliceDataset(images, make_chain(), SIZE)
    lines = str(caught.value).splitlines()
    assert lines[1].startswith("  line 3: The picture")
    assert "has 1 slices along its third axis" in lines[2]
    assert "line 5: The picture" in lines[3]
    dataset = SliceDataset([images[0], images[4]], make_chain(), SIZE)
    assert dataset.labels.tolist() == [0, 1]
    assert dataset.places.tolist() == [[0, 0], [1, 0]]
    assert dataset[1]["image"].dtype == torch.float32
    assert dataset[1]["position"] == 0.5


def test_a_place_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = draw_pictures(tmp_path, 1)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(OutputError, match=r"cannot be written: .*variable XDG_CACHE_HOME"):
        prepare(paths)


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    images = [LabelledImage("p", Path(*draw_pictures(tmp_path, 1)), {None: 1}, (2,))]
    with pytest.raises(InputError, match=r"cannot be written: No space left on device"):
        SliceDataset(images, make_chain(), SIZE)
