# Heatmask: one command per job. `make` alone lists them.
#
# Needs Python 3.11 or 3.12 (with venv) and make, nothing else. The first job installs what it
# needs into .venv (several GB, most of it torch), once; later ones start at once.

# Options, as in `make demo IMAGE=scan.nii.gz DEVICE=cuda`
IMAGE   ?=
STUDIES ?=
DATA    ?= ../shared/data/lgg
TYPES   ?= ../shared/data/figshare
HOST    ?= 127.0.0.1
PORT    ?= 8000
DEVICE  ?=
ARGS    ?=
PYTHON  ?=
JOBS    ?= 2

VENV := .venv
BIN  := $(VENV)/bin
# What is installed: enough to segment and train; with the server; with everything for tests.
READY := $(VENV)/.installed-core
SERVE := $(VENV)/.installed-serve
DEV   := $(VENV)/.installed-dev
# Tests in several processes, those of one file in one of them, each process with one thread.
IN_PARALLEL = $(if $(filter-out 1,$(JOBS)),OMP_NUM_THREADS=1)
SPREAD = $(if $(filter-out 1,$(JOBS)),-n $(JOBS) --dist loadfile)
DEVICE_OPTION = $(if $(DEVICE),--device $(DEVICE))

AUDIT = $(BIN)/pip-audit --strict --no-deps --disable-pip --progress-spinner off -r constraints.txt
SBOM := .venv-sbom/bin/cyclonedx-py

SHIPPED := $(notdir $(wildcard bundles/brain_*))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo serve test test-slow test-all fuzz soak lint audit sbom format train train-all evaluate bench gpu-pack docs clean

help:  ## list the jobs
	@echo "Heatmask: one MRI in, a pseudo-mask in 3D Slicer out."
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "Options: IMAGE=scan.nii.gz  STUDIES=folder  DATA=folder  TYPES=folder  HOST=$(HOST)  PORT=$(PORT)"
	@echo "         DEVICE=auto|cpu|cuda  JOBS=processes of make test  ARGS='further options'  PYTHON=path/to/python3.11"

demo: $(READY)  ## heatmap and pseudo-mask of a synthetic brain, or of IMAGE=scan
	$(BIN)/heatmask demo $(if $(IMAGE),--image "$(IMAGE)") --output demo $(DEVICE_OPTION) $(ARGS)

serve: $(SERVE)  ## MONAI Label server for 3D Slicer on STUDIES=folder
	@test -n "$(STUDIES)" || { echo "STUDIES must name a folder of scans; it is not set. Try: make serve STUDIES=path/to/scans" >&2; exit 2; }
	$(BIN)/heatmask serve "$(STUDIES)" --host $(HOST) --port $(PORT) $(DEVICE_OPTION) $(ARGS)

test: $(DEV)  ## tests, without the slow ones
	$(IN_PARALLEL) $(BIN)/python -m pytest -m "not slow" $(SPREAD) $(ARGS)

test-slow: $(DEV)  ## only the slow tests
	$(BIN)/python -m pytest -m slow $(ARGS)

test-all: lint test test-slow  ## lint, all tests, and the tests again on Python 3.12
	$(MAKE) test VENV=.venv312 PYTHON="$(or $(PYTHON312),python3.12)"

fuzz: $(DEV)  ## damaged files and requests, 100,000 and more; takes an hour
	@set -e; for door in nrrd:40000 nifti:30000 nifti_gz:16000 dicom:5000; do \
	  PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/python benchmarks/fuzz_files.py $${door%:*} -runs=$${door#*:}; \
	done
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/python benchmarks/fuzz_server.py $(ARGS)

soak: $(DEV)  ## eight clients at a server for half an hour, then 200 kills of one
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/python benchmarks/soak_server.py $(ARGS)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/kill_server.py

lint: $(DEV)  ## ruff, mypy, bandit, pins, the dependency rules between the modules, links, words
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/bandit --quiet --severity-level medium --recursive src
	@# Without a network: is every version pinned, and once? `make audit` asks for known holes.
	$(AUDIT) --dry-run
	$(BIN)/lint-imports
	$(BIN)/python docs/check_links.py
	$(BIN)/python docs/check_words.py

audit: $(DEV)  ## known security holes of the pinned versions (needs a network)
	$(AUDIT)

sbom: $(READY) $(SBOM)  ## dist/heatmask.cdx.json: what is installed in .venv, with licences
	mkdir -p dist
	$(SBOM) environment $(BIN)/python --pyproject pyproject.toml --output-reproducible \
	  --output-file dist/heatmask.cdx.json

# In an environment of its own: it needs another jsonschema than monailabel.
$(SBOM):
	$(BIN)/python -m venv .venv-sbom
	.venv-sbom/bin/python -m pip install --no-input --disable-pip-version-check cyclonedx-bom==7.5.0

format: $(DEV)  ## put the code into ruff's format, repair what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

train: $(READY)  ## train the bundle from the image-level labels of DATA=folder
	$(BIN)/heatmask train "$(DATA)" $(DEVICE_OPTION) $(ARGS)

train-all: $(READY)  ## train the shipped brain bundles anew and replace their weights; goes on where it stopped
	@set -e; for bundle in $(SHIPPED); do \
	  case $$bundle in \
	    *_type_selftrained_*) set -- "$(TYPES)" ;; \
	    *_type_*) set -- "$(TYPES)" --set "gate_dir=$(DATA)" ;; \
	    *_selftrained_*) \
	      test -d runs/joined || PYTHONPATH=benchmarks $(BIN)/python benchmarks/join_heads.py "$(DATA)" runs/joined; \
	      set -- runs/joined ;; \
	    *) set -- "$(DATA)" ;; \
	  esac; \
	  $(BIN)/heatmask train "$$@" --bundle $$bundle --seed 0 \
	    --weights bundles/$$bundle/models/model.pt $(DEVICE_OPTION) $(ARGS); \
	done

evaluate: $(READY)  ## score the bundle on the test patients of DATA=folder
	$(BIN)/heatmask evaluate "$(DATA)" $(DEVICE_OPTION) $(ARGS)

bench: $(READY)  ## speed and memory
	$(BIN)/python benchmarks/run.py $(ARGS)

gpu-pack: $(READY)  ## one folder for a bare CUDA machine: gpu-pack/run.sh measures there
	PYTHONPATH=benchmarks $(BIN)/python benchmarks/gpu_pack/build.py gpu-pack --data "$(DATA)" $(ARGS)

docs: $(READY)  ## write docs/reference anew, check the links between the pages
	$(BIN)/python docs/write_attribution.py
	$(BIN)/python docs/write_options.py
	$(BIN)/python -m typer heatmask.cli utils docs --name heatmask --output docs/reference/cli.md
	$(BIN)/python docs/check_links.py

clean:  ## remove outputs and caches (not the environments)
	rm -rf demo build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests benchmarks apps docs -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment: made again when the pinned versions change, completed when half-made.
CANDIDATES = $(or $(PYTHON),python3.11 python3.12 python3)
SUITABLE   = import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))
NO_PYTHON  = Heatmask needs Python 3.11 or 3.12; found none under: $(CANDIDATES). Install one \
(Debian 12, Ubuntu 24.04: apt install python3 python3-venv) or name it: make PYTHON=path/to/python3.11
NO_VENV    = cannot make environments: its venv module is missing. On Debian and Ubuntu: \
apt install python3-venv; then repeat.
PARTS_core  := core
PARTS_serve := core serve
PARTS_dev   := core serve dev

$(VENV)/.installed-%: pyproject.toml constraints.txt
	@set -e; \
	if ! "$(BIN)/python" -c "import pip; $(SUITABLE)" 2>/dev/null; then \
	  for python in $(CANDIDATES); do \
	    "$$python" -c "$(SUITABLE)" 2>/dev/null && break || python=; \
	  done; \
	  test -n "$$python" || { echo "$(NO_PYTHON)" >&2; exit 1; }; \
	  "$$python" -c "import ensurepip, venv" 2>/dev/null || { echo "$$python $(NO_VENV)" >&2; exit 1; }; \
	  echo "Making $(VENV) with $$("$$python" --version)"; \
	  "$$python" -m venv --clear $(VENV); \
	fi
	@echo "Installing Heatmask ($*) and its libraries into $(VENV) (several GB, once)"
	SAM2_BUILD_CUDA=0 $(BIN)/python -m pip install --no-input --disable-pip-version-check \
	  -c constraints.txt -e ".$(if $(filter-out core,$*),[$*])"
	@touch $(PARTS_$*:%=$(VENV)/.installed-%)
