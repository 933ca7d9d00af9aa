"""The bundle through MONAI's own entry points: its verifiers and `python -m monai.bundle run`."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow, load, run, verify_metadata, verify_net_in_out

from heatmask.bundle import find_bundle, read_bundle, run_bundle
from heatmask.check import inspect_bundle
from heatmask.errors import HeatmaskError, InputError, OptionError, WeightsError
from heatmask.networks.weights import save_weights
from heatmask.parts import list_all_options, offer_options
from helpers.phantom import make_phantom, write_phantom
from helpers.project import PROJECT

BUNDLES = sorted(path.parents[1] for path in PROJECT.glob("bundles/*/configs/inference.json"))

RELEVANCE = PROJECT / "bundles" / "brain_mri_relevance3d_segmentation"
TYPES = PROJECT / "bundles" / "brain_t1ce_tumour_type_segmentation"

SLICES = PROJECT / "bundles" / "brain_t1ce_tumour_type_selftrained_segmentation"
"""It takes single slices, and sees a tumour in each."""

TERMS = {"breast_us_lesion_segmentation": "research use", SLICES.name: "cc by 4.0"}
"""Of the weights that are not CC BY-NC-SA 4.0."""

HEADS = [b for b in BUNDLES if b.name.startswith("brain_") and b != SLICES]
of_heads = pytest.mark.parametrize("bundle_dir", HEADS, ids=lambda path: path.name, indirect=True)
# The lesions of phantoms and the reference masks of real scans are those of FLAIR.
of_flair = pytest.mark.parametrize(
    "bundle_dir", [b for b in HEADS if b != TYPES], ids=lambda path: path.name, indirect=True
)

# A phantom that is neither the demo's nor of the range for training.
PHANTOM_SEED = 77
REPORT_FIELDS = {
    "bundle", "case", "classes", "device", "finding", "input", "notice", "output", "parameters",
    "seconds", "sequence", "sequences", "slices", "versions", "warnings", "weights_sha256",
}  # fmt: skip


@pytest.fixture(scope="module", params=BUNDLES, ids=lambda folder: folder.name)
def bundle_dir(request) -> Path:
    """Every bundle in turn."""
    return request.param


@pytest.fixture(scope="module")
def flair_scan(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("phantom")
    phantom = make_phantom(PHANTOM_SEED, shape=(112, 128, 20), spacing_mm=(2.0, 2.0, 6.0))
    write_phantom(phantom, folder / "head_flair.nii.gz", folder / "head-seg.nii.gz")
    os.link(folder / "head_flair.nii.gz", folder / "head_t1gd.nii.gz")
    slice_ = nib.Nifti1Image(phantom.image[..., 9:10], phantom.affine)
    nib.save(slice_, folder / "head_slice_t1gd.nii.gz")
    return folder / "head_flair.nii.gz"


@pytest.fixture(scope="module")
def phantom_scan(bundle_dir, flair_scan) -> Path:
    """Named as the sequence that the bundle takes first, whatever it looks like."""
    if bundle_dir == SLICES:
        return flair_scan.with_name("head_slice_t1gd.nii.gz")
    return flair_scan.with_name("head_t1gd.nii.gz") if bundle_dir == TYPES else flair_scan


def name_case(scan: Path) -> str:
    return scan.name.removesuffix(".nii.gz")


def hash_file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def monai_bundle(*words: object, cwd: str | Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "monai.bundle", *map(str, words)]
    return subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=cwd
    )


def run_inference(bundle_dir: Path, *words: object) -> subprocess.CompletedProcess[str]:
    config = bundle_dir / "configs" / "inference.json"
    return monai_bundle("run", "--config_file", config, "--bundle_root", bundle_dir, *words)


@pytest.fixture
def same_hook():
    """A workflow shows plain errors: not in the tests after it."""
    hook = sys.excepthook
    yield
    sys.excepthook = hook


def test_metadata_passes_monais_schema(bundle_dir, meta_schema):
    verify_metadata(
        meta_file=str(bundle_dir / "configs" / "metadata.json"), filepath=str(meta_schema)
    )


def test_network_takes_and_gives_what_the_metadata_says(bundle_dir):
    configs = bundle_dir / "configs"
    verify_net_in_out(
        net_id="network_def", bundle_root=str(bundle_dir),
        meta_file=str(configs / "metadata.json"), config_file=str(configs / "inference.json"),
    )  # fmt: skip


def test_monais_verifiers_as_commands(meta_schema):
    """Of one bundle, as each starts a process."""
    configs = RELEVANCE / "configs"
    meta = ("--meta_file", configs / "metadata.json")
    for words, success in (
        (("verify_metadata", *meta, "--filepath", meta_schema), "verified with no error"),
        (("verify_net_in_out", "network_def", *meta, "--bundle_root", RELEVANCE,
          "--config_file", configs / "inference.json"), "data shape of network is verified"),
    ):  # fmt: skip
        done = monai_bundle(*words)
        assert done.returncode == 0, done.stderr
        assert success in done.stdout + done.stderr


@pytest.mark.fault("F")
def test_inference_config_has_every_property_monai_asks_for(
    bundle_dir, phantom_scan, tmp_path, monkeypatch, same_hook
):
    """Without ``bundle_root``, and from another folder."""
    monkeypatch.chdir(tmp_path)
    workflow = ConfigWorkflow(
        config_file=str(bundle_dir / "configs" / "inference.json"),
        meta_file=str(bundle_dir / "configs" / "metadata.json"),
        logging_file=str(bundle_dir / "configs" / "logging.conf"),
        workflow_type="inference",
        input=str(phantom_scan),
        output_dir=str(tmp_path),
    )
    workflow.initialize()
    assert workflow.check_properties() == []
    assert workflow.bundle_root == str(bundle_dir)


@pytest.mark.fault("F")
def test_a_workflow_runs_without_bundle_root(flair_scan, tmp_path, monkeypatch, same_hook):
    """Of one bundle, for time's sake: a copy, with the names that MONAI uses, and a list."""
    shutil.copytree(find_bundle(), tmp_path / "copy")
    shutil.copy(flair_scan, tmp_path)
    monkeypatch.chdir(tmp_path)
    workflow = ConfigWorkflow(
        config_file="copy/configs/inference.json", workflow_type="infer", device="cpu",
        dataset_dir=flair_scan.name, output_dir="out", class_names=["lesion"],
    )  # fmt: skip
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    report = json.loads((tmp_path / "out" / "head_flair" / "report.json").read_text())
    assert report["bundle"]["name"] == "copy"
    assert report["weights_sha256"] == hash_file(find_bundle() / "models" / "model.pt")
    assert report["finding"].startswith("Lesion predicted")
    assert report["parameters"]["class_names"] == ["lesion"]


@pytest.mark.fault("F")
@pytest.mark.parametrize("command", ["run", "run_workflow"])
def test_monai_runs_a_bundle_from_anywhere(command, flair_scan, tmp_path):
    """From the config's own folder with a relative scan, or from the root of the file system."""
    folder = shutil.copytree(find_bundle(), tmp_path / "copy") / "configs"
    place, config = (
        (folder, "inference.json") if command == "run" else ("/", folder / "inference.json")
    )
    done = monai_bundle(
        command, "--config_file", config, "--input", os.path.relpath(flair_scan, place),
        "--output_dir", tmp_path / "out", "--inferer#check", "False", "--class_names", "['lesion']",
        cwd=place,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out" / "head_flair" / "report.json").read_text())
    assert report["finding"].startswith("Lesion predicted")
    assert report["parameters"]["inferer#check"] is False
    assert report["parameters"]["class_names"] == ["lesion"]


@pytest.mark.fault("F")
@pytest.mark.parametrize("kind", ["train", "inference"])
def test_monai_loads_the_weights(bundle_dir, kind, same_hook):
    """As `monai.bundle.load` is called by anybody: nothing but a name."""
    network = load(
        name=bundle_dir.name, bundle_dir=str(bundle_dir.parent), source="github", repo="a/b/c",
        workflow_type=kind,
    )  # fmt: skip
    trained = run_bundle(read_bundle(bundle_dir), "network").state_dict()
    state = network.state_dict()
    assert state.keys() == trained.keys()
    assert all(torch.equal(state[name], value) for name, value in trained.items())


def test_bundle_run_writes_everything_on_the_scans_grid(
    bundle_dir, phantom_scan, tmp_path, same_hook
):
    config = str(bundle_dir / "configs" / "inference.json")
    options = {"input": str(phantom_scan), "output_dir": str(tmp_path), "gate_probability": 0.01}
    run(config_file=config, bundle_root=str(bundle_dir), **options)
    case = name_case(phantom_scan)
    folder = tmp_path / case
    scan = nib.load(phantom_scan)
    mask = nib.load(folder / f"{case}_mask.nii.gz")
    heatmap = nib.load(folder / f"{case}_heatmap.nii.gz")
    for volume, dtype in ((mask, np.uint8), (heatmap, np.float32)):
        assert volume.shape[:3] == scan.shape
        assert volume.get_data_dtype() == dtype
        np.testing.assert_allclose(volume.affine, scan.affine, atol=1e-4)
    classes = read_bundle(bundle_dir)["class_names"]
    assert heatmap.shape[3:] == (len(classes),) * (len(classes) > 1)
    assert set(np.unique(mask.dataobj)) <= set(range(len(classes) + 1))
    heat = np.asarray(heatmap.dataobj)
    assert 0 <= heat.min() < heat.max() <= 1
    report = json.loads((folder / "report.json").read_text())
    assert set(report) == REPORT_FIELDS
    assert report["weights_sha256"] == hash_file(bundle_dir / "models" / "model.pt")
    assert len(report["classes"][0]["slice_probabilities"]) == scan.shape[2]
    assert (folder / "overview.png").stat().st_size > 10_000


@of_flair
def test_shipped_weights_find_the_lesion_of_a_phantom(bundle_dir, phantom_scan, tmp_path):
    options = {"input": str(phantom_scan), "output_dir": str(tmp_path), "device": "cpu"}
    (report,) = run_bundle(read_bundle(bundle_dir, options=options), "evaluator").run()
    mask = np.asarray(nib.load(tmp_path / "head_flair" / "head_flair_mask.nii.gz").dataobj) > 0
    lesion = np.asarray(nib.load(phantom_scan.with_name("head-seg.nii.gz")).dataobj) > 0
    assert report["finding"].startswith("Tumour predicted")
    if bundle_dir == RELEVANCE:  # of synthetic heads it takes far too much (see its card)
        assert (mask & lesion).sum() > 0.9 * lesion.sum()
        return
    assert 2 * (mask & lesion).sum() / (mask.sum() + lesion.sum()) >= 0.5


@pytest.mark.parametrize(
    "bundle_dir", [b for b in BUNDLES if b != SLICES], ids=lambda path: path.name, indirect=True
)
def test_no_tumour_predicted_is_an_answer(bundle_dir, phantom_scan, tmp_path):
    options = {"input": str(phantom_scan), "output_dir": str(tmp_path), "gate_probability": 1.0}
    (report,) = run_bundle(read_bundle(bundle_dir, options=options), "evaluator").run()
    name = report["classes"][0]["name"]
    assert report["finding"].startswith(f"No {name} predicted (p = ")
    assert report["classes"][0]["mask_ml"] == 0
    case = name_case(phantom_scan)
    mask = nib.load(tmp_path / case / f"{case}_mask.nii.gz")
    assert not np.asarray(mask.dataobj).any()


@pytest.mark.fault("H")
def test_weights_replaced_during_a_run_are_not_named(flair_scan, tmp_path):
    """Of one bundle, for time's sake."""
    folder = shutil.copytree(find_bundle(), tmp_path / "copy")
    weights = folder / "models" / "model.pt"
    used = hash_file(weights)
    options = {"input": str(flair_scan), "output_dir": str(tmp_path / "out"), "device": "cpu"}
    pipeline = run_bundle(read_bundle(folder, options=options), "evaluator")
    state = torch.load(weights, weights_only=True)
    save_weights({name: torch.zeros_like(value) for name, value in state.items()}, weights)
    (report,) = pipeline.run()
    assert report["weights_sha256"] == used


@of_flair
def test_real_scan_is_segmented_better_than_a_blind_guess(bundle_dir, lgg, tmp_path):
    folder = sorted(lgg.glob("*/*-seg.nii.gz"))[0].parent
    scan = folder / f"{folder.name}-t2f.nii.gz"
    options = {"input": str(scan), "output_dir": str(tmp_path), "device": "cpu"}
    run_bundle(read_bundle(bundle_dir, options=options), "evaluator").run()
    case = f"{folder.name}-t2f"
    mask = nib.load(tmp_path / case / f"{case}_mask.nii.gz")
    np.testing.assert_allclose(mask.affine, nib.load(scan).affine)
    reference = np.asarray(nib.load(folder / f"{folder.name}-seg.nii.gz").dataobj) > 0
    found = np.asarray(mask.dataobj) > 0
    assert 2 * (found & reference).sum() / (found.sum() + reference.sum()) > 0.3


@pytest.fixture(scope="module")
def oblique_series(shared_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("series")
    shutil.unpack_archive(shared_data / "dicom_t1" / "dicom_t1.tar.xz", folder)
    return folder


@of_heads
def test_a_head_of_another_sequence_is_refused(bundle_dir, oblique_series, tmp_path):
    options = {"input": str(oblique_series), "output_dir": str(tmp_path), "device": "cpu"}
    pipeline = run_bundle(read_bundle(bundle_dir, options=options), "evaluator")
    required = "T1-Gd" if bundle_dir == TYPES else "FLAIR"
    with pytest.raises(InputError, match=f"needs a {required} scan; got T1 by the DICOM header"):
        pipeline.run()
    assert not list(tmp_path.rglob("*_mask*"))


def test_oblique_dicom_keeps_its_geometry_and_is_warned_about(oblique_series, tmp_path):
    """Of a network that is made to take it."""
    options = {"input": str(oblique_series), "output_dir": str(tmp_path), "device": "cpu"}
    parser = read_bundle(find_bundle(), options={**options, "required": None})
    (report,) = run_bundle(parser, "evaluator").run()
    assert any("Expected a FLAIR or T1-Gd scan" in warning for warning in report["warnings"])
    mask = nib.load(next(tmp_path.glob("*/*_mask.nii.gz")))
    rotation = mask.affine[:3, :3] / np.linalg.norm(mask.affine[:3, :3], axis=0)
    assert np.abs(rotation).max(axis=0).min() < 0.999, "the series is oblique, so is its mask"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("input", None, "Give a scan or a folder"),
        ("device", "cuda:99", "needs a CUDA GPU"),
        ("threshold_rule", "best", "threshold_rule must be one of"),
        ("min_volume_mm3", -1, "min_volume_mm3 must be at least 0"),
        ("slice_axis", 7, "slice_axis must be one of 0, 1, 2"),
        ("weights", "/nowhere/model.pt", "The weights must exist"),
        ("output_dir", __file__ + "/below", "must be a folder that can be written"),
    ],
)
def test_a_bad_option_is_an_error_of_ours(flair_scan, tmp_path, name, value, message):
    """Of one bundle, for time's sake: the configs of the others have the same options."""
    options = {"input": str(flair_scan), "output_dir": str(tmp_path), name: value}
    with pytest.raises(HeatmaskError, match=message):
        run_bundle(read_bundle(BUNDLES[0], options=options))


def test_bad_input_ends_with_one_sentence(tmp_path):
    message = "There is no scan at"
    words = ("--input", "/nowhere/scan.nii.gz", "--output_dir", tmp_path / "out")
    done = run_inference(BUNDLES[0], *words)
    last = done.stderr.strip().rpartition("heatmask: error: ")
    assert done.returncode == 1
    assert message in last[2]
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("*mask*"))


def test_one_bad_scan_stops_no_other(bundle_dir, phantom_scan, tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    good, bad = (phantom_scan.name.replace("head", name) for name in ("good", "bad"))
    os.symlink(phantom_scan, folder / good)
    (folder / bad).write_bytes(phantom_scan.read_bytes()[:3000])
    options = {"input": str(folder), "output_dir": str(tmp_path / "out")}
    pipeline = run_bundle(read_bundle(bundle_dir, options=options), "evaluator")
    with pytest.raises(Exception, match=r"1 of 2 scans failed.*\n.*bad_\w+: .*cut off or damaged"):
        pipeline.run()
    assert [path.parent.name for path in (tmp_path / "out").rglob("report.json")] == [
        good.removesuffix(".nii.gz")
    ]


def test_weights_of_another_network_are_refused(bundle_dir, phantom_scan, tmp_path):
    options = {"input": str(phantom_scan), "output_dir": str(tmp_path)}
    parser = read_bundle(bundle_dir, options=options)
    other = {"features": 4, "depth": 10, "num_classes": 5}
    option = next(name for name in other if name in parser["network_def"])
    several = isinstance(parser["network_def"][option], list)
    parser[f"network_def::{option}"] = [other[option]] * 2 if several else other[option]
    with pytest.raises(WeightsError, match=r"must fit \w+ in every tensor"):
        run_bundle(parser, "network")


def test_find_bundle_lists_what_there_is(bundle_dir):
    assert find_bundle(bundle_dir) == bundle_dir
    with pytest.raises(InputError, match=rf"one of {BUNDLES[0].name}, .*got no_such"):
        find_bundle("no_such")


def test_options_that_monai_would_evaluate_are_refused(bundle_dir):
    with pytest.raises(OptionError, match="must not begin with"):
        read_bundle(bundle_dir, options={"output_dir": "$print('evaluated')"})
    with pytest.raises(OptionError, match=r"got 'batch_sise'. Try: batch_size"):
        read_bundle(bundle_dir, options={"batch_sise": 3})
    for name in ("network_de#in_channels", "batch_size#x", "inferer#no_such#steps", "#batch_size"):
        with pytest.raises(OptionError, match=f"got '{name}'"):
            read_bundle(bundle_dir, options={name: 3})
    for name, right in {
        "network_def#num_clases": "num_classes",
        "inferer#chec": "check",
    }.items():
        with pytest.raises(OptionError, match=f"got '{name}'. Try: .*{right}"):
            read_bundle(bundle_dir, options={name: 3})


@pytest.mark.fault("F")
def test_sequences_choose_among_the_networks_channels(flair_scan, tmp_path):
    """One of them, or both in another order; the weights know only their own."""
    images = {}
    scans = {"FLAIR": str(flair_scan), "T1-Gd": str(flair_scan)}
    for names in (["FLAIR", "T1-Gd"], ["T1-Gd", "FLAIR"], ["FLAIR"], ["T1-Gd"]):
        parser = read_bundle(find_bundle(), options={"sequences": names, "required": None})
        network = run_bundle(parser, "network")
        loading = run_bundle(parser, "preprocessing").transforms[0]
        images[tuple(names)] = loading({"image": scans})["image"]
        assert network(torch.zeros(1, 2, 16, 16)).shape == (1, 1)
    both, swapped, flair, t1gd = images.values()
    assert torch.equal(both, swapped)
    assert torch.equal(flair[0], both[0])
    assert not flair[1].any()
    assert torch.equal(t1gd[1], both[1])
    assert not t1gd[0].any()
    parser = read_bundle(find_bundle(), options={"sequences": ["T1-Gd"]})
    with pytest.raises(OptionError, match=r"must hold FLAIR, without which this .*; got T1-Gd"):
        run_bundle(parser, "preprocessing")
    parser = read_bundle(find_bundle(), options={"sequences": ["T2"]})
    with pytest.raises(OptionError, match="takes, FLAIR, T1-Gd; got T2"):
        run_bundle(parser, "preprocessing")


@pytest.mark.fault("F")
def test_scans_have_two_names_and_one_value(flair_scan, tmp_path):
    scan = str(flair_scan)
    for names in (["input"], ["dataset_dir"], ["input", "dataset_dir"]):
        parser = read_bundle(find_bundle(), options=dict.fromkeys(names, scan))
        assert [case["image"] for case in run_bundle(parser, "dataset")] == [scan]
    options = {"input": scan, "dataset_dir": str(tmp_path)}
    with pytest.raises(OptionError, match="two names of one option"):
        run_bundle(read_bundle(find_bundle(), options=options), "dataset")


@pytest.mark.fault("H")
@pytest.mark.parametrize(
    ("name", "item"), [("gate", "inferer"), ("amp", "inferer"), ("snap", "postprocessing")]
)
def test_a_text_is_no_switch(name, item):
    """What `--gate false` gives; it would count as true."""
    parser = read_bundle(find_bundle(), options={name: "false"})
    with pytest.raises(OptionError, match=f"{name} must be true or false, got 'false'"):
        run_bundle(parser, item)


def test_options_below_an_item_reach_it(bundle_dir):
    """Also arguments that the config leaves at their default, and elements of a list."""
    options = {
        "network_def#num_classes": 3,
        "inferer#check": False,
        "sequences#0": "T1-Gd",
    }
    parser = read_bundle(bundle_dir, options=options)
    widths = {p.shape[0] for p in run_bundle(parser, "network_def").parameters() if p.ndim > 1}
    assert 3 in widths
    assert run_bundle(parser, "inferer").check is False
    assert parser["sequences"][0] == "T1-Gd"


def list_offered(bundle_dir):
    offered = offer_options(bundle_dir, read_bundle(bundle_dir).get())
    return offered["method"].choices if "method" in offered else ["inherent"]


explained = pytest.mark.parametrize(
    "bundle_dir",
    [b for b in BUNDLES if "occlusion_coarse_to_fine" in list_offered(b)],
    ids=lambda path: path.name,
    indirect=True,
)


@explained
@pytest.mark.fault("H")
def test_the_options_of_a_method_can_be_set(bundle_dir):
    """In any order; what another method takes is refused, with the nearest that this one does."""
    method = "occlusion_coarse_to_fine"
    options = {"inferer#explainer#halvings": 1, "inferer#explainer#flips": [0], "method": method}
    explainer = run_bundle(read_bundle(bundle_dir, options=options), "inferer").explainer
    assert (explainer.options["halvings"], explainer.flips) == (1, (0,))
    for wrong, nearest in {"halving": "halvings", "steps": "", "mthod": "method"}.items():
        name = f"inferer#explainer#{wrong}"
        with pytest.raises(OptionError, match=f"got '{name}'. Try: .*{nearest}"):
            read_bundle(bundle_dir, options={"method": method, name: 3})
    with pytest.raises(OptionError, match="method must be one of"):
        read_bundle(bundle_dir, options={"method": "occlusoin", "inferer#explainer#window": 3})
    with pytest.raises(OptionError, match="method must be set as an option of the bundle"):
        run_bundle(
            read_bundle(bundle_dir, options={"inferer#explainer#method": "saliency"}), "inferer"
        )


@pytest.mark.fault("H")
def test_the_report_has_every_override(flair_scan, tmp_path):
    """Of one bundle, for time's sake. What is as shipped, and places, are not overrides."""
    folder = find_bundle("brain_mri_gradcam_segmentation")
    options = {
        "input": str(flair_scan), "output_dir": str(tmp_path), "device": "cpu", "gate": True,
        "method": "smoothgrad", "inferer#explainer#samples": 2, "calibration": [0.0, 1.0],
        "inferer#check": False,
    }  # fmt: skip
    parser = read_bundle(folder, options=options)
    shipped = list_all_options(read_bundle(folder).get())
    (report,) = run_bundle(parser, "evaluator").run()
    assert report["parameters"].keys() - shipped == {
        "calibration", "device", "inferer#explainer#samples", "inferer#check",
    }  # fmt: skip
    assert report["parameters"]["inferer#explainer#samples"] == 2
    assert report["parameters"]["method"] == "smoothgrad"
    assert report["parameters"]["calibration"] == [0.0, 1.0]


@pytest.mark.fault("H")
def test_check_looks_at_every_bundle(bundle_dir):
    """At the layer that the bundle explains, which is not the text of an option."""
    method = "grad_cam" if "grad_cam" in list_offered(bundle_dir) else None
    assert inspect_bundle(str(bundle_dir), method or "inherent", "cpu").sound


def test_licence_of_the_weights_is_said_everywhere(bundle_dir):
    for file in ("LICENSE", "configs/metadata.json", "docs/README.md", "docs/data_license.txt"):
        terms = TERMS.get(bundle_dir.name, "cc by-nc-sa 4.0")
        assert terms in (bundle_dir / file).read_text(encoding="utf-8").lower(), file


def test_weights_of_all_bundles_are_small():
    assert sum(path.stat().st_size for path in PROJECT.glob("bundles/*/models/*")) < 40e6


def test_weights_are_tensors_only(bundle_dir):
    state = torch.load(bundle_dir / "models" / "model.pt", weights_only=True)
    assert all(isinstance(tensor, torch.Tensor) for tensor in state.values())
