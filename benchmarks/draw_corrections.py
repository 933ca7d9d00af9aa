"""Draw the figures of docs/how-to/correct.md: ``python benchmarks/draw_corrections.py``.

A real server on the head of `heatmask demo` is asked by MONAI Label's and nnInteractive's own
clients; a played user clicks into the middle of the largest error.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
from local_server import run_server
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from monailabel.client.client import MONAILabelClient
from nnInteractive.inference.remote import nnInteractiveRemoteInferenceSession as Client
from numpy.typing import NDArray

from heatmask.demo import IMAGE, REFERENCE
from heatmask.experiments.simulated_user import place_click

MODEL = "brain_mri_gp_unet_segmentation"
IMAGES = Path(__file__).parents[1] / "docs/images"
FORMAT = {"result_extension": ".nii.gz"}
SEGMENTS = {"tumour": 1, "background_scribbles": 2, "foreground_scribbles": 3}
GREEN, RED = "#37d67a", "#ff5a5f"

Mask = NDArray[np.bool_]
SCAN = np.asarray(nib.load(IMAGE).dataobj, np.float32)
AFFINE = nib.load(IMAGE).affine
SPACING_MM = tuple(map(float, nib.load(IMAGE).header.get_zooms()[:3]))
TRUTH: Mask = np.asarray(nib.load(REFERENCE).dataobj) > 0


@dataclass
class Answer:
    """A mask, what was said to get it, and how long that took with the way there and back."""

    title: str
    mask: Mask
    seconds: float
    said: list[tuple[NDArray[np.intp], bool]] = field(default_factory=list)


def main() -> None:
    """Ask, draw, and print what is in the figures."""
    with tempfile.TemporaryDirectory() as folder, serve_head(Path(folder)) as url:
        slicer = MONAILabelClient(url, tmpdir=folder)
        answers = {
            "correct_scribbles.png": ask_scribbles(slicer, Path(folder)),
            "correct_clicks.png": ask_clicks(slicer),
            "correct_nninteractive.png": [
                *ask_nninteractive(f"{url}/nninteractive/{MODEL}"),
                *ask_without_model(f"{url}/nninteractive/none"),
            ],
        }
    for name, some in answers.items():
        draw(some).savefig(IMAGES / name, dpi=90)
        for answer in some:
            print(f"{name}: {describe(answer)}, {answer.seconds:.1f} s".replace("\n", ", "))


def ask_scribbles(client: MONAILabelClient, folder: Path) -> list[Answer]:
    """Run, then paint over what is wrong, as the panel of scribbles sends it."""
    answers = [ask("Run", infer, client, MODEL, {})]
    painted = {True: np.zeros_like(TRUTH), False: np.zeros_like(TRUTH)}
    for _ in range(2):
        mask = answers[-1].mask
        stroke, positive = paint_line(mask)
        painted[positive] |= stroke
        volume = np.where(mask, 1, 0)
        volume[painted[False]], volume[painted[True]] = 2, 3
        file = folder / "segments.nii.gz"
        nib.save(nib.Nifti1Image(volume.astype(np.uint8), AFFINE), file)
        request = {
            "label_info": [{"name": name, "id": value} for name, value in SEGMENTS.items()],
            "selected_label_name": "tumour",
        }
        answer = ask("Scribble", infer, client, f"{MODEL}_scribbles", request, file)
        answers.append(answer)
        answer.said.append((np.argwhere(stroke), positive))
    return answers


def ask_clicks(client: MONAILabelClient) -> list[Answer]:
    """Click three times, as Smart Edit sends it: all clicks so far with each."""
    clicks: dict[bool, list[list[int]]] = {True: [], False: []}
    answers = [ask("No click yet", infer, client, f"{MODEL}_clicks", {"label": "tumour"})]
    for _ in range(3):
        edit = place_click(answers[-1].mask, TRUTH, SPACING_MM)
        clicks[edit.positive] += edit.voxels.tolist()
        request = {"label": "tumour", "foreground": clicks[True], "background": clicks[False]}
        answer = ask("Click", infer, client, f"{MODEL}_clicks", request)
        answers.append(answer)
        answer.said.append((edit.voxels, edit.positive))
    return answers


def ask_nninteractive(url: str) -> list[Answer]:
    """Click with a model: the first click brings the piece of its pseudo-mask."""
    answers: list[Answer] = []
    with connect(url) as client:
        for title in ("First click: the pseudo-mask", "Next click"):
            mask = answers[-1].mask if answers else np.zeros_like(TRUTH)
            edit = place_click(mask, TRUTH, SPACING_MM)
            point = edit.voxels[0].tolist()
            answer = ask(title, edit_buffer, client, "point", point, edit.positive)
            answers.append(answer)
            answer.said.append((edit.voxels, edit.positive))
    return answers


def ask_without_model(url: str) -> list[Answer]:
    """Draw a box in one slice, without a model."""
    middle = int(np.bincount(np.nonzero(TRUTH)[2]).argmax())
    inside = np.argwhere(TRUTH[..., middle])
    (x, y), (x1, y1) = inside.min(axis=0) - 4, inside.max(axis=0) + 5
    box = [[int(x), int(x1)], [int(y), int(y1)], [middle, middle + 1]]
    corners = np.array([[x, y, middle], [x1, y, middle], [x1, y1, middle], [x, y1, middle]])
    with connect(url) as client:
        answer = ask("No model: a box in one slice", edit_buffer, client, "bbox", box, True)
    answer.said.append((corners, True))
    return [answer]


@contextmanager
def connect(url: str) -> Iterator[Client]:
    with Client(url) as client:
        client.set_image(SCAN[None], {"spacing": SPACING_MM, "affine": AFFINE})
        client.set_target_buffer(np.zeros(SCAN.shape, np.uint8))
        yield client


def ask(title: str, request: Callable[..., Mask], *arguments: object) -> Answer:
    start = time.perf_counter()
    mask = request(*arguments)
    return Answer(title, mask, time.perf_counter() - start)


def infer(client: MONAILabelClient, model: str, params: dict, file: Path | None = None) -> Mask:
    answer, _ = client.infer(model, "phantom-flair", {**FORMAT, **params}, file and str(file))
    return np.asarray(nib.load(answer).dataobj) > 0


def edit_buffer(client: Client, kind: str, where: object, positive: bool) -> Mask:
    getattr(client, f"add_{kind}_interaction")(where, positive)
    return client.target_buffer > 0


def paint_line(mask: Mask) -> tuple[Mask, bool]:
    """Return a stroke along the longest row of the slice with the largest error, and its sign."""
    edit = place_click(mask, TRUTH, SPACING_MM)
    _, y, z = edit.voxels[0]
    wrong = np.flatnonzero((TRUTH & ~mask if edit.positive else mask & ~TRUTH)[:, y, z])
    stroke = np.zeros_like(mask)
    stroke[wrong, y, z] = True
    return stroke, edit.positive


def describe(answer: Answer) -> str:
    dice = 2 * (answer.mask & TRUTH).sum() / (answer.mask.sum() + TRUTH.sum())
    return f"{answer.title}\nDice {dice:.2f}"


def draw(answers: Sequence[Answer]) -> Figure:
    """Return the figure: each answer on the slice of what was said last."""
    figure = Figure(figsize=(2.9 * len(answers), 3.6), facecolor="white", layout="constrained")
    for axis, answer in zip(figure.subplots(1, len(answers)), answers, strict=True):
        said = answer.said or answers[1].said
        draw_slice(axis, answer, int(said[0][0][0, 2]))
        axis.set_title(describe(answer), fontsize=9)
    figure.supxlabel(
        "The synthetic head of `heatmask demo`. Blue: the mask; white: the lesion; said by the "
        "user: green, it belongs to the lesion; red, it does not.",
        fontsize=8,
    )
    return figure


def draw_slice(axis: Axes, answer: Answer, index: int) -> None:
    half, (x, y) = 48, np.argwhere(TRUTH)[:, :2].mean(axis=0)
    axis.imshow(SCAN[..., index].T, cmap="gray", vmax=np.percentile(SCAN, 99.8))
    for mask, colour, width in ((TRUTH, "white", 0.8), (answer.mask, "#35d0ff", 1.5)):
        if mask[..., index].any():
            axis.contour(mask[..., index].T, [0.5], colors=colour, linewidths=width)
    for voxels, positive in answer.said:
        colour = GREEN if positive else RED
        if len(voxels) == 4:
            axis.plot(*voxels[[0, 1, 2, 3, 0], :2].T, color=colour, linewidth=1.5)
        else:
            axis.plot(*voxels[:, :2].T, "o", color=colour, markersize=3 if len(voxels) > 1 else 6)
    axis.set(xlim=(x - half, x + half), ylim=(y + half, y - half), xticks=[], yticks=[])


@contextmanager
def serve_head(folder: Path) -> Iterator[str]:
    """Serve the head of `heatmask demo`."""
    studies = folder / "studies" / "phantom"
    studies.mkdir(parents=True)
    (studies / "phantom-flair.nii.gz").symlink_to(IMAGE)
    with run_server(folder) as url:
        yield url


if __name__ == "__main__":
    main()
