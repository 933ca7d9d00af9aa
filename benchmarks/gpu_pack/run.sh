#!/usr/bin/env bash
# Measure the bundles and the attribution methods on this machine, without a network.
# Options: see `bash run.sh --help`. Results: $OUT, or out/ beside this script.
set -euo pipefail
pack=$(cd "$(dirname "$0")" && pwd)
source "$pack/environment.sh"
exec python3 "$pack/benchmarks/gpu_pack/measure.py" "$pack" "$@"
