"""The `heatmask` command as a process of its own: how soon it answers, how much it needs."""

import os
import subprocess
import sys
from pathlib import Path

from phantom import Phantom, write_phantom
from timing import Row, measure_in_turn

HEATMASK = [sys.executable, "-m", "heatmask.cli"]
HELP_LIMIT_MS = 500.0
MEMORY_LIMIT_MIB = 2.5 * 1024

# A process starts with the peak memory of the one that started it on its books. This small
# one stands in between, so that the benchmark's own gigabytes are not counted.
_MEASURE_PEAK = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(done.returncode)
"""


def measure_help(repeats: int) -> Row:
    """Measure `heatmask --help` from start to exit, beside a Python that does nothing."""

    def run_command(*command: str) -> None:
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)

    ours, peer = measure_in_turn(
        lambda: run_command(*HEATMASK, "--help"),
        lambda: run_command(sys.executable, "-c", "pass"),
        repeats,
    )
    return Row("heatmask --help", "ms", ours, "python -c pass", peer, HELP_LIMIT_MS, False)


def measure_memory(phantom: Phantom, folder: Path, threads: int) -> Row:
    """Measure the peak memory of `heatmask segment` from file to picture, on the CPU."""
    scan = folder / "phantom.nii.gz"
    write_phantom(phantom, scan, folder / "lesion.nii.gz")
    segment = [*HEATMASK, "segment", str(scan), "--output", str(folder / "out"), "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE_PEAK, *segment],
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"heatmask segment must succeed to be measured:\n{done.stderr}")
    unit = 1 if sys.platform == "darwin" else 1024  # bytes, or KiB
    peak_mib = int(done.stdout) * unit / 2**20
    return Row(
        "Peak memory of heatmask segment",
        "MiB",
        [peak_mib],
        limit=MEMORY_LIMIT_MIB,
        limit_on_ratio=False,
    )
