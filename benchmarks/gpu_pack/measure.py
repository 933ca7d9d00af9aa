"""Measure the bundles and the attribution methods on a device; what `run.sh` calls.

Writes results.json and results.md to $OUT after every row, steps in the order of their value,
and exits with 1 where a step failed or a bar is missed.
"""

import faulthandler
import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from agreement import VARIANTS, Case, compare_variant, measure_on_cpu, read_scans
from attribution_inputs import CPU, CUDA, QUICK
from halving import measure_halving
from journal import Journal
from page import write_page
from tables import describe_machine

from attribution import measure_attribution

GRACE_S = 20
"""After the time is up, for the row at hand; then the process ends itself."""


def main(
    pack: Annotated[Path, typer.Argument(help="The pack; run.sh gives it.")],
    device: Annotated[str, typer.Option(help="cuda or cpu.")] = "cuda",
    minutes: Annotated[float, typer.Option(help="Time for everything.")] = 7.5,
    quick: Annotated[
        bool, typer.Option(help="One bundle, one scan, two methods: does it run?")
    ] = False,
) -> None:
    """Run every step and say what missed its bar."""
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch sees no CUDA GPU here. Give --device cpu to try the script.")
    faulthandler.dump_traceback_later(60 * minutes + GRACE_S, exit=True)
    journal = Journal(Path(os.environ["OUT"]), describe(), minutes, write_page)
    cases = read_scans(pack / "scans", most=1 if quick else None)
    bundles = sorted(
        path.parents[1] for path in (pack / "bundles").glob("*/configs/inference.json")
    )
    bundles = [b for b in bundles if "gp_unet" in b.name] if quick else bundles
    for bundle in bundles:
        measure_bundle(journal, bundle, cases, device, repeats=1 if quick else 5)
    largest = max(cases.values(), key=lambda case: case["image"]["FLAIR"].numel())
    for bundle in bundles:
        name = f"{bundle.name}, out of memory"
        journal.run(name, partial(measure_halving, bundle, largest, device))
    journal.run("attribution", partial(measure_methods, device, quick))
    for problem in journal.problems:
        print(f"MISSED  {problem}", flush=True)
    faulthandler.cancel_dump_traceback_later()
    raise SystemExit(1 if journal.problems else 0)


def measure_bundle(
    journal: Journal, bundle: Path, cases: dict[str, Case], device: str, repeats: int
) -> None:
    """Run a bundle on the CPU, then in each variant on the device, a step each."""
    results: dict[str, Case] = {}
    name = bundle.name
    journal.run(f"{name}, cpu", partial(measure_on_cpu, bundle, cases, repeats // 2 + 1, results))
    for variant in VARIANTS:
        step = partial(compare_variant, bundle, variant, results, device, repeats)
        journal.run(f"{name}, {variant}", step)


def measure_methods(device: str, quick: bool) -> Iterator[dict[str, Any]]:
    """Yield the rows of the attribution benchmark at the sizes of docs/results.md.

    TF32 as torch has it by itself.
    """
    plan = QUICK if quick else {"cpu": CPU, "cuda": CUDA}[device]
    plan = replace(plan, device=device, repeats=1 if quick else 5)
    rows = measure_attribution([plan], torch.get_num_threads())
    for row in islice(rows, 2) if quick else rows:
        yield row.as_dict()


def describe() -> dict[str, Any]:
    """Return what the numbers depend on."""
    return {
        **describe_machine(),
        "CUDA": torch.version.cuda,
        "cuDNN": torch.backends.cudnn.version(),
        "TF32 by default: convolutions": torch.backends.cudnn.allow_tf32,
        "TF32 by default: matrix products": torch.backends.cuda.matmul.allow_tf32,
    }


if __name__ == "__main__":
    typer.run(main)
