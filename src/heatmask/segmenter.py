"""What the configs of bundles name that were trained with Heatmask 0.1."""

from typing import Any

from heatmask.pipeline import Pipeline
from heatmask.report.writer import CaseWriter


def Segmenter(writer: CaseWriter | None = None, **parts: Any) -> Pipeline:  # noqa: N802
    """Return the pipeline of such a config, which gives its writer what the pipeline keeps now."""
    about = writer.earlier if writer else {}
    options = {**about.get("overrides", {}), **about.get("parameters", {})}
    names, root = about.get("class_names", ()), about.get("bundle_root")
    return Pipeline(writer=writer, class_names=names, bundle_root=root, options=options, **parts)
