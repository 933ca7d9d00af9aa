"""nnInteractive's own client, as 3D Slicer and napari use it, against a real server."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import blosc2
import httpx
import numpy as np
import pytest

pytest.importorskip("nnInteractive", reason="needs nninteractive-client")

from nnInteractive.inference.remote import nnInteractiveRemoteInferenceSession as Client
from nnInteractive.inference.remote import remote_session
from nnInteractive.inference.remote.serialization import pack_array

from heatmask.serving.corrections import limit_edit
from heatmask.serving.web.routes import nninteractive as routes
from helpers.server import MODEL
from helpers.waiting import PATIENCE_S
from helpers.web import SLOW, Web

SPACING = {"spacing": [4.0, 1.5, 1.25]}  # along (z, y, x), as Slicer sends it
SHAPE = (14, 52, 60)


def make_image() -> tuple[np.ndarray, np.ndarray]:
    """Return a head with a bright lesion (1, Z, Y, X), and the lesion (Z, Y, X)."""
    image = np.zeros(SHAPE, np.float32)
    image[1:13, 5:47, 6:54] = 100 + np.random.default_rng(0).normal(0, 3, (12, 42, 48))
    lesion = np.zeros(SHAPE, bool)
    lesion[4:8, 8:20, 30:46] = True
    image[lesion] += 250
    return image[None], lesion


IMAGE, LESION = make_image()
INSIDE, OUTSIDE = [5, 14, 38], [9, 35, 20]


@contextmanager
def connect(web: Web, model: str = "none", image: np.ndarray = IMAGE) -> Iterator[Client]:
    """Give a client with an image and an empty target buffer."""
    with Client(f"{web.url}/nninteractive/{model}") as client:
        client.set_image(image, SPACING)
        client.set_target_buffer(np.zeros(image.shape[1:], np.uint8))
        yield client


def measure_dice(mask: np.ndarray, truth: np.ndarray = LESION) -> float:
    return 2 * np.count_nonzero(mask[truth]) / (np.count_nonzero(mask) + np.count_nonzero(truth))


def refuse(text: str, status: int = 400):
    """Expect a refusal whose detail holds a text, as viewers show it."""

    @contextmanager
    def expect():
        with pytest.raises(httpx.HTTPStatusError) as caught:
            yield
        answer = caught.value.response
        assert (answer.status_code, text in answer.json()["detail"]) == (status, True), answer.text

    return expect()


def test_an_object_is_segmented_without_a_model(web: Web) -> None:
    with connect(web) as client:
        assert client.ping()
        assert client.original_image_shape == IMAGE.shape
        assert client.supported_interactions["lasso"]
        assert client.license == "Apache-2.0, no model"
        buffer = client.target_buffer
        box = client.add_point_interaction(INSIDE, True)
        assert measure_dice(buffer) > 0.9
        assert buffer[tuple(slice(*part) for part in box)].any()
        client.add_point_interaction(OUTSIDE, True)
        assert buffer[tuple(OUTSIDE)] == 1
        client.add_point_interaction(OUTSIDE, False)
        assert buffer[tuple(OUTSIDE)] == 0
        assert client.lease_status()["remaining_seconds"] > 3000


def test_undo_goes_back_to_the_beginning_and_reset_begins_another_object(web: Web) -> None:
    with connect(web) as client:
        buffer, states = client.target_buffer, []
        for point, positive in ((INSIDE, True), (OUTSIDE, True), (OUTSIDE, False)):
            states.append(buffer.copy())
            client.add_point_interaction(point, positive)
        for before in reversed(states):
            assert client.undo()
            np.testing.assert_array_equal(buffer, before)
        assert not client.undo()
        client.add_point_interaction(INSIDE, True)
        client.reset_interactions()
        assert not buffer.any()
        client.add_point_interaction(OUTSIDE, True)
        assert not buffer[LESION].any(), "the first object is forgotten"


def test_a_box_in_one_slice_becomes_an_object_in_all(web: Web) -> None:
    """3D Slicer's box and lasso are flat."""
    with connect(web) as client:
        client.add_bbox_interaction([[5, 6], [5.0, 23.0], [27.0, 49.0]], True)
        assert measure_dice(client.target_buffer) > 0.85
        assert client.undo()
        assert not client.target_buffer.any()


def test_scribbles_and_lassos_come_in_a_box_of_their_own_or_in_an_image(web: Web) -> None:
    stroke = np.zeros(SHAPE, np.uint8)
    stroke[5, 14, 32:44] = 1
    with connect(web) as client, connect(web) as other:
        client.add_scribble_interaction(stroke, True)
        crop = stroke[5:6, 14:15, 30:46]
        other.add_scribble_interaction(crop, True, interaction_bbox=[[5, 6], [14, 15], [30, 46]])
        np.testing.assert_array_equal(client.target_buffer, other.target_buffer)
        assert client.target_buffer[stroke == 1].all()
        lasso = np.zeros(SHAPE, bool)
        lasso[5:7, 8:20, 30:38] = True
        before = client.target_buffer.copy()
        client.add_lasso_interaction(lasso, False)
        assert not (before != client.target_buffer)[~lasso].any(), "only inside the lasso"


def test_a_segmentation_of_the_clients_is_corrected(web: Web) -> None:
    with connect(web) as client:
        half = LESION.copy()
        half[..., 38:] = False
        client.add_initial_seg_interaction(half.astype(np.uint8))
        np.testing.assert_array_equal(client.target_buffer, half)
        client.add_point_interaction([5, 14, 42], True)
        assert (client.target_buffer[half] == 1).all()
        assert measure_dice(client.target_buffer) > 0.9
        assert client.undo()
        np.testing.assert_array_equal(client.target_buffer, half)


def test_interactions_without_an_answer_are_answered_by_the_next_one(web: Web) -> None:
    with connect(web) as client:
        assert client.add_point_interaction(INSIDE, True, run_prediction=False) is None
        assert not client.target_buffer.any()
        assert client._predict() is not None
        assert measure_dice(client.target_buffer) > 0.9


def test_wrong_edits_are_refused_and_nothing_is_lost(web: Web) -> None:
    with connect(web) as client:
        client.add_point_interaction(INSIDE, True)
        before = client.target_buffer.copy()
        with refuse("14 x 52 x 60 voxels"):
            client.add_point_interaction([14, 0, 0], True)
        with refuse("14 x 52 x 60 voxels"):
            client.add_point_interaction([-1, 0, 0], True)
        with refuse("must hold voxels of the image"):
            client.add_bbox_interaction([[20, 30], [0, 5], [0, 5]], True)
        with refuse("must have the 14 x 52 x 60 voxels of the image, got 3 x 4 x 5"):
            client.add_scribble_interaction(np.ones((3, 4, 5), np.uint8), True)
        with refuse("must have the 2 x 2 x 2 voxels of its box"):
            box = [[0, 2], [0, 2], [0, 2]]
            client.add_lasso_interaction(np.ones((1, 2, 2), bool), True, interaction_bbox=box)
        with refuse("at least one voxel"):
            client.add_scribble_interaction(np.zeros(SHAPE, np.uint8), True)
        with refuse("target buffer must have the image's 14 x 52 x 60 voxels, got 3 x 4 x 5"):
            client.set_target_buffer(np.zeros((3, 4, 5), np.uint8))
        client.target_buffer = before.copy()
        client.add_point_interaction(INSIDE, True)
        assert client.target_buffer[before == 1].all()


def test_an_edit_that_takes_too_long_is_refused_and_nothing_is_lost(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    lasso = np.zeros(SHAPE, bool)
    lasso[5, 8:20, 30:46] = True
    steps = 0

    @contextmanager
    def limit_steps() -> Iterator[None]:
        left = iter(range(steps))
        with limit_edit(lambda *_: None if next(left, None) is not None else time_out()):
            yield

    def time_out() -> None:
        with limit_edit(seconds=0):
            pass

    with connect(web) as client, monkeypatch.context() as patch:
        patch.setattr(routes, "limit_edit", limit_steps)
        for last in range(0, 40, 3):  # in the lasso's own slice, then as it grows into others
            steps = last
            with refuse("took longer and was not made"):
                client.add_lasso_interaction(lasso, True)
            steps = 1000
            assert not client.undo()
        client.add_lasso_interaction(lasso, True)
        assert measure_dice(client.target_buffer) > 0.85
        assert client.undo()
        assert not client.target_buffer.any()


@pytest.mark.parametrize(
    ("image", "text"),
    [
        (np.full((1, 3, 4, 5), np.nan, np.float32), "The scan must be finite"),
        (np.zeros((4, 5, 6), np.float32), "An image must be (C, X, Y, Z), got (4, 5, 6)"),
        (np.zeros((1, 3, 4, 5), np.complex64), "must hold numbers, got the type 'complex64'"),
    ],
    ids=["NaN", "3 axes", "complex"],
)
def test_an_image_that_cannot_be_edited_leaves_the_earlier_one(
    web: Web, image: np.ndarray, text: str
) -> None:
    with connect(web) as client:
        with refuse(text):
            client._post_binary("/set_image", {}, pack_array(image))
        client.add_point_interaction(INSIDE, True)
        assert measure_dice(client.target_buffer) > 0.9


def test_another_image_begins_anew(web: Web) -> None:
    with connect(web) as client:
        client.add_point_interaction(INSIDE, True)
        client.set_image(IMAGE[:, :, :40], SPACING)
        with refuse("14 x 40 x 60 voxels"):
            client.add_point_interaction([5, 45, 38], True)
        assert not client.undo(), "the edits of the former image are none of this one"
        with refuse("target buffer must have"):
            client.set_target_buffer(np.zeros(SHAPE, np.uint8))


@pytest.mark.parametrize(
    "meta",
    ["{", "[1]", '{"image_properties": {"spacing": [1, 0, 1]}}',
     '{"image_properties": {"spacing": [1, 1]}}', '{"image_properties": {"affine": [[1]]}}',
     '{"image_properties": {"spacing": [1, 1, 1e999]}}'],
)  # fmt: skip
def test_wrong_properties_are_refused_with_what_is_wrong(web: Web, meta: str) -> None:
    with connect(web) as client:
        answer = client._http.post(
            "/set_image", content=pack_array(IMAGE), headers={"X-Meta": meta}
        )
        assert answer.status_code == 422, answer.text
        assert len(answer.json()["detail"]) > 15


def test_what_claims_more_than_it_holds_is_refused_before_it_is_unpacked(web: Web) -> None:
    huge = pack_array(np.zeros((1, 8, 8, 8), np.float32))
    sizes = huge.index(b"float32") + len(b"float32")
    with connect(web) as client:
        for size, status in ((10**7, 413), (-1, 400), (9, 400)):
            wrong = huge[: sizes + 8] + size.to_bytes(8, "little", signed=True) + huge[sizes + 16 :]
            answer = client._http.post("/set_image", content=wrong)
            assert (answer.status_code, "detail" in answer.json()) == (status, True)
        bomb = blosc2.compress2(np.zeros(10**8, np.uint8), typesize=1)  # 32 bytes
        start = huge[: sizes + 32] + (1).to_bytes(4, "little")
        for claimed in (2048, 10**8):
            numbers = claimed.to_bytes(8, "little") + len(bomb).to_bytes(8, "little")
            answer = client._http.post("/set_image", content=start + numbers + bomb)
            assert (answer.status_code, answer.json()["detail"]) == (
                400, "The array is cut off or damaged. Send it again.",
            )  # fmt: skip
        client.add_point_interaction(INSIDE, True)


def test_a_lease_is_of_one_person_and_ends(own_web: Web) -> None:
    web = own_web
    with connect(web) as client:
        leases, now = web.serving.leases, [0.0]
        assert httpx.post(f"{web.url}/nninteractive/undo").status_code == 410, "no lease"
        leases._clock = lambda: now[0]
        lease = next(iter(leases._leases.values()))
        lease.active = lease.seen = 0.0
        for _ in range(100):
            now[0] += 50
            if now[0] < web.serving.limits.idle_s:
                assert client.heartbeat() == web.serving.limits.idle_s - now[0]
        with pytest.raises(remote_session.SessionExpiredError, match="what you have segmented"):
            client.add_point_interaction(INSIDE, True)


def test_a_client_that_is_gone_makes_room(own_web: Web) -> None:
    leases, limits = own_web.serving.leases, own_web.serving.limits
    clients = [Client(f"{own_web.url}/nninteractive") for _ in range(limits.editors)]
    with pytest.raises(remote_session.ServerAtCapacityError, match="16 clients edit already"):
        Client(f"{own_web.url}/nninteractive")
    clients[0].close()
    Client(f"{own_web.url}/nninteractive").close()
    for lease in leases._leases.values():
        lease.seen -= limits.liveness_s + 1
    Client(f"{own_web.url}/nninteractive").close()
    with pytest.raises(remote_session.SessionExpiredError):
        clients[1].heartbeat()
    for client in clients:
        client.close()


def test_two_people_edit_one_image_each_alone(web: Web) -> None:
    with connect(web) as one, connect(web) as other:
        threads = [
            threading.Thread(target=client.add_point_interaction, args=(point, True))
            for client, point in ((one, INSIDE), (other, OUTSIDE))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert one.target_buffer[tuple(INSIDE)]
        assert not one.target_buffer[tuple(OUTSIDE)]
        assert other.target_buffer[tuple(OUTSIDE)]
        assert not other.target_buffer[tuple(INSIDE)]


def test_edits_at_once_wait_for_one_another(web: Web) -> None:
    with connect(web) as client:
        points = [[5, 12, 32], [5, 16, 44], [6, 14, 38]]
        threads = [
            threading.Thread(target=client.add_point_interaction, args=(point, True, False))
            for point in points
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        client._predict()
        assert all(client.target_buffer[tuple(point)] for point in points)


def test_an_edit_does_not_wait_for_a_run(web: Web) -> None:
    with connect(web, MODEL) as client, web.slow.hold():
        path = f"{web.url}/infer/{SLOW}?image=p2-flair"
        run = threading.Thread(
            target=httpx.post,
            args=(path,),
            kwargs={"data": {"params": '{"job": "endless-2"}'}, "timeout": 300},
        )
        run.start()
        assert web.slow.running.wait(PATIENCE_S)
        client.add_point_interaction(INSIDE, True)
        assert measure_dice(client.target_buffer) > 0.9
        assert web.send("GET", "/jobs/endless-2").json()["state"] == "running"
        web.send("DELETE", "/jobs/endless-2")
        run.join()


def test_an_unknown_model_is_said_to_be_unknown(web: Web) -> None:
    with refuse("There is no model 'other'", 404):
        Client(f"{web.url}/nninteractive/other")


def test_the_first_edit_brings_the_piece_of_the_pseudo_mask_that_it_touches(web: Web) -> None:
    stroke = np.zeros(SHAPE, np.uint8)
    stroke[6, 14, 26:34] = 1  # from outside the lesion into it
    with connect(web, MODEL) as client:
        assert client.license == "Nobody's data: free, non-commercial."
        client.add_point_interaction(INSIDE, True)
        piece = client.target_buffer.copy()
        assert measure_dice(piece) > 0.9
        client.add_point_interaction([5, 14, 32], False)
        assert client.target_buffer[5, 14, 32] == 0
        assert client.undo()
        np.testing.assert_array_equal(client.target_buffer, piece)
        assert client.undo()
        assert not client.target_buffer.any()
        client.add_scribble_interaction(stroke, True)
        np.testing.assert_array_equal(client.target_buffer, piece | stroke)
        client.reset_interactions()
        client.add_point_interaction(OUTSIDE, True)
        assert not client.target_buffer[LESION].any(), "another object"


def test_an_affine_is_taken_from_whoever_has_one(web: Web) -> None:
    """As a script sends a NIfTI: (x, y, z), here towards left, back and top."""
    affine = np.diag([-1.25, -1.5, 4.0, 1.0])
    with Client(f"{web.url}/nninteractive") as client, connect(web, MODEL) as slicer:
        client.set_image(IMAGE.transpose(0, 3, 2, 1), {"affine": affine})
        client.set_target_buffer(np.zeros(SHAPE[::-1], np.uint8))
        client.add_point_interaction(INSIDE[::-1], True)
        slicer.add_point_interaction(INSIDE, True)
        np.testing.assert_array_equal(client.target_buffer, slicer.target_buffer.T)


def test_an_image_that_the_model_does_not_take_is_edited_without_it(web: Web) -> None:
    empty = np.zeros((1, 20, 20, 6), np.float32)
    with Client(f"{web.url}/nninteractive") as client:
        answer = client._post_binary("/set_image", {}, pack_array(empty)).json()
        assert answer["model"] == "", answer
        assert len(answer["warnings"][0]) > 20
        client.set_target_buffer(np.zeros(empty.shape[1:], np.uint8))
        client.add_point_interaction([9, 9, 3], True)
        assert client.target_buffer[9, 9, 3] == 1
