"""Train the GP networks in their published widths and score them; what `train.sh` calls.

By the shipped recipe, from slice labels alone; only the width is another. A run that was stopped
goes on from its last epoch in RUNS. Writes training.json, training.md, training.log and, where a
file may be so large, each network's weights to $OUT.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from tables import describe_machine, write_json

PUBLISHED = {
    "brain_mri_gp_shuffle_unet_segmentation": ["network_def#features=64"],
    "brain_mri_gp_unet_segmentation": ["network_def#features=[64, 128, 256]"],
    "brain_mri_gp_recon_resnet_segmentation": ["network_def#features=64", "network_def#blocks=14"],
}
"""What makes each bundle's network that of its paper."""

WEIGHTS_LIMIT_MB = 15
Result = dict[str, Any]


def main(
    pack: Annotated[Path, typer.Argument(help="The pack; train.sh gives it.")],
    device: Annotated[str, typer.Option(help="cuda or cpu.")] = "cuda",
    minutes: Annotated[float, typer.Option(help="Time for everything.")] = 9.5,
    runs: Annotated[Path, typer.Option(help="Checkpoints.")] = Path("/tmp/heatmask-runs"),
    only: Annotated[str, typer.Option(help="The bundles whose name holds this.")] = "",
    shipped: Annotated[bool, typer.Option(help="The shipped widths: does it run?")] = False,
    epochs: Annotated[int | None, typer.Option(help="Default: the recipe's.")] = None,
) -> None:
    """Train and score one network after the other until the time is up."""
    deadline, out = time.monotonic() + 60 * minutes, Path(os.environ["OUT"])
    shutil.unpack_archive(pack / "lgg.tar.bz2", runs / "lgg", filter="data")
    results: list[Result] = []
    for name in (name for name in PUBLISHED if only in name):
        result: Result = {"bundle": name, "options": [] if shipped else PUBLISHED[name]}
        results.append(result)
        run = runs / name
        for step, words in list_steps(result, pack, runs, device, epochs).items():
            result |= run_step(step, words, deadline, out / "training.log")
            if "error" in result:
                break
        else:
            result["summary"] = json.loads((run / "evaluation/summary.json").read_text("utf-8"))
            keep_weights(run / "model.pt", out / f"{name}.pt")
        write_json({"machine": describe_machine(), "results": results}, out / "training.json")
        write_page(results, runs, out / "training.md")
    raise SystemExit(any("error" in result for result in results))


def list_steps(
    result: Result, pack: Path, runs: Path, device: str, epochs: int | None
) -> dict[str, list[str]]:
    """Return the two commands, `heatmask train` and `heatmask evaluate` on FLAIR."""
    run, bundle = runs / result["bundle"], str(pack / "bundles" / result["bundle"])
    shared = [str(runs / "lgg"), "--bundle", bundle, "--device", device]
    shared += [word for option in result["options"] for word in ("--set", option)]
    length = ["--epochs", str(epochs)] if epochs else []
    scored = ["--weights", str(run / "model.pt"), "--output", str(run / "evaluation")]
    patterns = ["--pattern", "*-t2f.nii", "--set", "reference_pattern=*-seg.nii"]
    return {
        "train": ["train", *shared, "--run-dir", str(run), *length],
        "evaluate": ["evaluate", *shared, *scored, *patterns],
    }


def run_step(step: str, words: list[str], deadline: float, log: Path) -> Result:
    """Run a command of Heatmask until the deadline; return its seconds, and its error if any."""
    print("heatmask", *words, flush=True)
    start = time.monotonic()
    command = [sys.executable, "-m", "heatmask.cli", *words]
    with log.open("a", encoding="utf-8") as file:
        try:
            subprocess.run(
                command, check=True, timeout=max(1, deadline - start), stdout=file, stderr=file
            )
        except subprocess.SubprocessError as error:
            print(log.read_text("utf-8")[-2000:], error, flush=True)
            return {"error": str(error)}
    seconds = round(time.monotonic() - start, 1)
    print(f"  {seconds} s", flush=True)
    return {f"{step} seconds": seconds}


def keep_weights(path: Path, kept: Path) -> None:
    """Copy weights, which are in half precision, if they are small enough to be brought home."""
    if path.stat().st_size <= WEIGHTS_LIMIT_MB * 1e6:
        shutil.copy(path, kept)


def write_page(results: list[Result], runs: Path, path: Path) -> None:
    """Write what each evaluation says, one after the other."""
    pages = []
    for result in results:
        title = f"## {result['bundle']} {' '.join(result['options'])}"
        page = runs / result["bundle"] / "evaluation/evaluation.md"
        text = result["error"] if "error" in result else page.read_text("utf-8")
        pages += [title, text]
    path.write_text("\n\n".join(pages) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
