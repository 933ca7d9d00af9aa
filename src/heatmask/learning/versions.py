"""The bundles that were learnt from corrections: every version is kept, one of them is served.

::

    learned/NAME                    a link to the version that is served
    learned/versions/NAME/1/NAME/   a complete bundle, never changed once it is there
        configs/learned.json        what it was learnt from, and how it did on patients held out
        models/folds/0.pt           weights that have not seen the patients of fold 0
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from heatmask.errors import InputError, NotFoundError, OutputError

FOLDER = "learned"
"""Name of the folder beside a server's store."""
RECORD = "configs/learned.json"


@dataclass(frozen=True)
class LearnedRecord:
    """What a bundle was learnt from.

    Attributes
    ----------
    source : name of the bundle that it began with
    settings : as `heatmask.learning.settings.LearnSettings`
    folds : of each corrected patient
    dice : of each corrected patient that was held out, by a network that had not seen it
    compared_with : name and number of what it had to match
    compared_dice : of the same patients
    labels : number and SHA-256 of the label of each corrected image
    scans : how many scans without a correction were learnt from
    seconds : the training took
    """

    source: str
    settings: dict[str, Any]
    folds: dict[str, int]
    dice: dict[str, float]
    compared_with: str
    compared_dice: dict[str, float]
    labels: dict[str, dict[str, Any]] = field(default_factory=dict)
    scans: int = 0
    seconds: float = 0.0


def name_bundle(source: str) -> str:
    """Return the name of what is learnt from a bundle and corrections."""
    return source if source.endswith("_learned") else f"{source}_learned"


def number_version(bundle: Path) -> int:
    """Return the number of a version by its folder."""
    return int(bundle.resolve().parent.name)


class LearnedVersions:
    """The learnt bundles of one folder.

    Parameters
    ----------
    folder
        It need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def list_names(self) -> list[str]:
        """Return the names of all learnt bundles."""
        return sorted(path.name for path in (self.folder / "versions").glob("*") if path.is_dir())

    def list_numbers(self, name: str) -> list[int]:
        """Return the numbers of a bundle's versions."""
        names = (path.name for path in (self.folder / "versions" / name).glob("*"))
        return sorted(int(number) for number in names if number.isascii() and number.isdigit())

    def next_number(self, name: str) -> int:
        """Return the number of the version to come."""
        return 1 + max(self.list_numbers(name), default=0)

    def find_current(self, name: str) -> Path | None:
        """Return the folder of the version that is served, None if there is none."""
        link = self.folder / name
        return link.resolve() if (link / "configs").is_dir() else None

    def get(self, name: str, number: int) -> Path:
        """Return the folder of a version.

        Raises
        ------
        NotFoundError
            There is no such version.
        """
        known = self.list_numbers(name)
        if number not in known:
            versions = ", ".join(map(str, known)) or "none"
            names = ", ".join(self.list_names()) or "none"
            raise NotFoundError(
                f"There is no version {number} of {name!r}. Its versions: {versions}. What was "
                f"learnt: {names}."
            )
        return self.folder / "versions" / name / str(number) / name

    def publish(self, name: str, write: Callable[[Path], None]) -> Path:
        """Add a version and serve it; all of it is there, or nothing.

        Parameters
        ----------
        write
            Fills the folder that it is given.

        Raises
        ------
        OutputError
            The folder cannot be written. What was served is served on.
        """
        place, number = self.folder / "versions" / name, self.next_number(name)
        draft = place / f".draft-{uuid4().hex}"
        try:
            draft.mkdir(parents=True, mode=0o700)
            write(draft / name)
            os.rename(draft, place / str(number))
        except OSError as error:
            raise OutputError(
                f"The new weights were not stored: {error.strerror or error}. The earlier ones are "
                "served on. Check the space left on the disk and train again: it goes on where it "
                "stopped."
            ) from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        self.serve(name, number)
        return self.get(name, number)

    def serve(self, name: str, number: int) -> None:
        """Serve a version, also an earlier one.

        Raises
        ------
        NotFoundError
            There is no such version.
        OutputError
            The folder cannot be written.
        """
        target = self.get(name, number)
        draft = self.folder / f".{uuid4().hex}"
        try:
            draft.symlink_to(target.relative_to(self.folder))
            os.replace(draft, self.folder / name)
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise OutputError(
                f"{self.folder} cannot be written: {error.strerror or error}. Check its "
                "permissions and the space left."
            ) from error

    def remove_drafts(self) -> None:
        """Delete what a killed training left half written."""
        for path in self.folder.glob("versions/*/.draft-*"):
            shutil.rmtree(path, ignore_errors=True)


def read_record(bundle: Path) -> LearnedRecord | None:
    """Return what a bundle was learnt from, None for one that was not.

    Raises
    ------
    InputError
        The file is damaged.
    """
    path = bundle / RECORD
    if not path.is_file():
        return None
    try:
        return LearnedRecord(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{path} is damaged: {error}. Bring back an earlier version with `heatmask learned`."
        ) from error


def write_record(record: LearnedRecord, bundle: Path) -> None:
    """Write what a bundle was learnt from into its draft."""
    text = json.dumps(asdict(record), indent=2) + "\n"
    (bundle / RECORD).write_text(text, encoding="utf-8")
