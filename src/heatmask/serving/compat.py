"""What MONAI Label 0.8.5 needs before it can be imported, and what MONAI does not need for it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

MOVED_MODULE = "pydicom._storage_sopclass_uids"


def register_pydicom_alias() -> None:
    """Let monailabel import a private module that pydicom 3 no longer has.

    pydicom 3 keeps the same names in `pydicom.uid`. Pinning pydicom 2 instead is no way
    out: writing DICOM SEG needs pydicom 3. (MONAI Label issue 1841; a test says when this
    function can go.)
    """
    import pydicom.uid

    sys.modules.setdefault(MOVED_MODULE, pydicom.uid)


@contextmanager
def leave_out(*names: str) -> Iterator[None]:
    """Let imports inside the block find no such libraries, unless they are loaded already.

    MONAI imports every library that it finds. What the server never asks of it is a third of the
    time that the server takes to start. After the block the libraries are there as ever, but what
    MONAI has built without them stays as it is.
    """
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)
