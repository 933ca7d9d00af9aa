"""How a bundle does on synthetic heads, with a known lesion and without: not a patient among them.

``python benchmarks/phantoms.py [--first 1300] [--count 20]``
"""

from typing import Annotated

import numpy as np
import torch
import typer
from monai.data import MetaTensor
from phantom import Phantom, make_phantom
from rich.progress import track

from heatmask.bundle import DEFAULT_BUNDLE, find_bundle, read_bundle, run_bundle
from heatmask.experiments.overlap import score_mask
from heatmask.geometry import measure_spacing_mm
from heatmask.pipeline import Pipeline


def main(
    first: Annotated[int, typer.Option(help="First seed.")] = 1300,
    count: Annotated[int, typer.Option(min=1, help="Number of heads.")] = 20,
    bundle: Annotated[str, typer.Option(help="Name or folder of a bundle.")] = DEFAULT_BUNDLE,
) -> None:
    """Print the Dice with lesion, and how many heads without one are called tumour."""
    parser = read_bundle(find_bundle(bundle))
    parser["dataset"], parser["writer"] = [], None
    pipeline = run_bundle(parser, "evaluator")
    dice, false_ml = [], []
    for seed in track(range(first, first + count), "Synthetic heads"):
        dice.append(score(pipeline, make_phantom(seed))["dice"])
        false_ml.append(score(pipeline, make_phantom(seed, lesion=False)))
    called = [scores for scores in false_ml if scores["probability"] >= 0.5]
    largest = max(scores["mask_ml"] for scores in false_ml)
    print(f"{count} heads, seeds {first} to {first + count - 1}")
    print(
        f"with lesion: Dice mean {np.mean(dice):.2f}, median {np.median(dice):.2f}, "
        f"lowest {min(dice):.2f}"
    )
    print(f"without: {len(called)} called tumour (p >= 0.5), largest mask {largest:.1f} ml")


def score(pipeline: Pipeline, phantom: Phantom) -> dict[str, float]:
    """Return `score_mask` of a phantom and the probability of a tumour."""
    volume = MetaTensor(torch.from_numpy(phantom.image)[None], affine=phantom.affine)
    result = pipeline(volume, str(phantom.seed))
    spacing = measure_spacing_mm(phantom.affine)
    scores = score_mask(np.asarray(result.mask[0]), phantom.lesion, spacing)
    return {**scores, "probability": float(result.probabilities.max())}


if __name__ == "__main__":
    typer.run(main)
