# syntax=docker/dockerfile:1
# The Heatmask server for 3D Slicer, with the bundle's weights inside.
#
#   docker build -t heatmask .
#   docker run --rm --gpus all --network host \
#       -v /path/to/scans:/studies:ro -v heatmask-work:/opt/heatmask/work heatmask
#
# So only the own machine reaches it. For others it needs users and TLS: docs/how-to/hospital.md
# More, and what has not been tried yet: docs/how-to/docker.md

# A CUDA runtime image with Python 3.11 or 3.12 in its package lists.
ARG BASE=nvidia/cuda:13.0.2-runtime-ubuntu24.04
# hadolint ignore=DL3006
FROM ${BASE}

# Versions of system packages are those of the base image's distribution; only Python matters here.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*

ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    SAM2_BUILD_CUDA=0

# First the libraries, so that a change of the code does not install them again.
WORKDIR /opt/heatmask
COPY pyproject.toml hatch_build.py constraints.txt README.md LICENSE ./
COPY src/heatmask/__init__.py src/heatmask/__init__.py
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m venv /opt/venv \
    && python -m pip install --no-input -c constraints.txt -e ".[serve]"

COPY src src
COPY apps apps
COPY bundles bundles

# The server runs without privileges; it writes its index and the corrected masks below work/.
RUN useradd --uid 10001 --create-home heatmask \
    && install --directory --owner=heatmask --group=heatmask work /studies
USER 10001
VOLUME ["/opt/heatmask/work"]

EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=10s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=8)"]

CMD ["heatmask", "serve", "/studies"]
