"""The benchmark's own arithmetic. No test here is timed: speed is told by `make bench`."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch):
    """Import a module of the benchmarks folder, which is no package."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))

    def load_module(name: str) -> ModuleType:
        return import_module(name)

    yield load_module
    for name in ("timing", "processes", "pipeline", "run"):
        sys.modules.pop(name, None)


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
    command = [sys.executable, "-c", load("processes")._MEASURE_PEAK, sys.executable, "-c"]

    def measure_peak_mib(code: str) -> float:
        done = subprocess.run([*command, code], capture_output=True, text=True, check=True)
        return int(done.stdout) * (1 if sys.platform == "darwin" else 1024) / 2**20

    assert measure_peak_mib("pass") < 100
    assert 200 < measure_peak_mib("x = bytearray(b'1') * (200 * 2**20)") < 300
    assert len(ballast) == 300 * 2**20


def test_a_command_that_fails_is_not_measured(load, tmp_path, monkeypatch) -> None:
    processes = load("processes")
    phantom = load("run").make_phantom(0, (8, 9, 10), (30.0, 30.0, 20.0))
    monkeypatch.setattr(processes, "HEATMASK", [sys.executable, "-c", "import sys; sys.exit(3)"])
    with pytest.raises(SystemExit, match="must succeed to be measured"):
        processes.measure_memory(phantom, tmp_path, 1)


def test_the_table_tells_what_is_missed(load) -> None:
    run, row = load("run"), load("timing").Row
    rows = [row("slow", "ms", [30.0], "peer", [10.0], limit=2.0), row("told", "MiB", [7.0])]
    console = run.Console(width=100, record=True)
    console.print(run.make_table(rows))
    text = console.export_text()
    assert "3.00" in text
    assert "<= 2 x" in text
    assert " no " in text
    assert " yes " not in text
    assert "7 MiB" in text


def test_every_row_of_the_pipeline_can_be_measured(load, bundle_dir: Path) -> None:
    pipeline = load("pipeline")
    phantom = load("run").make_phantom(12, (64, 72, 8), (3.5, 3.5, 20.0))
    segmenter = pipeline.build_segmenter(str(bundle_dir))
    row = pipeline.measure_around(segmenter, phantom, 1, "x")
    assert len(row.ours) == len(row.peer) == 1
    assert "of 8 slices shown" in row.what
    assert len(pipeline.measure_forward(segmenter, phantom, 1).ratios) == 1
