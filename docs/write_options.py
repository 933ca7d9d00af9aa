"""Write docs/reference/options.md from the options themselves.

Run as ``python docs/write_options.py`` (`make docs`).
"""

from collections.abc import Iterator
from pathlib import Path

from heatmask.block_inferer import BlockInferer
from heatmask.inferer import HeatmapInferer
from heatmask.masks.settings import MaskSettings
from heatmask.options import Option, list_options
from heatmask.parts import ExplainSettings, ReadSettings
from heatmask.training.gate import GateSettings
from heatmask.training.relevance import LocaliserSettings
from heatmask.training.self_training import SelfTrainingSettings
from heatmask.training.settings import LabelSettings, TrainSettings

PAGE = Path(__file__).parent / "reference" / "options.md"

HEAD = """\
# Options of a bundle

Written from the code by `make docs`. Each may be set for a run, `heatmask segment SCAN --set
snap=false` or `python -m monai.bundle run ... --snap False`, and in a bundle's `inference.json`;
those marked with * are in the options panel of 3D Slicer. Those of training are set in the same
ways, `heatmask train DATA --set batch_size=16`, and in its `train.json`. What belongs to a method
is set below the inferer: `--set inferer#explainer#window=8` (see [the methods](attribution.md)).
"""


def describe_part(title: str, options: dict[str, Option]) -> Iterator[str]:
    """Yield the lines of a table."""
    yield from (f"\n## {title}\n", "| option | default | may be | |", "| --- | --- | --- | --- |")
    for name, option in options.items():
        mark = "*" if option.in_panel else ""
        yield f"| `{name}`{mark} | {option.default} | {option.describe()} | {option.help} |"


def write_page() -> str:
    """Return the page."""
    blocks = list_options(BlockInferer)
    for name in list_options(HeatmapInferer):
        blocks.pop(name)
    parts = {
        "Reading": list_options(ReadSettings),
        "Explaining": list_options(ExplainSettings, HeatmapInferer),
        "Explaining in 3D": blocks,
        "From heatmap to mask": list_options(MaskSettings),
        "Training: images and labels": list_options(LabelSettings),
        "Training": list_options(TrainSettings),
        "Training a gate (bundle of tumour types)": list_options(GateSettings),
        "Training a relevance map (bundle in 3D)": list_options(LocaliserSettings),
        "Self-training (the default for your own data)": list_options(SelfTrainingSettings),
    }
    lines = [line for title, options in parts.items() for line in describe_part(title, options)]
    return "\n".join([HEAD.rstrip(), *lines]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(write_page(), encoding="utf-8")
