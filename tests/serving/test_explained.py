"""What was explained is kept: which requests it answers, and which it must not."""

import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from heatmask.errors import InputError, OptionError
from heatmask.explained import MASK_OPTIONS
from heatmask.pipeline import Pipeline
from heatmask.serving.bundle import ServedBundle
from heatmask.serving.explained import Explanations
from heatmask.serving.studies import index_studies
from heatmask.serving.task import HeatmapInferTask
from helpers.serving_stub import write_bundle, write_scan


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundles" / "stub_segmentation")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study, as the server lists it."""
    write_scan(tmp_path / "studies/p1_flair.nii.gz")
    return index_studies(tmp_path / "studies", tmp_path / "work") / "p1_flair.nii.gz"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry each time that a network is asked."""
    calls, explain = [], Pipeline.explain

    def count(self: Pipeline, image: torch.Tensor) -> dict[str, torch.Tensor]:
        calls.append(self.bundle)
        return explain(self, image)

    monkeypatch.setattr(Pipeline, "explain", count)
    return calls


def make_task(folder: Path, explanations: Explanations | None = None) -> HeatmapInferTask:
    return HeatmapInferTask(ServedBundle(folder), "cpu", explanations)


def run(task: HeatmapInferTask, image: Path, **options) -> np.ndarray:
    file, _ = task({"image": str(image), "result_extension": ".nii.gz", **options})
    mask = np.asarray(nib.load(file).dataobj)
    os.unlink(file)
    return mask


OTHER_MASKS = [
    {"threshold_rule": "multi_otsu"},
    {"min_volume_mm3": 1e6},
    {"snap": True},
    {"preset": "paper"},
]


@pytest.mark.parametrize("options", OTHER_MASKS, ids=lambda options: next(iter(options)))
def test_another_mask_does_not_ask_the_network_and_is_the_same(folder, study, asked, options):
    task = make_task(folder)
    run(task, study)
    again = run(task, study, **options)
    assert len(asked) == 1
    np.testing.assert_array_equal(again, run(make_task(folder), study, **options))


@pytest.mark.parametrize(
    "options",
    [{"slice_axis": "coronal"}, {"gate": False}, {"gate_probability": 0.9}, {"amp": True}],
    ids=lambda options: next(iter(options)),
)
def test_what_reaches_the_network_asks_it_again(folder, study, asked, options):
    task = make_task(folder)
    run(task, study)
    run(task, study, **options)
    assert len(asked) == 2


def test_the_options_of_the_mask_are_those_after_the_heatmap(folder):
    panel = make_task(folder)._panel
    assert "calibration" not in MASK_OPTIONS, "its low end fills the heatmap"
    assert panel.keys() - MASK_OPTIONS == {
        "slice_axis", "gate", "gate_probability", "amp", "device",
    }  # fmt: skip


def test_the_mask_and_the_facts_are_those_of_the_options(folder, study):
    task = make_task(folder)
    first = task({"image": str(study)})[1]
    again = task({"image": str(study), "min_volume_mm3": 1e6})[1]
    assert {"read and prepare", "explain", "make mask", "total"} == first["seconds"].keys()
    assert {"make mask", "total"} == again["seconds"].keys()
    assert (first["classes"][0]["mask_ml"] > 0, again["classes"][0]["mask_ml"]) == (True, 0)
    assert again["options"]["min_volume_mm3"] == 1e6
    assert again["probabilities"] == first["probabilities"]


def test_masks_are_made_of_what_was_explained(folder, study):
    explained = make_task(folder).explain({"image": str(study), "min_volume_mm3": 1e6})
    assert explained.heatmap.shape == explained.scan.shape
    assert explained.heatmap.dtype == torch.float32
    assert explained.make_mask().any(), "its options are the bundle's own"
    assert explained.make_mask().dtype == torch.uint8
    assert not explained.make_mask({"min_volume_mm3": 1e6}).any()
    with pytest.raises(OptionError, match=r"must be one of keep, .*, got gate\."):
        explained.make_mask({"gate": False})


def test_the_answer_says_where_the_threshold_and_otsu_lie(folder, study, tmp_path):
    task = make_task(folder)

    def ask(image: Path = study, **options) -> dict[str, float | None]:
        return task({"image": str(image), **options})[1]["threshold_levels"]["tumour"]

    otsu = ask()["otsu"]
    assert 0.2 < otsu < 0.9
    assert ask() == {"used": otsu, "otsu": otsu}
    fixed = {"threshold_rule": "fixed", "threshold_level": 0.25}
    assert ask(**fixed) == {"used": 0.25, "otsu": otsu}
    assert ask(preset="paper") == {"used": None, "otsu": otsu}
    write_scan(tmp_path / "well_flair.nii.gz", lesion=False)
    assert ask(tmp_path / "well_flair.nii.gz") == {"used": None, "otsu": None}


@pytest.mark.parametrize("level", [0.25, 0.5, 0.75])
def test_a_fixed_level_cuts_the_heatmap_that_is_shown(folder, study, level):
    explained = make_task(folder).explain({"image": str(study)})
    options = {
        "threshold_rule": "fixed", "threshold_level": level,
        "min_volume_mm3": 0, "keep": "all", "smooth_mm": 0, "snap": False,
    }  # fmt: skip
    result = explained.make_result(options)
    above = result.display > level
    assert above.any()
    assert not (above & (result.mask == 0)).any()
    holes = result.mask.bool() & ~above
    assert holes.sum() < 0.05 * above.sum(), "filled"


def test_a_replaced_scan_is_another(folder, study, asked):
    """Also one of the same size and time as the one before."""
    task = make_task(folder)
    file = study.readlink()
    plain = file.with_suffix("")  # .nii: as long, whatever it shows
    nib.save(nib.load(file), plain)
    before, stat = run(task, plain), plain.stat()
    write_scan(file, lesion=False)
    nib.save(nib.load(file), plain)
    os.utime(plain, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert plain.stat().st_size == stat.st_size
    assert before.any()
    assert not run(task, plain).any()
    assert len(asked) == 2


def test_a_scan_that_is_replaced_while_it_is_read_is_an_error(folder, study, monkeypatch):
    prepare, task = Pipeline.prepare, make_task(folder)

    def replace(self, scan, reference):
        write_scan(study.readlink(), lesion=False)
        return prepare(self, scan, reference)

    with monkeypatch.context() as patch:
        patch.setattr(Pipeline, "prepare", replace)
        with pytest.raises(InputError, match="replaced while"):
            run(task, study)
    assert not run(task, study).any()


def test_what_names_say_counts(folder, study, asked):
    """The same bytes as another sequence, by the name or by a sidecar, come with a warning."""
    task = make_task(folder)
    task({"image": str(study)})
    other = study.readlink().with_name("p1_t1.nii.gz")
    other.write_bytes(study.read_bytes())
    assert "T1" in task({"image": str(other)})[1]["warnings"][0]
    study.readlink().with_name("p1_flair.json").write_text('{"SeriesDescription": "t1_mprage"}')
    assert task({"image": str(study)})[1]["warnings"]


def test_the_same_scan_elsewhere_is_known_and_lies_there(folder, study, tmp_path, asked):
    task = make_task(folder)
    run(task, study)
    copy = tmp_path / "elsewhere" / study.name
    copy.parent.mkdir()
    copy.write_bytes(study.read_bytes())
    explained = task.explain({"image": str(copy)})
    assert len(asked) == 1
    assert explained.scan.meta["filename_or_obj"] == str(copy)


def test_other_weights_or_another_config_are_another_model(folder, study, asked):
    task = make_task(folder)
    run(task, study)
    path = folder / "models/model.pt"
    state = torch.load(path)
    state["head.bias"] -= 100
    torch.save(state, path)
    assert not run(task, study).any()
    config = folder / "configs/inference.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"batch_size": 3}))
    run(task, study)
    assert len(asked) == 3


class TestOnDisk:
    """What the network said of studies outlasts the server."""

    @pytest.fixture
    def kept(self, tmp_path: Path) -> Path:
        return tmp_path / "kept"

    def test_a_study_is_known_after_a_restart(self, folder, study, kept, asked):
        before = run(make_task(folder, Explanations(kept)), study)
        after = run(make_task(folder, Explanations(kept)), study, min_volume_mm3=50)
        assert len(asked) == 1
        assert before.any()
        np.testing.assert_array_equal(before, after)
        (file,) = kept.iterdir()
        assert file.stat().st_mode & 0o077 == 0
        assert kept.stat().st_mode & 0o077 == 0

    def test_what_clients_send_is_not_written(self, folder, study, kept):
        run(make_task(folder, Explanations(kept)), study.readlink())
        assert not list(kept.iterdir())

    @pytest.mark.parametrize("damage", ["torn", "empty", "changed", "other"])
    def test_a_damaged_file_is_made_again(self, folder, study, kept, asked, caplog, damage):
        before = run(make_task(folder, Explanations(kept)), study)
        (file,) = kept.iterdir()
        whole = file.read_bytes()
        middle = len(whole) // 2
        file.write_bytes(
            {
                "torn": whole[:middle],
                "empty": b"",
                "changed": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
                "other": b"PK no zip",
            }[damage]
        )
        np.testing.assert_array_equal(before, run(make_task(folder, Explanations(kept)), study))
        assert len(asked) == 2
        assert "damaged" in caplog.text
        assert file.read_bytes() == whole

    def test_drafts_of_a_killed_server_are_gone(self, kept):
        kept.mkdir()
        (kept / ".1234-key.npz").write_bytes(b"half")
        Explanations(kept)
        assert not list(kept.iterdir())

    def test_a_full_disk_spoils_no_answer(self, folder, study, kept, monkeypatch, caplog):
        def fill_up(*_, **__):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(np, "savez", fill_up)
        assert run(make_task(folder, Explanations(kept)), study).any()
        assert "No space left" in caplog.text
        assert not list(kept.iterdir())

    def test_it_is_bounded(self, kept):
        image = MetaTensor(torch.zeros(2, 10, 10, 10))
        said = {"heatmap": torch.zeros(1, 10, 10, 10)}
        explanations = Explanations(kept, disk_bytes=10_000)
        for n, key in enumerate(("a", "b")):
            explanations.write(key, said)
            os.utime(kept / f"{key}.npz", (n, n))
        assert explanations.read("a", image) is not None
        explanations.write("c", said)
        assert explanations.read("b", image) is None, "unused for longest"
        assert explanations.read("a", image) is not None
        Explanations(kept, disk_bytes=3_000).write("d", said)
        assert not (kept / "d.npz").exists()


def test_the_memory_is_bounded_and_the_longest_unused_goes_first(folder, study, asked):
    size = make_task(folder).explain({"image": str(study)}).nbytes
    task = make_task(folder, Explanations(memory_bytes=2 * size))
    for axis in ("axial", "coronal", "axial", "sagittal", "axial"):
        run(task, study, slice_axis=axis)
    assert len(asked) == 1 + 3
    run(task, study, slice_axis="coronal")
    assert len(asked) == 1 + 4
    small = make_task(folder, Explanations(memory_bytes=size - 1))
    run(small, study), run(small, study)
    assert len(asked) == 1 + 4 + 2


def test_what_was_not_used_for_a_while_is_forgotten(folder, study, asked):
    task = make_task(folder)
    run(task, study)
    task._explanations.expire(3600)
    run(task, study)
    assert len(asked) == 1
    task._explanations.expire(-1)
    run(task, study)
    assert len(asked) == 2


def test_what_is_likely_to_need_no_network_is_known_beforehand(folder: Path, study: Path) -> None:
    """For the queue: by image and options, without reading the scan."""
    explanations = Explanations()
    task, request = make_task(folder, explanations), {"image": str(study)}
    assert not task.knows(request)
    run(task, study)
    assert all(task.knows({**request, **options}) for options in ({}, *OTHER_MASKS))
    assert not task.knows({**request, "slice_axis": "coronal"})
    assert not task.knows({**request, "threshold_rule": "none of them"})
    assert not task.knows({"image": str(study.with_name("other.nii.gz"))})
    assert not task.knows({})
    explanations.expire(older_than_s=-1)
    assert not task.knows(request)
