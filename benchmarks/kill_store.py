"""Kill the store in a loop of submits, and count what is lost.

Run as ``python benchmarks/kill_store.py --kills 200``. A child process submits label after label
and says so after each; it is killed by SIGKILL at a random moment, and the store is opened again
and looked through. Exits with 1 if a version that was answered is missing or another one, or if a
version is there that is not whole.
"""

import argparse
import os
import random
import select
import signal
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np

from heatmask.serving.store import FINAL, Store
from heatmask.serving.store.checks import check_label
from heatmask.serving.store.durable import measure_sha256

SHAPE = (64, 48, 32)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    moments, start = random.Random(arguments.seed), time.monotonic()
    answered: dict[int, str] = {}
    unfinished = lost = torn = 0
    with tempfile.TemporaryDirectory() as name:
        flat, labels = write_files(Path(name))
        check_label(labels[0], flat / "p1.nii.gz", {})  # Loads what a child then need not
        for _ in range(arguments.kills):
            answered |= kill_while_submitting(flat, labels, moments)
            unfinished += any((flat / "store/drafts").glob("*"))
            store = Store(flat, flat / "store")
            kept = {version.number: version for version in store.list_versions("p1", FINAL)}
            store.close()
            lost = sum(n not in kept or kept[n].sha256 != digest for n, digest in answered.items())
            lost += sorted(kept) != list(range(1, len(kept) + 1))
            torn = sum(measure_sha256(v.path) != v.sha256 or not v.person for v in kept.values())
            if lost or torn:
                break
    print(
        f"{arguments.kills} kills, {unfinished} amid a write; {len(answered)} submits answered, "
        f"{len(kept)} versions there, {lost} lost, {torn} torn; "
        f"{time.monotonic() - start:.0f} s"
    )
    return int(bool(lost or torn))


def write_files(folder: Path) -> tuple[Path, list[Path]]:
    """Write a scan with a link to it, and labels on its grid of some 50 kB each."""
    rng, flat, affine = np.random.default_rng(0), folder / "flat", np.diag([1.0, 1.0, 3.0, 1.0])
    flat.mkdir()
    nib.save(nib.Nifti1Image(rng.random(SHAPE, np.float32), affine), folder / "scan.nii.gz")
    (flat / "p1.nii.gz").symlink_to(folder / "scan.nii.gz")
    labels = [folder / f"label{number}.nii.gz" for number in range(5)]
    for label in labels:
        voxels = rng.integers(0, 3, SHAPE).astype(np.uint8)
        nib.save(nib.Nifti1Image(voxels, affine), label)
    return flat, labels


def kill_while_submitting(flat: Path, labels: list[Path], moments: random.Random) -> dict[int, str]:
    """Return what a child said to have stored, by number, before it was killed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        submit_forever(flat, labels, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        select.select([pipe], [], [], 60)  # The first answer, or "ready"
        time.sleep(moments.uniform(0, 0.5))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        lines = pipe.read().decode().splitlines()
    if not lines:
        raise RuntimeError("The child stopped before it was killed.")
    return {int(number): digest for number, digest in (line.split() for line in lines[1:])}


def submit_forever(flat: Path, labels: list[Path], writing: int) -> None:
    try:
        store = Store(flat, flat / "store")
        os.write(writing, b"ready -\n")
        while True:
            for label in labels:
                version = store.submit("p1", label, {}, "ann", "ann/1", "unet")
                os.write(writing, f"{version.number} {version.sha256}\n".encode())
    finally:
        os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
