"""What MONAI Label 0.8.5 needs before it can be imported."""

import sys

MOVED_MODULE = "pydicom._storage_sopclass_uids"


def register_pydicom_alias() -> None:
    """Let monailabel import a private module that pydicom 3 no longer has.

    pydicom 3 keeps the same names in `pydicom.uid`. Pinning pydicom 2 instead is no way
    out: writing DICOM SEG needs pydicom 3. (MONAI Label issue 1841; a test says when this
    function can go.)
    """
    import pydicom.uid

    sys.modules.setdefault(MOVED_MODULE, pydicom.uid)
