"""One server works on a folder, no second one."""

from pathlib import Path

from filelock import FileLock, Timeout

from heatmask.errors import InputError, OutputError
from heatmask.serving.store.durable import make_folders

STORE = "store"
"""Name of a store's folder in the flat folder of the studies."""


def lock_folder(folder: Path) -> FileLock:
    """Make a store's folder, and hold it until released; the end of the process does so too.

    Raises
    ------
    InputError
        Another process holds it.
    OutputError
        It cannot be written.
    """
    lock = FileLock(folder / ".lock", timeout=0, mode=0o600, thread_local=False)
    try:
        make_folders(folder)
        lock.acquire()
    except Timeout as error:
        raise InputError(
            f"Only one server can work on '{folder.parent}', and one does. Stop it, or give "
            "another --workdir."
        ) from error
    except OSError as error:
        raise OutputError(
            f"The work folder must be writable, '{folder}' is not: {error}. Give --workdir."
        ) from error
    return lock
