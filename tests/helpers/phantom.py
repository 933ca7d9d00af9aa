"""The synthetic head of the benchmarks, whose folder is no package."""

import sys
from importlib.util import module_from_spec, spec_from_file_location

from helpers.project import PROJECT

_spec = spec_from_file_location("phantom", PROJECT / "benchmarks/phantom/__init__.py")
_module = sys.modules["phantom"] = module_from_spec(_spec)
_spec.loader.exec_module(_module)

DEMO_SEED, STUDY_SEEDS = _module.DEMO_SEED, _module.STUDY_SEEDS
Phantom, draw_demo = _module.Phantom, _module.draw_demo
make_phantom, write_phantom = _module.make_phantom, _module.write_phantom
