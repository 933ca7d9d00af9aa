"""Peak memory beside what `max_memory_gb` promises, each method in a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from attribution_inputs import Plan
from timing import Row

METHODS = {"saliency": {}, "grad_cam": {}, "integrated_gradients": {"steps": 2}}
PROMISE_GB = {"cpu": 1.0, "cuda": 4.0}

# On the CPU the growth of the process's resident memory, on a GPU what torch allocates.
_MEASURE = """
import json, sys
import torch
from heatmask.attribution import explain
from attribution_inputs import Plan, make_subject

method, promise_gb = sys.argv[1], float(sys.argv[2])
plan, options = Plan(**json.loads(sys.argv[3])), json.loads(sys.argv[4])

def read_kib(key):
    lines = open("/proc/self/status", encoding="utf-8").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))

subject = make_subject(plan, 1, plan.side, dims=2)
images, sizes = subject.images.repeat(64, 1, 1, 1), []
subject.network.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
on_cpu = plan.device == "cpu"
if on_cpu:
    before = read_kib("VmRSS") * 1024
    open("/proc/self/clear_refs", "w", encoding="utf-8").write("5")  # begin the peak anew
else:
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
explain(subject.network, images, method, batch_size=64, max_memory_gb=promise_gb, **options)
peak = read_kib("VmHWM") * 1024 if on_cpu else torch.cuda.max_memory_allocated()
print(json.dumps({"size": max(sizes), "gb": (peak - before) / 1e9}))
"""


def measure_limits(plan: Plan, threads: int) -> Iterator[Row]:
    """Yield a row for each method; none on the CPU where /proc cannot tell."""
    if plan.device == "cpu" and sys.platform != "linux":
        return
    promise_gb = PROMISE_GB[plan.device]
    for method in METHODS:
        size, peak_gb = measure_peak(method, promise_gb, plan, threads)
        yield Row(
            f"{method}, batch of {size} chosen by max_memory_gb={promise_gb:g}",
            "MB",
            [peak_gb * 1000],
            limit=promise_gb * 1000,
            limit_on_ratio=False,
            group=f"Peak memory, ResNet-18 2D, {plan.side} x {plan.side}, {plan.device}",
        )


def measure_peak(method: str, promise_gb: float, plan: Plan, threads: int) -> tuple[int, float]:
    """Return the batch that was chosen and the GB that it took."""
    arguments = [method, str(promise_gb), json.dumps(asdict(plan)), json.dumps(METHODS[method])]
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"{method} must succeed to be measured:\n{done.stderr}")
    found = json.loads(done.stdout)
    return found["size"], found["gb"]
