"""A work folder of earlier versions, which used MONAI Label's own store, loses nothing."""

import json
import os
import shutil
from pathlib import Path

import pytest
from monailabel.datastore.local import LocalDatastore

from heatmask.serving.store import FINAL, ORIGINAL, Store, durable
from helpers.store_files import NAMED, read_tree, write_image, write_label


@pytest.fixture
def former(flat, tmp_path) -> dict[str, bytes]:
    """Labels of both studies and of an uploaded image, as the host's store leaves them."""
    host = LocalDatastore(str(flat), extensions=["*.nii.gz", "*.nii", "*.nrrd"])
    write_image(tmp_path / "up.nii.gz")
    host.add_image("6 t2", str(tmp_path / "up.nii.gz"), {})
    contents = {}
    for n, (image, tag) in enumerate(
        [("p1", FINAL), ("p1", ORIGINAL), ("p2", FINAL), ("6 t2", FINAL)]
    ):
        label = write_label(tmp_path / f"{n}.nii.gz", n)
        contents[f"{image} {tag}"] = label.read_bytes()
        host.save_label(image, str(label), tag, {**NAMED, "user": "ann", "model": "unet"})
    host.update_image_info("p2", {"quality": "good", "path": "/etc"})
    return contents


def reopen(flat: Path) -> Store:
    return Store(flat, flat / "store")


def check_taken_over(store: Store, former: dict[str, bytes]) -> None:
    sent = store.list_images()[2]
    for key, content in former.items():
        name, tag = key.rsplit(" ", 1)
        (version,) = store.list_versions(sent if name == "6 t2" else name, tag)
        assert (version.number, version.person, version.model) == (1, "ann", "unet")
        assert version.info["label_info"] == NAMED["label_info"]
        assert version.path.read_bytes() == content
    assert store.get_image_info("p2")["quality"] == "good"
    assert store.get_image_info("p2")["path"].endswith("flat/p2.nii.gz")
    assert store.get_image_info(sent)["display_name"] == "6 t2"
    assert store.get_unlabeled_images() == []


def test_labels_become_version_1_and_uploaded_files_shared_images(flat, former, tmp_path):
    upload, old = (flat / "6 t2.nii.gz").read_bytes(), read_tree(flat)
    session = flat.parent / "heatmask_sessions/8000/half"
    session.mkdir(parents=True)
    write_image(session / "scan.nii.gz")
    store = reopen(flat)
    check_taken_over(store, former)
    assert store.find_image(store.list_images()[2]).read_bytes() == upload
    kept = read_tree(flat / "taken_over")
    assert kept == {k: v for k, v in old.items() if k.startswith(("labels/", "datastore_v2"))}
    left = {path.name for path in flat.iterdir()} - {".lock"}
    assert left == {"p1.nii.gz", "p2.nii.gz", "store", "taken_over", "labels"}
    assert not (flat.parent / "heatmask_sessions").exists()
    assert not [path for path in (flat / "labels").rglob("*") if path.is_file()]
    store.close()
    again = reopen(flat)
    check_taken_over(again, former)
    again.close()


@pytest.mark.parametrize("index", [None, "", '{"objects": {"p1"', "[]", '{"objects": 7}'])
def test_without_its_index_the_labels_are_found_all_the_same(flat, former, index):
    """It was written in place, and so was torn when a server was killed."""
    (flat / "datastore_v2.json").unlink()
    if index is not None:
        (flat / "datastore_v2.json").write_text(index)
    store = reopen(flat)
    contents = {
        f"{v.image_name or v.image} {v.tag}": v.path.read_bytes()
        for image in store.list_images()
        for v in store.list_versions(image)
    }
    assert contents == former
    store.close()


@pytest.mark.parametrize(
    ("function", "call"),
    [("replace", n) for n in range(10)] + [("fsync", n) for n in range(0, 40, 3)],
)
def test_stopped_halfway_it_goes_on_at_the_next_start(flat, former, monkeypatch, function, call):
    real, calls = getattr(os, function), iter(range(1000))

    def stop_at(*arguments):
        if next(calls) == call:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(durable.os, function, stop_at)
    with pytest.raises(KeyboardInterrupt):
        reopen(flat)
    monkeypatch.undo()
    store = reopen(flat)
    check_taken_over(store, former)
    store.close()


def test_an_image_that_was_taken_over_is_not_taken_twice(flat, former, monkeypatch):
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "unlink", stop)
    with pytest.raises(KeyboardInterrupt):
        reopen(flat)
    monkeypatch.undo()
    store = reopen(flat)
    check_taken_over(store, former)
    assert len(store.list_images()) == 3
    store.close()


def test_a_label_under_another_extension_is_an_earlier_version(flat, former, tmp_path):
    """The host left A's file beside B's when B submitted another type."""
    orphan = write_label(tmp_path / "o.nii", 5)
    shutil.copy(orphan, flat / "labels/final/p1.nii")
    store = reopen(flat)
    first, second = store.list_versions("p1", FINAL)
    assert first.path.read_bytes() == orphan.read_bytes()
    assert second.path.read_bytes() == former["p1 final"]
    store.close()


def test_a_label_that_is_none_stays_where_it_is_and_is_named(flat, former, caplog):
    torn = flat / "labels/final/p1.nii.gz"
    torn.write_bytes(torn.read_bytes()[:40])
    store = reopen(flat)
    assert store.get_unlabeled_images() == ["p1"]
    assert len(torn.read_bytes()) == 40
    assert f"Not taken over, it stays where it is: {torn}" in caplog.text
    store.close()


def test_a_label_of_a_scan_that_is_gone_is_kept(flat, former):
    (flat / "p1.nii.gz").unlink()
    store = reopen(flat)
    (version,) = store.list_versions("p1", FINAL)
    assert version.path.read_bytes() == former["p1 final"]
    assert "p1" not in store.list_images()
    store.close()


def test_the_index_may_say_anything(flat, former):
    index = json.loads((flat / "datastore_v2.json").read_text())
    index["objects"] |= {"../../x": {"image": {"info": {"a": 1}}}, "p9": 7, "": {"image": []}}
    (flat / "datastore_v2.json").write_text(json.dumps(index))
    store = reopen(flat)
    check_taken_over(store, former)
    assert sorted(p.name for p in (flat / "store/about").iterdir())[0] == "p1.json"
    store.close()
