"""The pages that are made from the code, and the code that stands on pages."""

import json
import runpy
from pathlib import Path

import pytest

from helpers.project import PROJECT

DOCS = PROJECT / "docs"


@pytest.mark.parametrize("name", ["attribution", "options"])
def test_the_reference_is_up_to_date(name: str) -> None:
    page = runpy.run_path(str(DOCS / f"write_{name}.py"))["write_page"]()
    written = (DOCS / "reference" / f"{name}.md").read_text(encoding="utf-8")
    assert written == page, "run `make docs`"


def test_the_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every code cell in turn, as a reader would run it."""
    import matplotlib

    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    notebook = DOCS / "tutorials" / "explain_a_classifier.ipynb"
    names: dict[str, object] = {}
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    assert tuple(names["attribution"].shape) == (4, 1, 128, 128)
