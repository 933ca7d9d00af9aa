"""Write a file whole or not at all; texts from templates."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from heatmask.errors import OutputError


@contextmanager
def write_atomically(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a draft beside `path` to write to, which takes its place when the block ends well.

    The draft is hidden and ends like `path`, so that libraries choose the same format by it.
    Missing folders are made. After an error there is no draft, and an earlier file is as it was.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    path = Path(path)
    draft = path.with_name(f".{uuid4().hex[:8]}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield draft
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror or error}. "
            "Check the folder, its permissions and the space left."
        ) from error


def render(package: str | None, template: str, **content: object) -> str:
    """Return a text from a template of a package; in HTML what is filled in is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=PackageLoader(str(package), "."),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(**content)
