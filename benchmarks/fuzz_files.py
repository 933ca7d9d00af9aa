"""Fuzz what reads scans with coverage to guide it: NIfTI, NRRD and DICOM.

Run as ``PYTHONPATH=tests python benchmarks/fuzz_files.py nrrd -runs=20000``; what follows the kind
goes to libFuzzer. From good files it makes damaged ones; anything raised but `HeatmaskError`, an
input that takes over 20 s, and memory over 3 GB end the run with the input in a file.
"""

import logging
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import atheris

KINDS = ("nifti", "nifti_gz", "nrrd", "dicom")
OURS = ["heatmask.data", "heatmask.serving.web.volumes", "heatmask.serving.store.checks"]
READERS = ["nibabel.nifti1", "nibabel.spatialimages", "nibabel.volumeutils", "nrrd", "pydicom"]
BOUNDS = ("-timeout=20", "-rss_limit_mb=3000", "-max_len=4096", "-print_final_stats=1")

with atheris.instrument_imports(include=[*OURS, *READERS]):
    from helpers.fuzz_files import gzip_again, make_slices, make_volumes, read_slices, read_volume


def main() -> None:
    kind, options = sys.argv[1], sys.argv[2:]
    if kind not in KINDS:
        sys.exit(f"The kind must be one of {', '.join(KINDS)}, got {kind!r}.")
    logging.getLogger("pydicom").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    (folder / "seeds").mkdir()
    read, seeds = choose(kind, folder)
    for number, seed in enumerate(seeds):
        if not read(seed):
            sys.exit(f"The good file {number} of {kind} is not taken.")
        (folder / "seeds" / f"good{number}").write_bytes(seed)
    counts = {True: 0, False: 0}

    def try_input(content: bytes) -> None:
        counts[read(content)] += 1
        if sum(counts.values()) % 5000 == 0:
            print(f"{kind}: {counts[True]} taken, {counts[False]} refused", flush=True)

    atheris.Setup(
        [sys.argv[0], *BOUNDS, f"-artifact_prefix={folder}/", *options, str(folder / "seeds")],
        try_input,
    )
    atheris.Fuzz()


def choose(kind: str, folder: Path) -> tuple[Callable[[bytes], bool], list[bytes]]:
    """Return what reads an input of a kind, and good ones."""
    if kind == "dicom":
        slices = make_slices(folder)
        return lambda content: read_slices(folder, slices, content), [min(slices.items())[1]]
    volumes = make_volumes(folder)
    if kind == "nrrd":
        return lambda content: read_volume(folder, ".nrrd", content), [volumes[".nrrd"]]
    if kind == "nifti":
        return lambda content: read_volume(folder, ".nii", content), [volumes[".nii"]]
    return (
        lambda content: read_volume(folder, ".nii.gz", gzip_again(content)), [volumes[".nii"]]
    )  # fmt: skip


if __name__ == "__main__":
    main()
