"""DICOM series as NIfTI: viewers get one file a scan."""

from pathlib import Path

from heatmask.serving.store.durable import open_draft, publish
from heatmask.serving.store.identity import identify


class Volumes:
    """A copy of each series that was asked for.

    Parameters
    ----------
    folder, drafts
        ``volumes`` and ``drafts`` of a store; they need not exist. The former may be deleted at
        any time.
    """

    def __init__(self, folder: Path, drafts: Path) -> None:
        self._folder, self._drafts = folder, drafts

    def get(self, image_id: str, series: Path) -> Path:
        """Return the copy of a series, made when it is first asked for or the series has changed.

        Raises
        ------
        InputError
            The series is not whole, or cannot be read.
        OutputError
            The disk is full.
        """
        copy = self._folder / identify(series)["sha256"][:16] / f"{image_id}.nii.gz"
        if not copy.is_file():
            self._make(series, copy)
        return copy

    def _make(self, series: Path, copy: Path) -> None:
        import nibabel as nib

        from heatmask.data.readers.nifti import make_nifti
        from heatmask.data.readers.read import read_scan  # brings torch

        scan = read_scan(series)
        with open_draft(self._drafts) as draft:
            nib.save(make_nifti(scan.array, scan.affine, None), draft / copy.name)
            publish(draft / copy.name, copy)
