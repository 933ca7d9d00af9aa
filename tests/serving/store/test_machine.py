"""Random orders of what clients do, against a model in memory."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from heatmask.errors import InputError, NotFoundError
from heatmask.serving.store import FINAL, ORIGINAL, Store
from helpers.store_files import write_image, write_label, write_studies

IMAGES, CLIENTS = ("p1", "p2"), ("ann/1", "ann/2", "bob/1")
image, client = st.sampled_from(IMAGES), st.sampled_from(CLIENTS)
name = st.sampled_from(("p1", "6: t2_flair", ""))


class StoreMachine(RuleBasedStateMachine):
    """What is answered is kept, in order, whatever comes between."""

    def __init__(self) -> None:
        super().__init__()
        self.place = tempfile.TemporaryDirectory()
        folder = Path(self.place.name)
        self.flat = write_studies(folder, IMAGES)
        self.files = [write_label(folder / f"{n}.nii.gz", n) for n in range(6)]
        self.folder, self.now = folder, 0.0
        self.store = self.open()
        # The model: (content, person) of every version, None for a removal; which a client saw;
        # who is at work; and what names mean.
        self.versions = {(i, tag): [] for i in IMAGES for tag in (FINAL, ORIGINAL)}
        self.seen: dict[tuple[str, str], int] = {}
        self.leases: dict[str, tuple[str, float]] = {}
        self.sent: dict[str, tuple[str, str, bool]] = {}

    def open(self) -> Store:
        return Store(self.flat, self.flat / "store", lambda: self.now)

    def teardown(self) -> None:
        self.store.close()
        self.place.cleanup()

    def find_holder(self, image: str) -> str | None:
        holder, end = self.leases.get(image, ("", 0.0))
        return holder if self.now < end else None

    @rule(image=image, client=client, n=st.integers(0, 5))
    def submit(self, image, client, n):
        person, past = client.split("/")[0], self.versions[image, FINAL]
        own = [k for k, (_, _, by) in enumerate(past, 1) if by == client]
        unseen = past[max([self.seen.get((image, client), 0), *own]) :]
        version = self.store.submit(image, self.files[n], {}, person, client)
        expected = ", ".join(dict.fromkeys(by_whom for _, by_whom, _ in unseen)) or None
        assert version.conflict == expected
        past.append((self.files[n].read_bytes(), person, client))
        self.seen[image, client] = len(past)
        if self.find_holder(image) == client:
            del self.leases[image]

    @rule(image=image, n=st.integers(0, 5))
    def prelabel(self, image, n):
        self.store.prelabel(image, self.files[n], {}, "unet", {})
        self.versions[image, ORIGINAL].append((self.files[n].read_bytes(), "", ""))

    @rule(image=image, garbage=st.binary(max_size=20))
    def submit_garbage(self, image, garbage):
        (self.folder / "x.nii.gz").write_bytes(garbage)
        with pytest.raises(InputError):
            self.store.submit(image, self.folder / "x.nii.gz", {}, "eve", "eve/1")

    @rule(image=image, number=st.integers(0, 5))
    def restore(self, image, number):
        past = self.versions[image, FINAL]
        if 1 <= number <= len(past) and past[number - 1][0] is not None:
            self.store.restore(image, number, "zoe")
            past.append((past[number - 1][0], "zoe", ""))
        else:
            with pytest.raises(NotFoundError):
                self.store.restore(image, number, "zoe")

    @rule(image=image, tag=st.sampled_from((FINAL, ORIGINAL)))
    def remove_label(self, image, tag):
        past = self.versions[image, tag]
        if past and past[-1][0] is not None:
            self.store.remove_label(image, tag, "zoe")
            past.append((None, "zoe", ""))
        else:
            with pytest.raises(NotFoundError):
                self.store.remove_label(image, tag, "zoe")

    @rule(image=image, client=client)
    def note_seen(self, image, client):
        self.store.note_seen(image, client)
        self.seen[image, client] = len(self.versions[image, FINAL])

    @rule(image=image, client=client)
    def lease(self, image, client):
        free = self.find_holder(image) in (None, client)
        assert self.store.lease(image, client) == free
        if free:
            self.leases[image] = (client, self.now + 900)
            for key, (sender, given, _) in self.sent.items():
                if (sender, given) == (client, image):
                    self.sent[key] = (sender, given, False)

    @rule(seconds=st.sampled_from((1.0, 500.0, 900.0)))
    def wait(self, seconds):
        self.now += seconds

    @rule(client=client, name=name)
    def send(self, client, name):
        image = self.store.send_image(write_image(self.folder / "up.nii.gz"), name, client)
        self.sent[image] = (client, name, True)

    @rule(client=client, name=name)
    def resolve(self, client, name):
        meant = [k for k, v in self.sent.items() if v == (client, name, True)]
        expected = meant[-1] if meant else name if name in IMAGES else None
        if expected is None:
            with pytest.raises(NotFoundError):
                self.store.resolve(name, client)
        else:
            assert self.store.resolve(name, client) == expected
            if self.find_holder(expected) == client:
                self.leases[expected] = (client, self.now + 900)

    @precondition(lambda self: self.sent)
    @rule(client=client)
    def end_session(self, client):
        ended = self.store.end_session(client)
        assert sorted(ended) == sorted(k for k, v in self.sent.items() if v[0] == client)
        self.sent = {k: v for k, v in self.sent.items() if v[0] != client}
        self.leases = {i: v for i, v in self.leases.items() if v[0] != client}

    @rule()
    def reopen(self):
        self.store.close()
        self.store = self.open()
        self.seen.clear()
        self.leases.clear()

    @invariant()
    def everything_answered_is_there(self):
        for (image, tag), past in self.versions.items():
            kept = self.store.list_versions(image, tag)
            assert [v.number for v in kept] == list(range(1, len(past) + 1))
            assert [v.person for v in kept] == [person for _, person, _ in past]
            contents = [None if v.removed else v.path.read_bytes() for v in kept]
            assert contents == [content for content, _, _ in past]
            current = self.store.get_label_uri(image, tag)
            assert (current == "") == (not past or past[-1][0] is None)
        assert self.store.list_images() == list(IMAGES)
        assert all(self.store.find_image(image).is_file() for image in self.sent)
        drafts = self.flat / "store" / "drafts"
        assert not drafts.exists() or not list(drafts.iterdir())

    @invariant()
    def who_is_at_work_is_known(self):
        holders = {i: self.find_holder(i) for i in self.leases if self.find_holder(i)}
        assert self.store.list_leases() == holders


def run(examples: int, steps: int) -> None:
    quick = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(StoreMachine, settings=quick)


def test_random_orders_of_what_clients_do():
    run(examples=12, steps=25)


@pytest.mark.slow
def test_many_random_orders_of_what_clients_do():
    run(examples=200, steps=50)
