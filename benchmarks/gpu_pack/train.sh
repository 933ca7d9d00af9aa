#!/usr/bin/env bash
# Train the GP networks in their published widths, without a network; goes on where it stopped.
# Options: see `bash train.sh --help`. Results: $OUT, or out/ beside this script.
set -euo pipefail
pack=$(cd "$(dirname "$0")" && pwd)
source "$pack/environment.sh"
exec python3 "$pack/benchmarks/gpu_pack/train.py" "$pack" "$@"
