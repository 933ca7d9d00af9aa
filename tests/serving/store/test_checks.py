"""What is accepted as a label: what fuzzing found."""

from pathlib import Path

import numpy as np
import pytest

from heatmask.errors import InputError
from heatmask.serving.store.checks import check_label
from helpers.scan_files import write_nifti


def test_a_label_that_lies_nowhere_is_refused(tmp_path: Path) -> None:
    affine = np.diag([-1.5, -1.25, 4.0, 1.0])
    label = write_nifti(tmp_path / "label.nii", np.ones((5, 6, 7), np.uint8), affine)
    affine[1, 3], affine[2, 0] = np.nan, 3.5e-43
    content = bytearray(label.read_bytes())
    content[252:256] = np.array([5, 2], "<i2").tobytes()  # ITK takes this sform
    content[280:328] = affine[:3].astype("<f4").tobytes()
    label.write_bytes(content)
    with pytest.raises(InputError, match="where its voxels lie"):
        check_label(label, label, {})
