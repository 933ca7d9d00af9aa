"""Bundles that are trained in two stages, through `python -m monai.bundle run`."""

import csv
import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from heatmask.authoring.train import OwnData, train_own_bundle
from heatmask.bundle import read_bundle, run_bundle
from heatmask.errors import InputError
from heatmask.experiments.cases import Place
from heatmask.experiments.one_bundle import evaluate_bundle
from heatmask.experiments.results import Comparison
from heatmask.networks.gated_cnn import Gate, GatedCNN
from heatmask.networks.weights import load_weights
from heatmask.training.curve import draw_curves
from heatmask.training.gate import fit_alone, join_gate, start_gate
from heatmask.training.position import PositionOffsetLoss
from helpers.phantom import make_phantom
from helpers.pictures import assert_like_kept
from helpers.project import PROJECT
from helpers.scan_files import write_nifti

TYPES = PROJECT / "bundles" / "brain_t1ce_tumour_type_segmentation"
RELEVANCE = PROJECT / "bundles" / "brain_mri_relevance3d_segmentation"
KINDS = ("meningioma", "glioma", "pituitary")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slices of three kinds, told by the shape of a bright spot, and labels of each."""
    folder, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    rows = []
    for number in range(24):
        image = np.zeros((64, 64), np.uint8)
        image[6:58, 10:54] = 90 + random.integers(0, 20, (52, 44))
        top, left = random.integers(12, 40, 2)
        height, width = ((6, 6), (12, 3), (3, 12))[number % 3]
        image[top : top + height, left : left + width] = 220
        Image.fromarray(image).save(folder / f"{number}.png")
        split = "val" if number >= 18 else "train"
        rows.append((f"{number}.png", KINDS[number % 3], split, str(number)))
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", "label", "split", "group"), *rows])
    return folder


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four small heads with slice labels, two of them with a second sequence."""
    folder = tmp_path_factory.mktemp("heads")
    slices, patients = ["patient,slice,tumour"], ["patient,split"]
    for seed in range(4):
        phantom = make_phantom(300 + seed, shape=(46, 58, 18), spacing_mm=(4.5, 4.5, 8.5))
        name = f"P{seed}"
        (folder / name).mkdir()
        write_nifti(folder / name / f"{name}-t2f.nii.gz", phantom.image, phantom.affine)
        if seed % 2:
            write_nifti(folder / name / f"{name}-t1c.nii.gz", phantom.image**0.5, phantom.affine)
        patients.append(f"{name},{'train' if seed < 2 else 'val'}")
        slices += [f"{name},{i},{label}" for i, label in enumerate(phantom.slice_labels)]
    (folder / "slice_labels.csv").write_text("\n".join(slices) + "\n", encoding="utf-8")
    (folder / "patients.csv").write_text("\n".join(patients) + "\n", encoding="utf-8")
    return folder


def train(bundle: Path, output: Path, processes: int = 1, **words: object) -> str:
    """Run the bundle's training, in one process or several; return what it said."""
    words = {
        "bundle_root": bundle, "output_dir": output, "weights": output / "model.pt",
        "max_epochs": 2, "batch_size": 6, "device": "cpu", "pixel_spacing_mm": 4.5,
        "image_size": "[48, 48]", "calibrated_methods": "['saliency']", "calibrated_layers": "[]",
        "network_def#features": "[4, 8]", **words,
    }  # fmt: skip
    configs = [str(bundle / "configs" / "train.json")]
    configs += [str(bundle / "configs" / "multi_gpu_train.json")] * (processes > 1)
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    command = [sys.executable, *torchrun * (processes > 1), "-m", "monai.bundle", "run"]
    command += ["--config_file", str(configs)]
    for name, value in words.items():
        command += [f"--{name}", str(value)]
    done = subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def kinds_run(pictures: Path, heads: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("kinds")
    words = {"dataset_dir": pictures, "gate_dir": heads, "gate_epochs": 2}
    train(TYPES, output, **words, **{"network_def#gate_features": "[4, 8]"})
    return output


def test_kinds_then_the_gate(kinds_run: Path) -> None:
    """The classifier is as its own stage left it, the gate as the second did."""
    kinds, gate = (
        torch.load(folder / "best.pt", weights_only=True)["model"]
        for folder in (kinds_run, kinds_run / "gate")
    )
    shipped = torch.load(kinds_run / "model.pt", weights_only=True)
    assert shipped
    for name, value in shipped.items():
        part, _, rest = name.partition(".")
        if rest.startswith("alone.fc."):
            continue
        wanted = kinds[name] if part == "classifier" else gate[rest]
        torch.testing.assert_close(value.float(), wanted.float(), rtol=2e-3, atol=1e-4)
    for name, value in gate.items():
        if name.startswith("alone.stage"):
            wanted = kinds[name.replace("alone", "classifier")]
            torch.testing.assert_close(value, wanted, msg=f"{name} is the classifier's own")
    fitted = shipped["gate.alone.fc.weight"].float()
    assert not torch.allclose(fitted, gate["alone.fc.weight"], rtol=0.01)
    assert not torch.equal(gate["every.fc.weight"], kinds["gate.every.fc.weight"])
    report = json.loads((kinds_run / "training.json").read_text())
    assert {"val_macro_f1", "gate_val_auroc"} <= set(report["validation"])
    assert report["calibration"].keys() == {"saliency"}
    assert (kinds_run / "training.png").stat().st_size > 5_000


def test_a_finished_run_is_not_run_again(kinds_run: Path, pictures: Path, heads: Path) -> None:
    before = (kinds_run / "gate" / "best.pt").stat().st_mtime_ns
    words = {"dataset_dir": pictures, "gate_dir": heads, "gate_epochs": 2}
    said = train(TYPES, kinds_run, **words, **{"network_def#gate_features": "[4, 8]"})
    assert said.count("had finished; nothing is trained") == 2
    assert (kinds_run / "gate" / "best.pt").stat().st_mtime_ns == before


def test_the_trained_kinds_segment_a_picture_and_a_volume(
    kinds_run: Path, pictures: Path, heads: Path, tmp_path: Path
) -> None:
    for scan in (pictures / "20.png", heads / "P1" / "P1-t1c.nii.gz"):
        options = {
            "input": str(scan), "output_dir": str(tmp_path), "device": "cpu",
            "weights": str(kinds_run / "model.pt"), "method": "saliency", "pixel_spacing_mm": 4.5,
            "network_def#features": [4, 8], "network_def#gate_features": [4, 8],
        }  # fmt: skip
        (report,) = run_bundle(read_bundle(TYPES, options=options), "evaluator").run()
        assert [c["name"] for c in report["classes"]] == [
            "meningioma",
            "glioma",
            "pituitary tumour",
        ]
        total = sum(c["probability"] for c in report["classes"])
        assert total == pytest.approx(1, abs=1e-5) if scan.suffix == ".png" else total > 0


SMALL = {
    "max_epochs": 2, "batch_size": 6, "pixel_spacing_mm": 4.5, "image_size": [48, 48],
    "calibrated_methods": ["saliency"], "calibrated_layers": [], "network_def#features": [4, 8],
    "device": "cpu",
}  # fmt: skip


def test_kinds_of_ones_own_have_no_gate(pictures: Path, tmp_path: Path) -> None:
    data = OwnData(
        pictures / "labels.csv", pictures, tmp_path / "mine_segmentation", bundle=TYPES,
        run_dir=tmp_path / "run", options={**SMALL, "patient_column": "group"},
    )  # fmt: skip
    bundle = train_own_bundle(data)
    config = json.loads((bundle / "configs" / "train.json").read_text())
    assert config["network_def"]["gate_features"] is None
    assert not (tmp_path / "run" / "gate").exists()
    options = {"input": str(pictures / "20.png"), "output_dir": str(tmp_path), "method": "saliency"}
    parser = read_bundle(bundle, options={**options, "device": "cpu"})
    assert run_bundle(parser, "inferer").one_class is False
    (report,) = run_bundle(parser, "evaluator").run()
    assert {c["name"] for c in report["classes"]} == set(KINDS)


def write_slice_table(heads: Path, path: Path, label: str) -> Path:
    rows = csv.DictReader((heads / "slice_labels.csv").open(encoding="utf-8"))
    lines = ["image,slice,label,patient"]
    for row in rows:
        name, found = row["patient"], (label if row["tumour"] == "1" else "none")
        found = found.format(int(row["slice"]) % 2)
        lines.append(f"{name}/{name}-t2f.nii.gz,{row['slice']},{found},{name}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_3d_bundle_of_ones_own(heads: Path, tmp_path: Path) -> None:
    options = {
        **SMALL,
        "localiser_epochs": 1,
        "segments": 8,
        "network_def#localiser_features": [4, 8],
    }
    given = {"images": heads, "output": tmp_path / "mine_segmentation", "bundle": RELEVANCE}
    several = write_slice_table(heads, tmp_path / "several.csv", "kind{}")
    with pytest.raises(InputError, match="which one class has; there are 2"):
        train_own_bundle(OwnData(several, run_dir=tmp_path / "wrong", options=options, **given))
    labels = write_slice_table(heads, tmp_path / "labels.csv", "lesion")
    bundle = train_own_bundle(OwnData(labels, run_dir=tmp_path / "run", options=options, **given))
    scan = heads / "P0" / "P0-t2f.nii.gz"
    options = {"input": str(scan), "output_dir": str(tmp_path), "method": "saliency"}
    (report,) = run_bundle(
        read_bundle(bundle, options={**options, "device": "cpu"}), "evaluator"
    ).run()
    assert [c["name"] for c in report["classes"]] == ["lesion"]


def test_the_gate_begins_with_the_classifiers_stages(tmp_path: Path) -> None:
    torch.manual_seed(0)
    trained = GatedCNN(2, 2, 3, (4, 8, 12), gate_features=(4, 8))
    torch.save(
        {"model": trained.state_dict(), "metrics": {"a": 1.0}, "epoch": 3}, tmp_path / "best.pt"
    )
    torch.manual_seed(1)
    network = GatedCNN(2, 2, 3, (4, 8, 12), gate_features=(4, 8))
    gate = start_gate(network, tmp_path / "best.pt")
    assert isinstance(gate, Gate)
    gate.train()
    assert not any(module.training for module in gate.alone.modules())
    for stage in ("stage1", "stage2"):
        pairs = zip(
            getattr(gate.alone, stage).state_dict().values(),
            getattr(trained.classifier, stage).state_dict().values(),
            strict=True,
        )
        assert all(torch.equal(ours, theirs) for ours, theirs in pairs)
    learns = {name.split(".")[0] for name, p in gate.named_parameters() if p.requires_grad}
    assert learns == {"every"}

    (tmp_path / "gate").mkdir()
    with torch.no_grad():
        gate.every.fc.bias.fill_(7.0)
    torch.save(
        {"model": gate.state_dict(), "metrics": {"a": 2.0}, "epoch": 5}, tmp_path / "gate/best.pt"
    )
    slices = make_slices()
    joined = torch.load(join_gate(tmp_path, network, slices), weights_only=True)
    assert joined["metrics"] == {"a": 1.0, "gate_a": 2.0}
    assert joined["model"]["gate.every.fc.bias"].item() == 7.0


def make_slices() -> SimpleNamespace:
    """Ten slices with a bright spot and ten without, and four of the other sequence alone."""
    torch.manual_seed(3)
    images = torch.rand(24, 2, 16, 16)
    images[:10, 0, 4:9, 5:10] += 3
    images[20:, 0] = 0
    labels = torch.tensor([1.0] * 10 + [0.0] * 10 + [1.0] * 4)
    return SimpleNamespace(images=images.half(), labels=labels)


def test_the_last_layer_is_a_logistic_regression() -> None:
    """At its minimum: the gradient of the balanced, penalised loss is nought."""
    torch.manual_seed(0)
    gate, slices = Gate(2, 2, (4, 8), "batch", 0.1).eval(), make_slices()
    fit_alone(gate, slices, penalty=2.0)
    images, labels = slices.images[:20, :1].float(), slices.labels[:20]
    with torch.no_grad():
        logits = gate.alone(images)[:, 0]
        features = gate.alone.pooling(
            gate.alone.stage2(gate.alone.pool1(gate.alone.stage1(images)))
        )
    assert logits[:10].min() > logits[10:].max()
    scaled = (features - features.mean(0)) / features.std(0)
    weights = (gate.alone.fc.weight[0] * features.std(0)).detach()
    slope = (scaled * (logits.sigmoid() - labels)[:, None]).sum(0) + 2.0 * weights
    torch.testing.assert_close(slope, torch.zeros_like(slope), atol=2e-2, rtol=0)
    assert (logits.sigmoid() - labels).sum().abs() < 2e-2


def test_without_the_sequence_the_last_layer_stays() -> None:
    gate, slices = Gate(2, 2, (4, 8), "batch", 0.1), make_slices()
    before = gate.alone.fc.weight.clone()
    slices.images[:, 0] = 0
    fit_alone(gate, slices)
    assert torch.equal(gate.alone.fc.weight, before)


@pytest.mark.parametrize("bundle", [TYPES, RELEVANCE], ids=["types", "relevance"])
def test_several_processes_train_the_first_stage_and_one_the_second(
    bundle: Path, pictures: Path, heads: Path, tmp_path: Path
) -> None:
    words: dict[str, object] = {"dataset_dir": heads, "localiser_epochs": 1, "segments": 8}
    if bundle == TYPES:
        words = {"dataset_dir": pictures, "gate_dir": heads, "gate_epochs": 1}
        words["network_def#gate_features"] = "[4, 8]"
    else:
        words["network_def#localiser_features"] = "[4, 8]"
    train(bundle, tmp_path, processes=2, **words)
    assert (tmp_path / "best.pt").is_file()
    assert not (tmp_path / "model.pt").exists()
    before = (tmp_path / "best.pt").stat().st_mtime_ns
    assert train(bundle, tmp_path, **words).count("had finished; nothing is trained") == 1
    assert (tmp_path / "best.pt").stat().st_mtime_ns == before
    assert (tmp_path / "model.pt").is_file()


def test_the_gate_asks_the_network_for_what_is_there() -> None:
    torch.manual_seed(0)
    gate = Gate(2, 2, (4, 8), "batch", 0.1).eval()
    images = torch.rand(3, 2, 8, 8)
    images[1, 1] = 0
    with torch.no_grad():
        torch.testing.assert_close(gate(images)[[0, 2]], gate.every(images[[0, 2]]))
        torch.testing.assert_close(gate(images)[1], gate.alone(images[1:2, :1])[0])


def test_the_classifier_then_its_relevance(heads: Path, tmp_path: Path) -> None:
    words = {"dataset_dir": heads, "localiser_epochs": 2, "segments": 12}
    train(RELEVANCE, tmp_path, **words, **{"network_def#localiser_features": "[4, 8]"})
    first, second = (
        torch.load(tmp_path / name, weights_only=True)["model"]
        for name in ("best.pt", "relevance.pt")
    )
    shipped = torch.load(tmp_path / "model.pt", weights_only=True)
    for name, value in second.items():
        if name.startswith("classifier."):
            torch.testing.assert_close(value, first[name])
    moved = [n for n in second if n.startswith("localiser.") and second[n].is_floating_point()]
    assert any(not torch.equal(first[n], second[n]) for n in moved)
    parser = read_bundle(RELEVANCE, options={"device": "cpu", "dataset_dir": str(heads)})
    parser["network_def::features"] = [4, 8]
    parser["network_def::localiser_features"] = [4, 8]
    load_weights(run_bundle(parser, "network_def"), tmp_path / "model.pt")
    assert shipped.keys() == second.keys()
    assert set(json.loads((tmp_path / "calibration.json").read_text())) == {"saliency"}


def test_an_evaluation_takes_pictures_and_volumes(
    kinds_run: Path, pictures: Path, heads: Path, tmp_path: Path
) -> None:
    """One config for both layouts; a class is told of every volume with tumour slices."""
    small = {
        "weights": str(kinds_run / "model.pt"), "method": "saliency", "pixel_spacing_mm": 4.5,
        "network_def#features": [4, 8], "network_def#gate_features": [4, 8],
    }  # fmt: skip
    with pytest.raises(InputError, match=r"column.* mask"):
        score(small, pictures)
    heads = Path(shutil.copytree(heads, tmp_path / "heads"))
    for name in ("P2", "P3"):
        flair = nib.load(heads / name / f"{name}-t2f.nii.gz")
        mask = (flair.get_fdata() > 900).astype(np.uint8)
        write_nifti(heads / name / f"{name}-seg.nii.gz", mask, flair.affine)
    (reason,) = score(small, heads).cases.left_out.values()
    assert "needs a T1-Gd scan; got FLAIR" in reason
    shutil.copy(heads / "P2" / "P2-t2f.nii.gz", heads / "P2" / "P2-t1c.nii.gz")
    evaluation = score({**small, "gate_probability": 0.0}, heads)
    (note,) = evaluation.notes
    assert re.fullmatch(
        r"CNN, saliency: volumes by the class predicted: "
        r"((meningioma|glioma|pituitary tumour) \d(, )?)+\.", note
    )  # fmt: skip
    probabilities = evaluation.predictions[0].any_class
    assert 0 < probabilities.max() <= 1
    closed = score({**small, "gate_probability": 1.0}, heads)
    assert closed.notes == ["CNN, saliency: volumes by the class predicted: none 2."]
    np.testing.assert_allclose(closed.predictions[0].any_class, probabilities, atol=1e-6)


def score(options: dict[str, object], data: Path) -> Comparison:
    return evaluate_bundle(TYPES, Place(str(data), split="val", device="cpu"), options)


def test_curves_have_a_panel_for_what_was_logged(kinds_run: Path, tmp_path: Path) -> None:
    sizes = []
    for runs in ([kinds_run, kinds_run / "gate"], [tmp_path]):
        draw_curves(runs, tmp_path / "training.png")
        with Image.open(tmp_path / "training.png") as picture:
            sizes.append(round(picture.width / 585))
    assert sizes == [3, 1], "loss, AUROC, macro F1"


def test_curves_look_as_kept(tmp_path: Path) -> None:
    epochs = range(1, 9)
    for run, speed in (("run", 0.5), ("gate", 0.3)):
        with SummaryWriter(str(tmp_path / run)) as log:
            for epoch in epochs:
                left = math.exp(-speed * epoch)
                log.add_scalar("val_loss", 0.2 + left, epoch)
                log.add_scalar("val_auroc", 0.9 - 0.4 * left, epoch)
                if run == "run":
                    log.add_scalar("val_macro_f1", 0.8 - 0.6 * left, epoch)
    draw_curves([tmp_path / "run", tmp_path / "gate"], tmp_path / "training.png")
    assert_like_kept(tmp_path / "training.png", "training")


def test_smoothed_labels_are_shared_by_all_classes() -> None:
    logits, labels = torch.tensor([[2.0, -1.0, 0.5]]), torch.tensor([[2.0]])
    loss = PositionOffsetLoss(negatives=False, label_smoothing=0.3)(logits, labels)
    told = logits.log_softmax(1)[0]
    torch.testing.assert_close(loss, -(0.7 * told[1] + 0.1 * told.sum()))
