"""How fast pictures are read for training, the first time and again, and how much memory it takes.

``python benchmarks/pictures.py --count 2000``. The pictures are generated: grey JPEGs of the size
of an ultrasound image. Each start is a process of its own; its time is that of `SliceDataset`,
without imports. CPU time, of all processes together, tells what a machine that others use as well
could do. Memory is what no file backs, above what it was before.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table
from tables import describe_machine
from torch.utils.data import DataLoader

from heatmask.authoring.config import adapt_training
from heatmask.authoring.task import OwnTask
from heatmask.bundle import find_bundle, read_bundle
from heatmask.data.label_table import LabelTable, read_label_table
from heatmask.data.recognition.sequence import UNKNOWN
from heatmask.training.slices import SliceDataset

BUNDLE, SIZE = "brain_mri_gradcam_segmentation", (128, 128)
console = Console(highlight=False)


def draw_pictures(folder: Path, count: int, shape: tuple[int, int]) -> None:
    """Write JPEGs of soft noise, and a table with a label for each."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 255, (64, shape[0] // 8, shape[1] // 8), np.uint8)
    lines = ["image,label,split"]
    for number in track(range(count), "Drawing pictures"):
        small = Image.fromarray(coarse[number % 64]).resize(shape[::-1], Image.Resampling.BICUBIC)
        small.paste(number % 251, (number % 200, number // 251 % 200, 250, 250))
        small.putpixel((0, 0), number // 50_000 % 251)
        small.save(folder / f"{number:06d}.jpg", quality=95)
        lines.append(f"{number:06d}.jpg,{number % 2},{'val' if number % 5 == 0 else 'train'}")
    (folder / "labels.csv").write_text("\n".join(lines), encoding="utf-8")


def measure_start(folder: Path) -> dict[str, float]:
    """Read the table and all pictures, and go through them once as an epoch does."""
    parser = read_bundle(find_bundle(BUNDLE), ("train",), {"image_size": [*SIZE]})
    adapt_training(parser, OwnTask(("x",), True, True, (UNKNOWN,)))
    preprocessing = parser.get_parsed_content("preprocessing")
    before, peak = _read_memory(), [0.0]
    threading.Thread(target=_watch, args=(peak,), daemon=True).start()
    seconds = [time.perf_counter()]
    table: LabelTable = read_label_table(folder / "labels.csv", folder, ["x"])
    seconds.append(time.perf_counter())
    cpu = sum(os.times()[:4])
    dataset = SliceDataset(table.select("train", "val"), preprocessing, SIZE)
    seconds.append(time.perf_counter())
    cpu = sum(os.times()[:4]) - cpu
    for _ in DataLoader(dataset, batch_size=32, shuffle=True):
        pass
    seconds.append(time.perf_counter())
    took = np.diff(seconds)
    return {
        "cpu_s": cpu,
        "table_s": took[0], "read_s": took[1], "pictures_per_s": len(dataset) / took[1],
        "epoch_s": took[2], "memory_mb": max(*peak, _read_memory()) - before,
    }  # fmt: skip


def _watch(peak: list[float]) -> None:
    while True:
        peak[0] = max(peak[0], _read_memory())
        time.sleep(0.05)


def _read_memory() -> float:
    """Return the MB that this process holds and no file backs; Linux alone tells."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (line,) = (line for line in status.splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1e3


def main(
    count: Annotated[int, typer.Option(min=10, help="How many pictures.")] = 2000,
    shape: Annotated[tuple[int, int], typer.Option(help="Rows and columns.")] = (272, 320),
    measured: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Measure a first and two further starts of training on generated pictures."""
    if measured is not None:
        print(json.dumps(measure_start(measured)))
        return
    table = Table(
        "start", "table", "reading", "pictures/s", "CPU time", "an epoch's reading", "memory"
    )
    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder, "pictures")
        pictures.mkdir()
        draw_pictures(pictures, count, shape)
        for start in ("first", "second", "third"):
            done = subprocess.run(
                [sys.executable, __file__, "--measured", str(pictures)],
                env={**os.environ, "XDG_CACHE_HOME": folder},
                stdout=subprocess.PIPE, text=True, check=True,
            )  # fmt: skip
            found = json.loads(done.stdout.splitlines()[-1])
            table.add_row(
                start, f"{found['table_s']:.1f} s", f"{found['read_s']:.1f} s",
                f"{found['pictures_per_s']:.0f}", f"{found['cpu_s']:.1f} s",
                f"{found['epoch_s']:.1f} s", f"{found['memory_mb']:.0f} MB",
            )  # fmt: skip
    console.print(table)
    machine = {**describe_machine(), "pictures": count, "shape": shape, "prepared": SIZE}
    console.print("; ".join(f"{name}: {value}" for name, value in machine.items()))
    console.print(f"load average {os.getloadavg()[0]:.1f}, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    typer.run(main)
