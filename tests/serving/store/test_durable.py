"""Whole or not there: full disks, kills at any moment, two servers."""

import errno
import os
import resource
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from heatmask.errors import InputError, OutputError
from heatmask.serving.store import FINAL, Store, durable
from heatmask.serving.store.durable import measure_sha256
from heatmask.serving.studies import index_studies
from helpers.project import PROJECT
from helpers.store_files import read_tree, write_image, write_label, write_studies


@pytest.mark.parametrize("kills", [4, pytest.param(200, marks=pytest.mark.slow)])
def test_nothing_answered_is_lost_to_kill_9(kills):
    script = PROJECT / "benchmarks" / "kill_store.py"
    done = subprocess.run(
        [sys.executable, str(script), "--kills", str(kills)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"{kills} kills" in done.stdout
    assert ", 0 lost, 0 torn" in done.stdout


def test_a_second_server_is_refused(store, flat, tmp_path):
    code = f"""
from pathlib import Path
from heatmask.serving.store import Store
Store(Path({str(flat)!r}), Path({str(flat / "store")!r}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Only one server can work on" in done.stderr
    store.close()
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_second_server_does_not_touch_the_first_ones_links(tmp_path):
    write_image(write_folder(tmp_path / "studies/p1") / "p1-flair.nii.gz")
    index = index_studies(tmp_path / "studies", tmp_path / "work")
    first = Store(index, index / "store")
    (tmp_path / "studies/p1").rename(tmp_path / "studies/moved")
    before = read_tree(index), [path.readlink() for path in index.glob("*.nii.gz")]
    with pytest.raises(InputError, match="Only one server"):
        index_studies(tmp_path / "studies", tmp_path / "work")
    assert before == (read_tree(index), [path.readlink() for path in index.glob("*.nii.gz")])
    first.close()
    index_studies(tmp_path / "studies", tmp_path / "work")


def write_folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def test_a_label_never_passes_to_another_scan(tmp_path):
    """As test_studies.py says of labels of earlier versions."""
    write_image(write_folder(tmp_path / "studies/p1") / "p1-flair.nii.gz")
    index = index_studies(tmp_path / "studies", tmp_path / "work")
    store = Store(index, index / "store")
    store.submit("p1-flair", write_label(tmp_path / "a.nii.gz", 1), {}, "ann", "ann/1")
    store.close()
    (tmp_path / "studies/p1").rename(tmp_path / "studies/other")
    with pytest.raises(InputError, match=r"study with a label must stay.*store/labels/p1-flair"):
        index_studies(tmp_path / "studies", tmp_path / "work")


@pytest.fixture
def tiny_disk(tmp_path):
    """A folder on a file system of 256 KiB."""
    disk = write_folder(tmp_path / "disk")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a tmpfs; the next test stands for it")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def fill(store: Store, label: Path) -> list:
    """Submit until the disk is full; return what was answered."""
    answered = []
    with suppress(OutputError):
        while len(answered) < 500:
            answered.append(store.submit("p1", label, {}, "ann", "ann/1"))
    return answered


def test_nothing_answered_is_lost_to_a_full_disk(tiny_disk, tmp_path):
    flat = write_studies(tmp_path)
    label = write_label(tmp_path / "a.nii", 1)
    with label.open("ab") as file:
        file.write(bytes(20_000))
    store = Store(flat, tiny_disk / "store")
    sent = store.send_image(write_image(tmp_path / "up.nii.gz"), "mine", "bob/1")
    answered = fill(store, label)
    assert 3 < len(answered) < 500
    with pytest.raises(OutputError, match=r"No space left.*What was stored before is unchanged"):
        store.submit("p1", label, {}, "ann", "ann/1")
    for ask in (  # nothing else half succeeds either
        lambda: store.restore("p1", 1, "ann"),
        lambda: store.prelabel("p1", label, {}, "unet", {}),
        lambda: store.send_image(write_image(tmp_path / "up.nii.gz"), "x" * 100_000, "ann/1"),
    ):
        with pytest.raises(OutputError):
            ask()
    assert store.list_versions("p1") == answered
    assert store.end_session("bob/1") == [sent], "what frees space works"
    assert list((tiny_disk / "store/sent").iterdir()) == []
    store.close()
    again = Store(flat, tiny_disk / "store")
    assert again.list_versions("p1") == answered
    assert all(measure_sha256(version.path) == version.sha256 for version in answered)
    assert again.list_images() == ["p1", "p2"]
    again.close()


def test_a_file_that_cannot_be_written_whole_is_no_version(store, tmp_path):
    """The same where no file system can be mounted: no file may pass 100 bytes."""
    label = write_label(tmp_path / "a.nii.gz", 1)
    kept = store.submit("p1", label, {}, "ann", "ann/1")
    before = read_tree(store._folder)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(OutputError, match="File too large"):
            store.submit("p1", label, {}, "ann", "ann/1")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert read_tree(store._folder) == before
    assert store.list_versions("p1") == [kept]


@pytest.mark.parametrize("call", range(12))
@pytest.mark.parametrize("function", ["fsync", "replace", "mkdir", "open"])
def test_whichever_call_fails_half_a_version_is_never_seen(
    store, flat, tmp_path, monkeypatch, function, call
):
    label = write_label(tmp_path / "a.nii.gz", 1)
    kept = store.submit("p1", label, {}, "ann", "ann/1")
    real, calls = getattr(os, function), iter(range(1000))

    def fail_once(*arguments, **options):
        if next(calls) == call:
            raise OSError(errno.EIO, "Input/output error")
        return real(*arguments, **options)

    monkeypatch.setattr(durable.os, function, fail_once)
    try:
        answered = [store.submit("p2", label, {}, "ann", "ann/1")]
    except (OutputError, InputError):
        answered = []
    monkeypatch.undo()
    assert store.list_versions("p1") == [kept]
    assert store.list_versions("p2") == answered
    store.close()
    again = Store(flat, flat / "store")
    assert again.list_versions("p1") == [kept]
    assert again.list_versions("p2") == answered
    later = again.submit("p2", label, {}, "ann", "ann/1")
    assert again.list_current("p2")[FINAL] == later
    again.close()


def test_all_of_a_version_is_on_the_disk_before_it_has_its_name(store, tmp_path, monkeypatch):
    """And its name before the answer: otherwise a power cut leaves an empty file, or none."""
    events: list[str] = []
    real_sync, real_replace = os.fsync, os.replace

    def sync(descriptor):
        events.append(f"sync {Path(os.readlink(f'/proc/self/fd/{descriptor}')).name}")
        real_sync(descriptor)

    def replace(source, target):
        events.append(f"rename {Path(target).name}")
        real_replace(source, target)

    store.submit("p1", write_label(tmp_path / "a.nii.gz", 1), {}, "ann", "ann/1")
    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", replace)
    store.submit("p1", write_label(tmp_path / "b.nii.gz", 2), {}, "ann", "ann/1")
    named = events.index("rename 2")
    assert {"sync mask.nii.gz", "sync about.json"} < set(events[:named])
    assert events[named - 1].startswith("sync "), "the draft's own folder"
    assert events[named + 1] == "sync final"


def test_what_a_killed_server_was_writing_is_cleared_away(store, flat):
    store.close()
    write_image(write_folder(flat / "store/drafts/0123") / "scan.nii.gz")
    Store(flat, flat / "store").close()
    assert not (flat / "store/drafts").exists()
