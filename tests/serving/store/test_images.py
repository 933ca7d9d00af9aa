"""Studies are only read; what clients send lies apart, under any name."""

import re
import threading

import pytest

from heatmask.data.recognition import find_clue
from heatmask.errors import InputError, NotFoundError
from heatmask.serving.store import FINAL, Store, durable
from helpers.store_files import read_tree, write_image, write_label

ODD = ["6: t2_flair", "MR (5)", "Größe/2", "x" * 300, "", "..", "../../p1", "/etc/passwd", "a\0b",
       "\udcff", "p1.nii.gz", ".", "=1+1", "con", "a\nb"]  # fmt: skip


def send(store, folder, name="mine", client="ann/1", **options):
    folder.mkdir(exist_ok=True)
    return store.send_image(write_image(folder / "scan.nii.gz"), name, client, **options)


@pytest.mark.parametrize("name", ODD)
def test_a_client_goes_on_using_its_own_name(store, flat, tmp_path, name):
    sent = send(store, tmp_path / "up", name)
    assert sent.startswith("sent-")
    assert store.resolve(name, "ann/1") == store.resolve(sent, "ann/1") == sent
    version = store.submit(sent, write_label(tmp_path / "a.nii.gz", 1), {}, "ann", "ann/1")
    assert version.image_name == name
    store.close()
    again = Store(flat, flat / "store")
    assert again.resolve(name, "ann/1") == sent
    assert again.list_versions(sent) == [version]
    assert again.get_image_info(sent)["display_name"] == name
    again.close()
    inside = {path.name for path in (flat / "store").rglob("*")}
    (scan,) = {name for name in inside if re.fullmatch(r"[A-Za-z0-9_]{1,100}\.nii\.gz", name)} - {
        "mask.nii.gz"
    }
    assert inside <= {
        ".lock", "drafts", "sent", "labels", "about", sent, scan, "about.json", "final",
        "1", "mask.nii.gz",
    }  # fmt: skip


def test_its_name_still_tells_which_sequence_it_is(store, tmp_path):
    for name, sequence in (("6: t2_flair", "FLAIR"), ("MR (5) T1 post Gd/" + "x" * 9, "T1-Gd")):
        path = store.find_image(send(store, tmp_path / "up", name))
        assert find_clue(path).sequence == sequence


def test_the_file_is_moved_and_its_content_kept(store, tmp_path):
    file = write_image(tmp_path / "scan.nii.gz")
    content = file.read_bytes()
    sent = store.send_image(file, "mine", "ann/1")
    assert not file.exists()
    assert store.find_image(sent).read_bytes() == content


@pytest.mark.parametrize("seconds", [1, 0, -3600])
def test_the_same_name_again_is_the_newest_whatever_the_clock_does(
    store, flat, clock, tmp_path, seconds
):
    first = send(store, tmp_path / "up")
    clock.now_s += seconds
    second = send(store, tmp_path / "up")
    assert first != second
    assert store.resolve("mine", "ann/1") == second
    assert store.resolve(first, "ann/1") == first
    store.close()
    again = Store(flat, flat / "store")
    assert again.resolve("mine", "ann/1") == second
    again.close()


def test_what_is_sent_is_that_clients_alone(store, tmp_path):
    sent = send(store, tmp_path / "up")
    assert store.list_images() == ["p1", "p2"]
    for name in ("mine", sent):
        with pytest.raises(NotFoundError, match="one of the 2 that the server lists"):
            store.resolve(name, "bob/1")
    assert store.status()["total"] == 2
    assert sent not in store.json()["objects"]


def test_what_is_shared_is_everybodys_by_our_id(store, tmp_path):
    sent = send(store, tmp_path / "up", shared=True)
    assert store.list_images() == ["p1", "p2", sent]
    assert store.resolve(sent, "bob/1") == sent
    with pytest.raises(NotFoundError):
        store.resolve("mine", "bob/1")
    assert store.end_session("ann/1") == []
    assert store.find_image(sent).is_file()


def test_the_last_thing_that_gave_a_name_counts(store, flat, tmp_path):
    """A client that sent "p1" and then is handed the study p1 means the study."""
    sent = send(store, tmp_path / "up", "p1")
    assert store.resolve("p1", "ann/1") == sent
    assert store.resolve("p1", "bob/1") == "p1"
    store.lease("p1", "ann/1")
    assert store.resolve("p1", "ann/1") == "p1"
    assert store.resolve(sent, "ann/1") == sent
    store.close()
    again = Store(flat, flat / "store")
    assert again.resolve("p1", "ann/1") == "p1"
    again.close()


def test_it_is_deleted_when_the_session_ends_but_its_labels_stay(store, tmp_path):
    mine, theirs = send(store, tmp_path / "up"), send(store, tmp_path / "up", client="bob/1")
    path = store.find_image(mine)
    version = store.submit(mine, write_label(tmp_path / "a.nii.gz", 1), {}, "ann", "ann/1")
    store.update_image_info(mine, {"quality": "good"})
    assert store.end_session("ann/1") == [mine]
    assert not path.parent.exists()
    assert not list((store._folder / "about").iterdir())
    assert store.get_image_uri(mine) == ""
    assert store.find_image(theirs).is_file()
    assert store.list_versions(mine) == [version]
    with pytest.raises(NotFoundError):
        store.submit(mine, write_label(tmp_path / "a.nii.gz", 1), {}, "ann", "ann/1")


def test_a_server_killed_while_it_deletes_leaves_no_scan(store, flat, tmp_path):
    sent = send(store, tmp_path / "up")
    folder = store.find_image(sent).parent
    store.close()
    folder.rename(folder.with_name(f".{sent}"))
    again = Store(flat, flat / "store")
    assert again.get_image_uri(sent) == ""
    assert list(folder.parent.iterdir()) == []
    again.close()


def test_what_is_not_used_expires(store, flat, clock, tmp_path):
    old, used = send(store, tmp_path / "up", "old"), send(store, tmp_path / "up", "used")
    shared = send(store, tmp_path / "up", "shared", shared=True)
    clock.now_s += 100
    store.resolve("used", "ann/1")
    assert store.expire(50) == [old]
    assert store.find_image(shared)
    store.close()
    again = Store(flat, flat / "store", clock)
    assert again.expire(99.9) == [used], "after a restart it is as old as its arrival"
    again.close()


@pytest.mark.parametrize("content", [b"", b"no image", b"NRRD0004\n"])
@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd"])
def test_what_cannot_be_read_is_refused_and_leaves_nothing(store, tmp_path, suffix, content):
    before, file = read_tree(store._folder), tmp_path / f"a{suffix}"
    file.write_bytes(content)
    with pytest.raises(InputError, match="This image was not stored") as error:
        store.send_image(file, "mine", "ann/1")
    assert str(tmp_path) not in str(error.value)
    assert read_tree(store._folder) == before
    with pytest.raises(InputError, match=r"must end in .nii.gz"):
        store.send_image(tmp_path / "a.tar", "mine", "ann/1")


def test_studies_stay_whatever_is_asked(store, flat, tmp_path):
    """The host's own store would write and delete through the links."""
    before = read_tree(tmp_path / "scans")
    for name in ("p1", "p1.nii.gz", "p1.nii"):
        send(store, tmp_path / "up", name)
    store.add_image("p1", str(write_image(tmp_path / "x.nii.gz")), {})
    with pytest.raises(InputError, match="is not deleted from here"):
        store.remove_image("p1")
    with pytest.raises(NotFoundError):
        store.remove_image("p9")
    store.submit("p1", write_label(tmp_path / "a.nii.gz", 1), {}, "ann", "ann/1")
    store.end_session("ann/1")
    store.remove_label("p1", FINAL, "ann")
    assert read_tree(tmp_path / "scans") == before
    assert sorted(path.name for path in flat.iterdir()) == ["p1.nii.gz", "p2.nii.gz", "store"]


def test_a_sent_image_can_be_removed(store, tmp_path):
    sent = send(store, tmp_path / "up", shared=True)
    store.remove_image(sent)
    assert sent not in store.list_images()


class TestNotes:
    def test_a_client_cannot_change_id_name_or_path(self, store, flat):
        before = store.get_image_info("p1")
        wrong = {"id": "p2", "name": "../../..", "path": "/etc/passwd", "image": "p2"}
        store.update_image_info("p1", {**wrong, "quality": "good"})
        assert store.get_image_info("p1") == {**before, "quality": "good"}
        store.close()
        again = Store(flat, flat / "store")
        assert again.get_image_info("p1") == {**before, "quality": "good"}
        again.close()

    def test_an_image_that_there_is_not_has_none(self, store):
        for name in ("p9", "../x", ""):
            with pytest.raises(NotFoundError):
                store.update_image_info(name, {"a": 1})
            assert store.get_image_info(name) == {}

    def test_nor_what_it_is_called(self, store):
        store.update_image_info("p1", {"display_name": "another patient"})
        assert "display_name" not in store.get_image_info("p1")

    def test_torn_notes_are_none(self, store, flat):
        store.update_image_info("p1", {"a": 1})
        (flat / "store/about/p1.json").write_text('{"a": ')
        store.refresh()
        assert "a" not in store.get_image_info("p1")


class TestLeases:
    def test_somebody_else_is_at_work(self, store):
        assert store.lease("p1", "ann/1")
        assert store.leased("p1", "bob/1")
        assert not store.leased("p1", "ann/1")
        assert not store.lease("p1", "bob/1")
        assert store.list_leases() == {"p1": "ann/1"}

    def test_a_lease_ends_after_a_while_and_use_renews_it(self, store, clock):
        store.lease("p1", "ann/1")
        clock.now_s += 899
        store.resolve("p1", "ann/1")
        clock.now_s += 899
        assert store.leased("p1", "bob/1")
        store.resolve("p1", "bob/1")
        clock.now_s += 1
        assert not store.leased("p1", "bob/1")
        assert store.lease("p1", "bob/1")

    def test_submit_and_the_sessions_end_end_it(self, store, tmp_path):
        label = write_label(tmp_path / "a.nii.gz", 1)
        store.lease("p1", "ann/1")
        store.submit("p1", label, {}, "bob", "bob/1")
        assert store.leased("p1", "bob/1"), "she is still at work"
        store.submit("p1", label, {}, "ann", "ann/1")
        assert not store.leased("p1", "bob/1")
        store.lease("p2", "ann/1")
        store.end_session("ann/1")
        assert store.list_leases() == {}


def test_many_threads_lose_nothing(store, tmp_path):
    labels = [write_label(tmp_path / f"{n}.nii.gz", n) for n in range(8)]
    done, taken = [], []

    def work(n):
        if store.lease("p2", f"u{n}/1"):
            taken.append(n)
        done.append(store.submit("p1", labels[n], {}, f"u{n}", f"u{n}/1"))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 1
    assert sorted(v.number for v in done) == list(range(1, 9))
    kept = store.list_versions("p1")
    assert sorted(v.path.read_bytes() for v in kept) == sorted(p.read_bytes() for p in labels)
    assert sum(v.conflict is None for v in kept) == 1


def test_nobody_waits_for_a_slow_disk_who_only_asks(store, tmp_path, monkeypatch):
    """/info and the like must answer while submits wait for the disk."""
    entered, go_on = threading.Event(), threading.Event()
    real = durable.os.fsync

    def wait_for_disk(descriptor):
        entered.set()
        assert go_on.wait(30)
        real(descriptor)

    label = write_label(tmp_path / "a.nii.gz", 1)
    work = threading.Thread(target=lambda: store.submit("p1", label, {}, "ann", "ann/1"))
    with store._writing:  # Somebody else writes, and this one is next
        monkeypatch.setattr(durable.os, "fsync", wait_for_disk)
        work.start()
        assert entered.wait(30)
        answers: list = []
        asking = threading.Thread(
            target=lambda: answers.extend(
                [
                    store.status(), store.json(), store.list_images(), store.list_versions("p1"),
                    store.resolve("p1", "bob/1"), store.get_image_uri("p1"), store.list_leases(),
                    store.get_image_info("p1"), store.note_seen("p1", "bob/1"),
                ]
            )
        )  # fmt: skip
        asking.start()
        asking.join(10)
        assert len(answers) == 9
    go_on.set()
    work.join()
    assert len(store.list_versions("p1")) == 1
