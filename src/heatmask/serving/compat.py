"""What MONAI Label 0.8.5 needs before it can be imported."""

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

MOVED_MODULE = "pydicom._storage_sopclass_uids"


def register_pydicom_alias() -> None:
    """Let monailabel import a private module that pydicom 3 no longer has.

    pydicom 3 keeps the same names in `pydicom.uid`. Pinning pydicom 2 instead is no way
    out: writing DICOM SEG needs pydicom 3. (MONAI Label issue 1841; a test says when this
    function can go.)
    """
    import pydicom.uid

    sys.modules.setdefault(MOVED_MODULE, pydicom.uid)


def set_host_settings(values: Mapping[str, Any]) -> None:
    """Set MONAI Label's settings for this process and for the processes it starts.

    Parameters
    ----------
    values
        Settings by name without the prefix ``MONAI_LABEL_``, as in ``{"SERVER_PORT": 8000}``.

    Notes
    -----
    The host starts batch inference in a process of its own, which knows nothing but the
    environment. So the settings go there, and from there into the settings object, which
    may have been made before. That child process also insists on ``PYTHONPATH``.
    """
    for name, value in values.items():
        text = value if isinstance(value, str) else json.dumps(value)
        os.environ[f"MONAI_LABEL_{name}"] = text
    os.environ.setdefault("PYTHONPATH", "")
    from monailabel.config import settings

    type(settings).__init__(settings)
