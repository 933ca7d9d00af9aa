"""Options that count things."""

from heatmask.errors import OptionError


def check_count(name: str, count: int) -> int:
    """Return a number of things, or refuse what is none.

    Raises
    ------
    OptionError
        It is no whole number, or less than 1.
    """
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise OptionError(f"{name} must be a whole number of at least 1, got {count!r}.")
    return count
