# Sourced by run.sh and train.sh: the wheels unpacked, the pack first on Python's path.
site=${HEATMASK_SITE:-/tmp/heatmask-site}
if compgen -G "$pack/wheels/*.whl" > /dev/null; then
  python3 -m pip install --quiet --no-index --no-deps --no-compile --upgrade \
    --target "$site" "$pack"/wheels/*.whl
fi
export PYTHONPATH="$pack/src:$pack/benchmarks:$site${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONUNBUFFERED=1 OUT="${OUT:-$pack/out}"
mkdir -p "$OUT"
