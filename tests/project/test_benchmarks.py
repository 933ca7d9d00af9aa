"""The benchmark's own arithmetic. No test here is timed: speed is told by `make bench`."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import torch
from rich.console import Console

from heatmask.attribution import explain
from helpers.project import PROJECT

BENCHMARKS = PROJECT / "benchmarks"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch):
    """Import a module of the benchmarks folder, which is no package."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))

    def load_module(name: str) -> ModuleType:
        return import_module(name)

    yield load_module
    for path in BENCHMARKS.glob("*.py"):
        sys.modules.pop(path.stem, None)


def test_peer_and_ours_are_called_in_turn(load) -> None:
    calls: list[str] = []
    ours, peer = load("timing").measure_in_turn(
        lambda: calls.append("ours"), lambda: calls.append("peer"), 3
    )
    assert calls == ["peer", "ours"] * 4  # the first pair is not measured
    assert len(ours) == len(peer) == 3


def test_a_ratio_is_taken_pair_by_pair(load) -> None:
    samples = [10.0, 40.0, 90.0], "y", [1.0, 100.0, 90.0]  # of the medians it would be 0.44
    row = load("timing").Row("x", "ms", *samples, limit=1.0)
    assert row.ratios == [10.0, 0.4, 1.0]
    assert row.met is True
    assert row.as_dict()["ratio_median"] == 1.0
    assert load("timing").Row("x", "ms", *samples, limit=0.9).met is False


@pytest.mark.parametrize(("limit", "met"), [(29.0, False), (30.0, True), (None, None)])
def test_a_limit_may_be_on_ours(load, limit: float | None, met: bool | None) -> None:
    row = load("timing").Row("x", "MiB", [10.0, 30.0, 900.0], limit=limit, limit_on_ratio=False)
    assert row.met is met
    assert row.ratios == []


def test_the_peak_of_a_process_leaves_out_its_parent(load) -> None:
    ballast = bytearray(300 * 2**20)  # in this process; a child must not be charged for it
    command = [sys.executable, "-c", load("command_line")._MEASURE_PEAK, sys.executable, "-c"]

    def measure_peak_mib(code: str) -> float:
        done = subprocess.run([*command, code], capture_output=True, text=True, check=True)
        return int(done.stdout) * (1 if sys.platform == "darwin" else 1024) / 2**20

    assert measure_peak_mib("pass") < 100
    assert 200 < measure_peak_mib("x = bytearray(b'1') * (200 * 2**20)") < 300
    assert len(ballast) == 300 * 2**20


def test_a_command_that_fails_is_not_measured(load, tmp_path, monkeypatch) -> None:
    processes = load("command_line")
    phantom = load("run").make_phantom(0, (8, 9, 10), (30.0, 30.0, 20.0))
    monkeypatch.setattr(processes, "HEATMASK", [sys.executable, "-c", "import sys; sys.exit(3)"])
    with pytest.raises(SystemExit, match="must succeed to be measured"):
        processes.measure_memory(phantom, tmp_path, 1)


def test_the_table_tells_what_is_missed(load) -> None:
    make = load("timing").Row
    rows = [make("slow", "ms", [30.0], "peer", [10.0], limit=2.0), make("told", "MiB", [7.0])]
    console = Console(width=100, record=True)
    console.print(load("tables").make_table(rows))
    text = console.export_text()
    assert "3.00" in text
    assert "<= 2 x" in text
    assert " no " in text
    assert " yes " not in text
    assert "7 MiB" in text


def test_a_table_for_each_group(load) -> None:
    make = load("timing").Row
    rows = [make("a", "ms", [1.0], group=group) for group in ("2D", "2D", "3D")]
    first, second = load("tables").make_tables(rows)
    assert (first.title, first.row_count) == ("2D: medians", 2)
    assert (second.title, second.row_count) == ("3D: medians", 1)


def test_every_row_of_the_pipeline_can_be_measured(load, bundle_dir: Path) -> None:
    pipeline = load("pipeline")
    phantom = load("run").make_phantom(12, (64, 72, 8), (3.5, 3.5, 20.0))
    segmenter = pipeline.build_pipeline(str(bundle_dir))
    row = pipeline.measure_around(segmenter, phantom, 1, "x")
    assert len(row.ours) == len(row.peer) == 1
    assert "of 8 slices shown" in row.what
    assert len(pipeline.measure_forward(segmenter, phantom, 1).ratios) == 1


def test_plans_by_device_and_wish(load, monkeypatch) -> None:
    attribution, subjects = load("attribution"), load("attribution_inputs")
    for there, devices in ((False, ["cpu"]), (True, ["cpu", "cuda"])):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert [plan.device for plan in attribution.choose_plans()] == devices
    (quick,) = attribution.choose_plans(quick=True, repeats=7)
    assert (quick.side, quick.repeats, subjects.QUICK.repeats) == (32, 7, 1)
    assert (subjects.CUDA.scan_slices, subjects.CUDA.empty_slices) == (155, 17)


@pytest.mark.parametrize("dims", [2, 3])
def test_the_floor_does_what_it_says(load, dims: int) -> None:
    """F is the gradient of one class; the CAM's lower bound ends at the layer."""
    floor, subjects = load("lower_bound"), load("attribution_inputs")
    subject = subjects.make_subject(subjects.QUICK, 2, 32, dims)
    assert subject.images.eq(0).flatten(1).any(1).all()
    assert subject.images.flatten(1).std(1).gt(0.1).all()
    gradients = []
    subject.frozen.conv1.register_full_backward_hook(lambda *seen: gradients.append(seen))
    floor.run_above(subject)
    assert gradients == []
    floor.run_bound(subject)
    assert len(gradients) == 1
    assert all(p.grad is None and not p.requires_grad for p in subject.frozen.parameters())
    assert all(p.requires_grad for p in subject.network.parameters())


@pytest.mark.parametrize("dims", [2, 3])
def test_occlusion_is_beside_the_forwards_it_does(load, dims: int) -> None:
    floor, subjects = load("lower_bound"), load("attribution_inputs")
    subject = subjects.make_subject(subjects.QUICK, 1, 32, dims)
    run = {"ours": 0, "peer": 0}

    def count(name: str):
        def hook(module, inputs) -> None:
            run[name] += len(inputs[0])

        return hook

    subject.network.register_forward_pre_hook(count("ours"))
    subject.frozen.register_forward_pre_hook(count("peer"))
    window = 8 if dims == 2 else 16
    explain(subject.network, subject.images, "occlusion", window=window, check=False)
    ours, run["ours"] = run["ours"], 0
    row = floor.measure_occlusion(subject, subjects.QUICK)
    peer = run["peer"] // 2  # once unmeasured
    assert peer == ours
    assert f"the {peer} forwards" in row.peer_name


def test_every_row_beside_the_floor_can_be_measured(load) -> None:
    floor, subjects = load("lower_bound"), load("attribution_inputs")
    subject = subjects.make_subject(subjects.QUICK, 2, 32, 2)
    rows = [
        *floor.measure_single(subject, subjects.QUICK),
        floor.measure_rules(subject, subjects.QUICK),
        *floor.measure_cams(subject, subjects.QUICK),
        *floor.measure_many(subject, subjects.QUICK),
    ]
    assert all(len(row.ratios) == 1 and row.limit for row in rows)
    assert len(rows) == 13
    assert {row.group for row in rows} == {"ResNet-18 2D, 2 slices of 32 x 32, cpu"}


def test_the_floor_of_n_steps_is_n_times_f(load, monkeypatch) -> None:
    floor, subjects, row = load("lower_bound"), load("attribution_inputs"), load("timing").Row
    monkeypatch.setattr(floor, "compare", lambda *given: row(given[2], "ms", [9.0], "n F", [4.0]))
    monkeypatch.setattr(floor, "make_call", lambda *given, **options: None)
    rows = list(floor.measure_many(None, subjects.QUICK))
    assert [row.peer for row in rows] == [[8.0], [8.0]]


def test_ours_and_the_usual_way_give_the_same_maps(load, monkeypatch) -> None:
    """The peers do the same work, and ours leaves out empty slices only."""
    usual, subjects = load("scan_attribution"), load("attribution_inputs")
    calls = {}

    def capture(plan, subject, what, ours, peer_name, peer, limit):
        calls[what.split()[0]] = ours, peer, limit

    monkeypatch.setattr(usual, "compare", capture)
    list(usual.measure_scans(subjects.QUICK))
    assert calls["saliency"][2] == pytest.approx(1 / 1.5)
    assert calls["grad_cam"][2] == 1 / 4
    for method in ("saliency", "input_x_gradient", "guided_backprop", "deconvolution"):
        ours, peer, _ = calls[method]
        found, right = ours()["heatmap"][0, 0], torch.cat(peer())[:, 0].movedim(0, -1)
        assert not found[..., 0].any()
        torch.testing.assert_close(found[..., 1:], right[..., 1:], rtol=1e-3, atol=1e-7)
    assert calls["grad_cam"][0]()["heatmap"].shape == (1, 1, 32, 32, 3)
    assert len(calls["grad_cam"][1]()) == len(calls["lrp_epsilon_plus"][1]()) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_peak_beside_the_promise(load) -> None:
    promise, subjects = load("memory_limit"), load("attribution_inputs")
    size, peak_gb = promise.measure_peak("grad_cam", 0.5, subjects.QUICK, threads=1)
    assert size > 8  # of tiny images
    assert 0.005 < peak_gb < 0.5
    with pytest.raises(SystemExit, match=r"must succeed(?s:.*)one image needs, got 0\.2"):
        promise.measure_peak("grad_cam", 0.2, subjects.QUICK, threads=1)


def test_cases_side_by_side(load, lgg: Path, bundle_dir: Path, tmp_path: Path) -> None:
    picture = tmp_path / "cases.png"
    load("draw_bundles").main(lgg, bundle=[bundle_dir.name], patient=["TCGA-HT-8107"],
                              split="test", pattern=None, output=picture)  # fmt: skip
    assert picture.stat().st_size > 20_000
