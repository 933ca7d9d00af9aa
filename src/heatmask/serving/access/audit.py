"""Who did what to which image, and how it ended: one JSON object a line."""

import json
import logging
import os
import threading
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from heatmask.serving.access.person import Person

logger = logging.getLogger(__name__)

FACTS = frozenset(
    "address bytes client conflict count job model reason result role seconds status tag user "
    "version".split()
)
"""What a line may say beside person, action and image. Patients' names have no place here, nor have
the names that clients give to images."""


Fact = str | float | bool | None


class Audit:
    """The audit log of a work folder.

    Parameters
    ----------
    folder
        Where ``audit.jsonl`` lies, with the older ones ``audit.jsonl.1``, ``.2``, ... beside it.
    max_bytes, kept
        When a new file is begun, and how many older ones are kept.
    """

    def __init__(self, folder: Path, max_bytes: int = 10_000_000, kept: int = 50) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path = folder / "audit.jsonl"
        self._max_bytes, self._kept = max_bytes, kept
        self._lock = threading.Lock()

    def record(
        self,
        person: Person | None,
        action: str,
        image: str = "",
        **facts: str | float | bool | None,
    ) -> None:
        """Add a line; one that cannot be written is an error in the server's own log.

        Parameters
        ----------
        person
            Who did it; None if that is not known, as after a wrong password.
        action
            What was done, as in ``submit``.
        image
            The image's id, not a name that a client gave it.
        facts
            Of `FACTS`; the result, unless it is given, is ``done``.

        Raises
        ------
        TypeError
            A fact is not one of `FACTS`.
        """
        if unknown := facts.keys() - FACTS:
            raise TypeError(f"The audit log does not take {', '.join(sorted(unknown))}.")
        who = {"person": person.name, "role": person.role} if person else {"person": None}
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            **who,
            "action": action,
            "image": image,
            "result": "done",
            **facts,
        }
        # ASCII alone, so that nothing in a value can begin another line
        data = (json.dumps(line) + "\n").encode("ascii")
        try:
            with self._lock:
                self._write(data)
        except OSError as error:
            logger.error("The audit log cannot be written (%s): %s", error, data.decode().strip())

    def _write(self, data: bytes) -> None:
        if self.path.exists() and self.path.stat().st_size + len(data) > self._max_bytes:
            self._rotate()
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            os.write(file, data)
        finally:
            os.close(file)

    def _rotate(self) -> None:
        numbered = (self.path.with_name(f"{self.path.name}.{n + 1}") for n in range(self._kept))
        for newer, older in reversed(list(pairwise([self.path, *numbered]))):
            if newer.exists():
                newer.replace(older)
