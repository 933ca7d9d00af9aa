"""One request: options and scan in, mask and facts out."""

import json
import os
import threading
import time
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from heatmask.data.scan import load_scan
from heatmask.errors import (
    DeviceError,
    Failures,
    HeatmaskError,
    InputError,
    OptionError,
    WeightsError,
)
from heatmask.pipeline import Pipeline
from heatmask.serving.app import HeatmaskApp, make_tasks
from heatmask.serving.bundle import ServedBundle, find_bundles, read_labels
from heatmask.serving.studies import index_studies
from heatmask.serving.task import HeatmapInferTask, hold_device
from heatmask.serving.volume_file import write_volume
from helpers.phantom import make_phantom, write_phantom
from helpers.serving_stub import make_config, make_metadata, tilt_affine, write_bundle, write_scan


@pytest.fixture
def bundle_folder(tmp_path) -> Path:
    return write_bundle(tmp_path / "bundles" / "stub_segmentation")


@pytest.fixture
def task(bundle_folder) -> HeatmapInferTask:
    return HeatmapInferTask(ServedBundle(bundle_folder))


@pytest.fixture
def scan(tmp_path) -> tuple[Path, np.ndarray]:
    path = tmp_path / "p1" / "p1-flair.nii.gz"
    return path, write_scan(path)


def score_dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def request_for(path: Path, **options) -> dict:
    """What Slicer sends, image_path and all."""
    return {
        "model": "stub_segmentation",
        "image": str(path),
        "image_path": str(path),
        "description": "",
        "client_id": "user-xyz",
        "result_extension": ".nii.gz",
        "result_dtype": "uint8",
        **options,
    }


def run(task: HeatmapInferTask, path: Path, **options) -> tuple[np.ndarray, np.ndarray, dict]:
    file, facts = task(request_for(path, **options))
    try:
        mask = nib.load(file)
        return np.asarray(mask.dataobj), mask.affine, facts
    finally:
        os.unlink(file)


def test_the_mask_is_uint8_and_lies_on_the_scan(task, scan):
    path, lesion = scan
    mask, affine, facts = run(task, path)
    assert mask.dtype == np.uint8
    np.testing.assert_allclose(affine, tilt_affine(), atol=1e-4)
    assert score_dice(mask == 1, lesion) > 0.95
    assert set(np.unique(mask)) == {0, 1}
    assert facts["probabilities"]["tumour"] > 0.9


def test_nrrd_is_what_viewers_ask_for_and_lies_on_the_scan(task, scan):
    path, lesion = scan
    file, _ = task(request_for(path, result_extension=".nrrd"))
    data, header = nrrd.read(file)
    os.unlink(file)
    assert data.dtype == np.uint8
    assert header["space"] == "left-posterior-superior"
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ tilt_affine()
    np.testing.assert_allclose(header["space directions"], lps[:3, :3].T, atol=1e-4)
    np.testing.assert_allclose(header["space origin"], lps[:3, 3], atol=1e-4)
    assert score_dice(data == 1, lesion) > 0.95


def test_the_facts_are_plain_values_with_all_that_was_promised(task, scan):
    _, _, facts = run(task, scan[0], threshold_level="0.5", gate=False)
    assert json.loads(json.dumps(facts)) == facts
    assert facts["label_names"] == {"tumour": 1}
    assert facts["device"] == "cpu" or facts["device"].startswith("cuda")
    assert facts["options"]["threshold_level"] == 0.5
    assert facts["options"]["gate"] is False
    assert facts["seconds"]["total"] > 0
    assert facts["warnings"] == []
    assert facts["finding"].startswith("Tumour predicted (p = ")


def test_no_tumour_is_an_answer(task, tmp_path):
    path = tmp_path / "healthy-flair.nii.gz"
    write_scan(path, lesion=False)
    mask, _, facts = run(task, path)
    assert not mask.any()
    assert mask.dtype == np.uint8
    assert facts["finding"].startswith("No tumour predicted (p = ")


def test_a_wrong_sequence_is_a_warning(task, tmp_path):
    path = tmp_path / "p1-t1.nii.gz"
    write_scan(path)
    _, _, facts = run(task, path)
    assert len(facts["warnings"]) == 1
    assert "T1" in facts["warnings"][0]


def link_study(tmp_path: Path, affine: np.ndarray) -> tuple[Path, np.ndarray]:
    """A study of FLAIR with the lesion and T1-Gd without, as the host sees it."""
    mask = write_scan(tmp_path / "studies/p1_flair.nii.gz")
    write_scan(tmp_path / "studies/p1_t1ce.nii.gz", lesion=False, affine=affine)
    return index_studies(tmp_path / "studies", tmp_path / "work") / "p1_flair.nii.gz", mask


@pytest.mark.parametrize("sequences", [["FLAIR"], ["T1-Gd"]])
def test_the_siblings_of_a_study_go_to_the_model(bundle_folder, tmp_path, sequences):
    """The stub's network takes one sequence: that of FLAIR, or the sibling's on its grid."""
    other = tilt_affine() @ np.diag([1.0, 1.0, 1.1, 1.0])
    path, lesion = link_study(tmp_path, other)
    config = make_config() | {"sequences": sequences}
    (bundle_folder / "configs/inference.json").write_text(json.dumps(config))
    mask, affine, facts = run(HeatmapInferTask(ServedBundle(bundle_folder)), path)
    assert facts["sequences"] == sequences
    assert facts["sequence"] == "FLAIR", "the scan that the viewer shows"
    left_out = "T1-Gd" if sequences == ["FLAIR"] else "FLAIR"
    assert facts["warnings"] == [f"Left out, the network takes {sequences[0]}: {left_out}."]
    np.testing.assert_allclose(affine, tilt_affine(), atol=1e-4)
    assert mask.shape == lesion.shape
    assert bool(mask.any()) == (sequences == ["FLAIR"])


def test_a_scan_alone_is_a_single(task, scan):
    _, _, facts = run(task, scan[0])
    assert (facts["sequences"], facts["sequence"]) == (["FLAIR"], "FLAIR")


def test_info_shows_a_segmentation_with_its_label_and_options(task):
    info = task.info()
    assert info["type"] == "segmentation"
    assert info["labels"] == {"tumour": 1}
    assert info["dimension"] == 3
    config = info["config"]
    assert config["threshold_rule"][0] == "otsu"
    assert config["slice_axis"] == ["axial", "coronal", "sagittal"]
    assert config["gate"] is True
    assert config["min_volume_mm3"] == 100.0
    assert config["device"][:2] == ["auto", "cpu"]
    assert ("cuda" in config["device"]) == torch.cuda.is_available()


def test_options_change_the_mask_and_do_not_stay(task, scan):
    before = run(task, scan[0])[0]
    low, high = (
        run(task, scan[0], threshold_rule="fixed", threshold_level=level)[0] for level in (0.1, 0.9)
    )
    large = run(task, scan[0], min_volume_mm3=1e6)[0]
    after = run(task, scan[0])[0]
    assert before.any()
    assert low.sum() > high.sum() > 0
    assert not large.any()
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(("axis", "slices"), [("axial", 14), ("coronal", 52), ("sagittal", 60)])
def test_the_slice_axis_is_the_patients(task, scan, axis, slices):
    mask, affine, facts = run(task, scan[0], slice_axis=axis)
    lengths = {"axial": 14, "sagittal": 60, "coronal": 52}
    assert facts["slices"]["count"] == lengths[axis]
    assert slices in lengths.values()
    np.testing.assert_allclose(affine, tilt_affine(), atol=1e-4)
    assert score_dice(mask == 1, scan[1]) > 0.85


@pytest.mark.parametrize("code", ["$open('owned', 'w')", "@network_def", "%inference.json"])
def test_code_in_a_request_is_refused_before_the_parser(task, scan, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionError, match="must not start with"):
        task(request_for(scan[0], threshold_level=code))
    assert not (tmp_path / "owned").exists()


def test_config_items_are_no_options(task, scan):
    mask, _, facts = run(task, scan[0], network_def={"_target_": "os.getcwd"})
    assert score_dice(mask == 1, scan[1]) > 0.95
    assert any("network_def" in warning for warning in facts["warnings"])


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"result_extension": ".exe"}, "result_extension must be one of"),
        ({"result_extension": "/../../x.nrrd"}, "result_extension must be one of"),
        ({"result_dtype": "float32"}, "result_dtype must be one of"),
        ({"device": "tpu"}, "device must be one of auto, cpu"),
        ({"threshold_rule": "magic"}, "threshold_rule must be one of"),
    ],
)
def test_wrong_options_are_refused(task, scan, option, message):
    with pytest.raises(OptionError, match=message):
        task(request_for(scan[0], **option))


@pytest.mark.parametrize("image", ["", None, np.zeros((4, 5, 6))], ids=["empty", "none", "pixels"])
def test_a_request_without_a_path_is_refused(task, image):
    with pytest.raises(InputError, match="must name a scan"):
        task({"image": image})


def test_a_scan_that_cannot_be_read_is_named_and_not_wrapped(task, tmp_path):
    path = tmp_path / "flair.nii.gz"
    path.write_bytes(b"no image")
    with pytest.raises(InputError, match=r"flair\.nii\.gz"):
        task(request_for(path))


def test_cuda_by_name_needs_a_gpu(bundle_folder):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(DeviceError, match="needs a CUDA GPU"):
        HeatmapInferTask(ServedBundle(bundle_folder), device="cuda")


def test_weights_that_do_not_fit_are_refused(task, bundle_folder):
    path = bundle_folder / "models/model.pt"
    wrapped = {"network." + k: v for k, v in torch.load(path).items()}
    torch.save(wrapped, path)
    with pytest.raises(WeightsError, match="must fit GPUNet"):
        task.load()


def test_changed_weights_are_loaded_and_others_kept(bundle_folder):
    bundle, cpu = ServedBundle(bundle_folder), torch.device("cpu")
    network = bundle.load_network(cpu)
    assert bundle.load_network(cpu) is network
    path = bundle_folder / "models/model.pt"
    state = torch.load(path)
    state["head.bias"] += 1
    torch.save(state, path)
    os.utime(path, (1, 1))
    assert bundle.load_network(cpu).head.bias == network.head.bias + 1


def test_missing_weights_are_an_error(task, scan, bundle_folder):
    (bundle_folder / "models/model.pt").unlink()
    with pytest.raises(WeightsError, match="there is no file"):
        task(request_for(scan[0]))


def test_threads_get_their_own_answers(task, tmp_path):
    """60 calls from 4 threads, alternating between two scans and two sets of options."""
    ill, healthy = tmp_path / "ill-flair.nii.gz", tmp_path / "well-flair.nii.gz"
    write_scan(ill)
    write_scan(healthy, lesion=False)
    jobs = [(ill, 0.0), (healthy, 0.0), (ill, 1e6)]
    expected = [run(task, path, min_volume_mm3=volume)[0] for path, volume in jobs]
    assert [mask.any() for mask in expected] == [True, False, False]
    wrong = []

    def work(offset: int) -> None:
        for call in range(15):
            k = (call + offset) % 3
            path, volume = jobs[k]
            try:
                mask = run(task, path, min_volume_mm3=volume)[0]
                if not np.array_equal(mask, expected[k]):
                    wrong.append((k, "other mask"))
            except Exception as error:  # noqa: BLE001 - reported below, from this thread
                wrong.append((k, error))

    threads = [threading.Thread(target=work, args=(offset,)) for offset in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.fault("H")
def test_two_bundles_never_run_at_once_on_a_device(scan, tmp_path, monkeypatch):
    names = ("a_segmentation", "b_segmentation")
    bundles = [ServedBundle(write_bundle(tmp_path / "two" / name)) for name in names]
    tasks = [HeatmapInferTask(bundle, "cpu") for bundle in bundles]
    running, most, explain = [], [], Pipeline.explain

    def watch(self, image):
        running.append(image)
        most.append(len(running))
        time.sleep(0.05)
        try:
            return explain(self, image)
        finally:
            running.pop()

    monkeypatch.setattr(Pipeline, "explain", watch)
    threads = [threading.Thread(target=run, args=(task, scan[0])) for task in 2 * tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1], "each is asked once"


def test_a_device_is_held_by_one_under_any_name():
    def run_out_of_patience(*_):
        raise InterruptedError

    others = [hold_device(torch.device(name)) for name in ("cuda", "cuda:1", "cpu")]
    with (
        others[0], others[1], others[2],
        pytest.raises(InterruptedError),
        hold_device(torch.device("cuda:0"), run_out_of_patience),
    ):  # fmt: skip
        pass
    with hold_device(torch.device("cuda:0")):
        pass


def test_a_plain_tensor_has_no_place_and_is_not_written():
    plain = torch.zeros(1, 4, 5, 6, dtype=torch.uint8)
    with pytest.raises(TypeError, match="must be a MetaTensor"):
        write_volume(plain, MetaTensor(plain), ".nrrd", "uint8")


@pytest.mark.fault("C")
def test_the_mask_lies_where_a_viewer_shows_a_scan_with_two_forms(tmp_path):
    """A viewer built on ITK shows such a scan by its qform, and an NRRD has one place only."""
    qform, sform = tilt_affine(), tilt_affine()
    sform[:3, 3] += (20, -15, 10)
    image = nib.Nifti1Image(np.arange(120, dtype=np.int16).reshape(4, 5, 6), sform)
    image.set_sform(sform, 2)
    image.set_qform(qform, 1, update_affine=False)
    nib.save(image, tmp_path / "flair.nii.gz")
    ((_, scan),) = load_scan(tmp_path / "flair.nii.gz")
    mask = MetaTensor(torch.zeros(1, 4, 5, 6, dtype=torch.uint8), affine=scan.affine)
    _, header = nrrd.read(write_volume(mask, scan, ".nrrd", "uint8"))
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ qform
    np.testing.assert_allclose(header["space directions"], lps[:3, :3].T, atol=1e-4)
    np.testing.assert_allclose(header["space origin"], lps[:3, 3], atol=1e-4)
    for extension in (".nii.gz", ".nii"):
        written = nib.load(write_volume(mask, scan, extension, "uint16"))
        assert written.get_data_dtype() == np.uint16
        np.testing.assert_allclose(written.get_sform(), sform, atol=1e-4)
        np.testing.assert_allclose(written.get_qform(), qform, atol=1e-4)


class TestBundles:
    """Which bundles are served, and what they must say."""

    @pytest.mark.fault("E")
    def test_a_bundle_that_cannot_be_served_stops_no_other(self, bundle_folder, tmp_path, caplog):
        root = bundle_folder.parent
        names = ("half", "metadata", "weights", "names")
        half, metadata, weights, named = (write_bundle(root / name) for name in names)
        (half / "models/model.pt").unlink()
        torch.save({"model": {}}, weights / "models/model.pt")
        (metadata / "configs/metadata.json").write_text("{}")
        (named / "configs/inference.json").write_text(
            json.dumps(make_config() | {"class_names": ["meningioma"]})
        )
        folders = sorted(root.iterdir())
        conf = {"bundles": os.pathsep.join(map(str, folders)), "device": "cpu"}
        (tmp_path / "flat").mkdir()
        app = HeatmaskApp("", str(tmp_path / "flat"), conf)
        app.loading.run()
        assert list(app.models) == ["stub_segmentation"]
        first, last = (r.getMessage() for r in caplog.records if "these are not" in r.getMessage())
        assert "half: It lacks models/model.pt." in first
        assert "network_data_format" in first
        assert "names tumour and class_names" in first
        assert "must fit GPUNet" in last

    def test_without_a_complete_bundle_there_is_no_server(self, bundle_folder, tmp_path):
        (bundle_folder / "docs/data_license.txt").unlink()
        with pytest.raises(InputError, match=r"lacks docs/data_license\.txt"):
            make_tasks([bundle_folder], "cpu")
        with pytest.raises(InputError, match="Found: none"):
            make_tasks([], "cpu")

    @pytest.mark.fault("H")
    def test_class_names_keep_their_case(self, bundle_folder, scan):
        """In the list of labels, the finding and the facts."""
        metadata = make_metadata()
        channels = {"0": "background", "1": "HGG"}
        metadata["network_data_format"]["outputs"]["pred"]["channel_def"] = channels
        (bundle_folder / "configs/metadata.json").write_text(json.dumps(metadata))
        config = make_config() | {"class_names": ["HGG"]}
        (bundle_folder / "configs/inference.json").write_text(json.dumps(config))
        (bundle,) = find_bundles([bundle_folder], Failures())
        facts = run(HeatmapInferTask(bundle), scan[0])[2]
        assert facts["label_names"] == bundle.labels == {"HGG": 1}
        assert facts["finding"].startswith("HGG predicted (p = ")

    @pytest.mark.parametrize(
        "channels",
        [
            {"0": "background", "2": "tumour"},
            {"0": "tumour"},
            {"0": "other", "1": "tumour"},
            {"0": "background"},
            {},
        ],
    )
    def test_labels_that_would_shift_in_the_viewer_are_refused(self, channels):
        metadata = make_metadata()
        metadata["network_data_format"]["outputs"]["pred"]["channel_def"] = channels
        with pytest.raises(InputError, match="without a gap"):
            read_labels(metadata)

    def test_an_option_outside_the_panel_keeps_its_value(self, bundle_folder, scan):
        config = make_config() | {"min_volume_mm3": 1e6}
        (bundle_folder / "configs/inference.json").write_text(json.dumps(config))
        mask, _, facts = run(HeatmapInferTask(ServedBundle(bundle_folder)), scan[0])
        assert facts["options"]["min_volume_mm3"] == 1e6
        assert not mask.any()


def test_the_real_bundle_segments_a_phantom(bundle_dir, tmp_path):
    """Its weights may be anything here: what counts is that the road is open."""

    task = HeatmapInferTask(ServedBundle(bundle_dir))
    phantom = make_phantom(seed=1, shape=(96, 112, 16), spacing_mm=(2.0, 2.0, 8.0))
    path = tmp_path / "phantom-flair.nii.gz"
    write_phantom(phantom, path, tmp_path / "lesion.nii.gz")
    mask, affine, facts = run(task, path)
    assert mask.shape == phantom.image.shape
    np.testing.assert_allclose(affine, phantom.affine, atol=1e-4)
    assert facts["label_names"] == {"tumour": 1}
    assert facts["warnings"] == []


def test_errors_of_the_pipeline_are_heatmask_errors(task, tmp_path):
    """MONAI's Compose wraps what a transform raises; the client must get the reason."""
    path = tmp_path / "flat-flair.nii.gz"
    nib.save(nib.Nifti1Image(np.full((9, 10, 11), np.nan, np.float32), tilt_affine()), path)
    with pytest.raises(HeatmaskError, match="are NaN"):
        task(request_for(path))
