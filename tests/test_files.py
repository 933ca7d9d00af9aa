"""A file is written whole or not at all."""

import pytest

from heatmask.errors import OutputError
from heatmask.files import write_atomically


def test_the_file_is_whole_and_alone(tmp_path):
    path = tmp_path / "new" / "scan.nii.gz"
    with write_atomically(path) as draft:
        assert draft.name.endswith("scan.nii.gz")
        draft.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def write_half(path, error):
    with write_atomically(path) as draft:
        draft.write_text("half")
        raise error


@pytest.mark.parametrize("error", [RuntimeError("defect"), OSError(28, "No space left on device")])
def test_an_error_keeps_the_earlier_file(tmp_path, error):
    path = tmp_path / "a.csv"
    path.write_text("earlier")
    kind = OutputError if isinstance(error, OSError) else RuntimeError
    reason = r"defect|a\.csv cannot be written: No space left"
    with pytest.raises(kind, match=reason):
        write_half(path, error)
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "deep" / "a.csv"
    with pytest.raises(OutputError, match="cannot be written"), write_atomically(path):
        pass
