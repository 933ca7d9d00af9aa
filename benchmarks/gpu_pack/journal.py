"""Steps one after the other, each guarded, with results on disk after every row."""

import logging
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tables import write_json

Row = dict[str, Any]
SHOWN = "scan what explain_ms median ratio_median peak_mb heatmap dice halvings".split()
"""What of a row is printed."""

logger = logging.getLogger(__name__)


class Journal:
    """What was measured, in results.json and results.md.

    Parameters
    ----------
    folder
        Where the two files go.
    machine
        What the numbers depend on.
    minutes
        When a step is to stop after the row at hand, and later ones not to begin.
    write_page
        Makes results.md from the steps.
    """

    def __init__(
        self,
        folder: Path,
        machine: Row,
        minutes: float,
        write_page: Callable[[list[Row]], str],
    ) -> None:
        self.folder, self.write_page = folder, write_page
        self.start = time.monotonic()
        self.deadline = self.start + 60 * minutes
        self.steps: list[Row] = []
        self.content = {"machine": machine, "steps": self.steps}

    def run(self, name: str, measure: Callable[[], Iterator[Row]]) -> None:
        """Keep the rows of a step; where it fails, its traceback."""
        step: Row = {"step": name, "rows": [], "error": None, "complete": False}
        self.steps.append(step)
        start = time.monotonic()
        try:
            step["complete"] = self._collect(step["rows"], measure)
        except (Exception, SystemExit):
            logger.exception("%s failed", name)
            step["error"] = traceback.format_exc()
        step["seconds"] = round(time.monotonic() - start, 1)
        self._write()
        state = "failed" if step["error"] else "done" if step["complete"] else "out of time"
        self._say(f"{name}: {state}, {step['seconds']} s")

    def _collect(self, rows: list[Row], measure: Callable[[], Iterator[Row]]) -> bool:
        if time.monotonic() > self.deadline:
            return False
        for row in measure():
            rows.append(row)
            shown = {key: row[key] for key in SHOWN if row.get(key) is not None}
            self._say("  " + ", ".join(f"{key} {_shorten(value)}" for key, value in shown.items()))
            self._write()
            if time.monotonic() > self.deadline:
                return False
        return True

    def _write(self) -> None:
        write_json(self.content, self.folder / "results.json")
        page = self.folder / "results.md"
        page.write_text(self.write_page(self.steps), encoding="utf-8")

    def _say(self, line: str) -> None:
        print(f"{time.monotonic() - self.start:6.1f} s  {line}", flush=True)

    @property
    def problems(self) -> list[str]:
        """Steps that failed and rows that miss a bar."""
        failed = [f"{step['step']} failed" for step in self.steps if step["error"]]
        rows = [row for step in self.steps for row in step["rows"]]
        return failed + [missed for row in rows for missed in row.get("missed", [])]


def _shorten(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
