"""Which corrected patients are held out together."""

from collections.abc import Iterable

from heatmask.errors import InputError


def assign_folds(patients: Iterable[str], count: int) -> dict[str, int]:
    """Return the fold of each patient, from 0.

    Parameters
    ----------
    patients
        Those with a corrected mask.
    count
        The most folds; with fewer patients each is held out alone.

    Raises
    ------
    InputError
        There is one patient, or none.
    """
    names = sorted(set(patients))
    if len(names) < 2:
        raise InputError(
            "At least two patients with a corrected mask are needed: one to learn from, and one to "
            f"check the new weights on. There {'is' if len(names) == 1 else 'are'} "
            f"{len(names) or 'none'}. Correct and submit another."
        )
    return {name: number % count for number, name in enumerate(names)}
