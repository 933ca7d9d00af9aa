"""Dice after 1 to 10 corrected patients: ``python benchmarks/learning_curve.py DATA OUT``.

The validation masks of the LGG set play the corrections, in an order that the seed draws; Dice is
that of the test patients, per volume, on the network's grid (2 mm pixels). All scans of the
training and validation split are there with their slice labels, as uncorrected ones are in a
store. What is computed is kept in OUT, and a run that was stopped goes on; ``--draw FIGURE`` draws
what there is. With ``--order STRATEGY`` the corrections of the way joint come in the order in
which a strategy of Next Sample would bring the validation patients, and not in a random one.
"""

import argparse
import csv
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from heatmask.bundle import find_bundle
from heatmask.data.labels import read_slice_labels
from heatmask.experiments.bootstrap import bootstrap_mean
from heatmask.experiments.few_masks import train_unet
from heatmask.learning.examples import Examples, join_examples
from heatmask.learning.fit import fit, start_segmentation
from heatmask.learning.reading import ExampleReader
from heatmask.learning.scans import CorrectedMask, LearnScan
from heatmask.learning.settings import LearnSettings
from heatmask.masks.clean import clean_mask
from heatmask.networks.gp_unet import GPUNet
from heatmask.networks.weights import load_weights
from heatmask.pipeline import Pipeline
from heatmask.report.score import measure_difference, score_scan

BUNDLE = "brain_mri_gp_unet_segmentation"
SIZES = (3, 10, 1, 5)
SIZE = (96, 112)
"""Pixels: holds every lesion of the set, and takes two thirds of the time of 128 x 128."""
UNET_SLICES = 2048
"""Shown to the U-Net that is trained on the corrected masks alone."""
ORDERED_SIZES = (3, 1, 5)
JUDGES = (
    BUNDLE, "brain_mri_gp_shuffle_unet_segmentation", "brain_mri_flair_selftrained_segmentation",
)  # fmt: skip
"""Whose results the strategies look at, the first choice first."""
ORDERS = ("least_certain", "largest_lesion", "most_disagreement", "most_different")
COLUMNS = ("method", "corrected", "seed", "patient", "dice", "cpu_s")
NAMES = {
    "pseudo": "pseudo-masks alone",
    "unet": "U-Net on the corrected masks alone",
    "joint": "(a) joint",
    "segmentation": "(b) segmentation",
    "segmentation_dea": "(b) with attribution augmentation",
    "joint_dea": "(a) with attribution augmentation",
    **{f"joint:{order}": f"(a) by {order.replace('_', ' ')}" for order in ORDERS},
}


class Curve:
    """The methods on one data set, and their rows.

    Parameters
    ----------
    data, out
        The LGG set; where rows, examples and checkpoints are kept.
    """

    def __init__(self, data: Path, out: Path) -> None:
        self.data, self.out, self.table = data, out, out / "learning_curve.csv"
        out.mkdir(parents=True, exist_ok=True)
        self.pipeline = Pipeline.from_bundle(BUNDLE, device="cpu")
        self.reader = ExampleReader(self.pipeline, SIZE, out / "examples", with_attributions=True)
        self.labels = read_slice_labels(data / "slice_labels.csv")
        with (data / "patients.csv").open(encoding="utf-8") as file:
            self.splits = {row["patient"]: row["split"] for row in csv.DictReader(file)}
        self.plain = {p: self.reader.read(self.describe(p)) for p in self.splits}
        masked = [p for p, split in self.splits.items() if split != "train"]
        self.masks = {p: self.reader.correct(self.describe(p), self.plain[p])[0] for p in masked}

    def describe(self, patient: str) -> LearnScan:
        """Return a patient's scan, with its mask where it may be seen."""
        folder = self.data / patient
        mask = folder / f"{patient}-seg.nii.gz"
        correction = CorrectedMask(mask) if mask.is_file() else None
        image = str(folder / f"{patient}-t2f.nii.gz")
        return LearnScan(patient, patient, image, None, self.labels[patient], correction)

    def list_split(self, *splits: str) -> list[str]:
        """Return the patients of some splits."""
        return [patient for patient, split in self.splits.items() if split in splits]

    def run(self, methods: list[str], seeds: int) -> None:
        """Compute what is missing, one seed after the other."""
        test = self.list_split("test")
        # The bundle's own predictions are its gate, and not the labels of the test slices.
        if not self.has("pseudo", 0, 0):
            given = load_weights(self.new_network(), find_bundle(BUNDLE) / "models/model.pt")
            self.keep("pseudo", 0, 0, self.explain(given, test), 0.0)
        for seed in range(seeds):
            order = np.random.default_rng(seed).permutation(self.list_split("val")).tolist()
            for method, count in self.plan(methods):
                if self.has(method, count, seed):
                    continue
                begun = time.process_time()
                network = self.train(method, order[:count], seed)
                spent = time.process_time() - begun
                predict = self.explain if method.startswith("joint") else self.predict
                self.keep(method, count, seed, predict(network, test), spent)

    def run_ordered(self, order: str, seeds: int) -> None:
        """Compute the way joint with the patients in the order of a strategy."""
        test, method = self.list_split("test"), f"joint:{order}"
        chosen = self.sort(order)
        print(order, *chosen, flush=True)
        for seed in range(seeds):
            for count in ORDERED_SIZES:
                if not self.has(method, count, seed):
                    begun = time.process_time()
                    network = self.train(method, chosen[:count], seed)
                    spent = time.process_time() - begun
                    self.keep(method, count, seed, self.explain(network, test), spent)

    def sort(self, order: str) -> list[str]:
        """Return the validation patients in the order of a strategy; it sees no mask of a person.

        Each is chosen as if those before it had been labelled.
        """
        scores = self.score()
        left, labelled = list(scores), list[str]()
        features = {patient: score["features"] for patient, score in scores.items()}
        while left:
            values = {
                "least_certain": lambda p: 1 - (scores[p]["quality"] or 0),
                "largest_lesion": lambda p: scores[p]["mask_ml"],
                "most_disagreement": lambda p: scores[p]["disagreement"],
                "most_different": measure_difference(features, labelled).__getitem__,
            }
            labelled.append(max(left, key=values[order]))
            left.remove(labelled[-1])
        return labelled

    def score(self) -> dict[str, dict[str, Any]]:
        """Return what the bundles say of the validation patients."""
        path = self.out / "scores.json"
        if not path.is_file():
            judges = [Pipeline.from_bundle(name, device="cpu") for name in JUDGES]
            images = {p: str(self.describe(p).image) for p in self.list_split("val")}
            scores = {p: score_scan([judge(i, p) for judge in judges]) for p, i in images.items()}
            path.write_text(json.dumps(scores, indent=1), encoding="utf-8")
        found: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        return found

    @staticmethod
    def plan(methods: list[str]) -> Iterator[tuple[str, int]]:
        """Return methods and sizes, what decides most first."""
        for count in SIZES:
            for method in methods:
                if method != "unet" and count == SIZES[0]:
                    yield method, 0  # what more training does without any correction
                yield method, count

    def train(self, method: str, corrected: list[str], seed: int) -> GPUNet:
        """Return the network that a method makes of some corrected patients."""
        if method == "unet":
            given = join_examples([self.masks[p] for p in corrected])
            epochs = max(1, UNET_SLICES // len(given))
            return train_unet(given.images, given.masks, epochs, seed)
        way, _, augmented = method.partition(":")[0].partition("_")
        settings = LearnSettings(
            way=way, seed=seed, image_size=SIZE, max_epochs=2, start_epochs=2,
            attribution_augmentation=bool(augmented),
        )  # fmt: skip
        kept = self.out / "runs" / f"{method}_{seed}"
        weights = find_bundle(BUNDLE) / "models/model.pt"
        given = self.list_split("train", "val")
        examples = join_examples(
            [self.masks[p] if p in corrected else self.plain[p] for p in given]
        )
        network = self.new_network()
        if way == "joint":
            network = load_weights(network, weights)
            return self.fit(network, examples, settings, 2, False, kept / str(len(corrected)))
        plain = join_examples([self.plain[p] for p in given])
        network = start_segmentation(network, weights, plain, seed)
        network = self.fit(network, plain, settings, settings.start_epochs, True, kept / "start")
        if not corrected:
            return network
        return self.fit(network, examples, settings, 2, True, kept / str(len(corrected)))

    def fit(
        self, network: GPUNet, examples: Examples, settings: LearnSettings, epochs: int,
        pseudo_masks: bool, folder: Path,
    ) -> GPUNet:  # fmt: skip
        """As `heatmask.learning.fit.fit`."""
        return fit(network, examples, settings, epochs, pseudo_masks=pseudo_masks, folder=folder)

    @staticmethod
    def new_network() -> GPUNet:
        """Return the bundle's network."""
        return GPUNet(2, 2, 1, (16, 32, 64, 128), "batch", "map", "top", 0.01)

    @torch.no_grad()
    def predict(self, network: GPUNet, patients: list[str]) -> dict[str, torch.Tensor]:
        """Return the masks (N, 1, H, W) of patients: logit above 0, the strongest object."""
        found = {}
        for patient in patients:
            images = self.plain[patient].images.float()
            heatmap = torch.cat([network.forward_heatmap(x)[1] for x in images.split(16)])[:, 0]
            evidence = heatmap.clamp(0, 4).movedim(0, -1).numpy()
            mask = clean_mask(evidence > 0, evidence, 20.0, 200.0, "strongest")
            found[patient] = torch.from_numpy(mask).movedim(-1, 0)[:, None]
        return found

    def explain(self, network: GPUNet, patients: list[str]) -> dict[str, torch.Tensor]:
        """Return the masks (N, 1, H, W) that the bundle makes with other weights."""
        self.pipeline.network.load_state_dict(network.state_dict())
        reader = ExampleReader(self.pipeline, SIZE)
        unlabelled = [replace(self.describe(patient), labels=None) for patient in patients]
        return {scan.patient: reader.read(scan).masks for scan in unlabelled}

    def keep(
        self, method: str, count: int, seed: int, masks: dict[str, torch.Tensor], cpu_s: float
    ) -> None:
        """Add the rows of a method."""
        if self.has(method, count, seed):
            return
        new = not self.table.exists()
        with self.table.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(COLUMNS)
            values = []
            for patient, mask in masks.items():
                truth = self.masks[patient].masks
                dice = 2 * float((mask & truth).sum()) / float(mask.sum() + truth.sum())
                writer.writerow([method, count, seed, patient, f"{dice:.4f}", f"{cpu_s:.0f}"])
                values.append(dice)
        print(method, count, seed, f"{np.mean(values):.3f}", f"{cpu_s:.0f} s", flush=True)

    def has(self, method: str, count: int, seed: int) -> bool:
        """Whether these rows are there."""
        return (method, count, seed) in {key for key, _ in group_rows(self.table).items()}


def group_rows(table: Path) -> dict[tuple[str, int, int], dict[str, float]]:
    """Return the Dice of each patient by method, size and seed."""
    found: dict[tuple[str, int, int], dict[str, float]] = {}
    if table.is_file():
        with table.open(encoding="utf-8") as file:
            for row in csv.DictReader(file):
                key = (row["method"], int(row["corrected"]), int(row["seed"]))
                found.setdefault(key, {})[row["patient"]] = float(row["dice"])
    return found


def summarise(table: Path) -> dict[tuple[str, int], tuple[float, float, float, int]]:
    """Return mean Dice, its interval over patients (of the mean over seeds), and the seeds."""
    by_size: dict[tuple[str, int], list[dict[str, float]]] = {}
    for (method, count, _), rows in group_rows(table).items():
        by_size.setdefault((method, count), []).append(rows)
    out = {}
    for key, seeds in by_size.items():
        patients = [np.mean([rows[p] for rows in seeds]) for p in seeds[0]]
        out[key] = (*bootstrap_mean(patients), len(seeds))
    return out


def draw(table: Path, figure: Path) -> None:
    """Draw mean Dice by the number of corrected patients, and print it, orders too, as a table."""
    from matplotlib import pyplot as plt

    found = summarise(table)
    axes = plt.figure(figsize=(6.5, 4.2), layout="constrained").gca()
    drawn = [n for n in NAMES if ":" not in n and any(m == n for m, _ in found)]
    for shift, method in enumerate(drawn):
        sizes = sorted(count for name, count in found if name == method)
        means = np.array([found[method, count][:3] for count in sizes])
        if method == "pseudo":
            axes.axhline(means[0, 0], color="grey", linestyle="--", label=NAMES[method])
            continue
        at = np.array(sizes) + 0.12 * (shift - 2)
        bars = [means[:, 0] - means[:, 1], means[:, 2] - means[:, 0]]
        axes.errorbar(at, means[:, 0], bars, marker="o", capsize=2, label=NAMES[method])
    axes.set(xlabel="corrected patients", ylabel="mean Dice, 16 test patients [95 %]")
    axes.set_xticks([0, 1, 3, 5, 10])
    axes.legend(fontsize=8, loc="lower right")
    axes.figure.savefig(figure, dpi=130)
    print("| method | corrected | mean Dice [95 %] | seeds |\n| --- | --- | --- | --- |")
    for (method, count), (mean, low, high, seeds) in sorted(found.items()):
        print(f"| {NAMES[method]} | {count} | {mean:.3f} [{low:.3f}, {high:.3f}] | {seeds} |")


def main() -> None:
    """Compute, or draw."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--methods", default="joint,segmentation,unet,segmentation_dea")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--order", choices=ORDERS, help="instead of --methods")
    parser.add_argument("--draw", type=Path)
    given = parser.parse_args()
    if given.draw:
        draw(given.out / "learning_curve.csv", given.draw)
        return
    torch.set_num_threads(1)
    curve = Curve(given.data, given.out)
    if given.order:
        curve.run_ordered(given.order, given.seeds)
    else:
        curve.run(given.methods.split(","), given.seeds)


if __name__ == "__main__":
    main()
