"""Every error that Heatmask raises on purpose.

::

    HeatmaskError
      InputError     a scan, a label list or a folder is not what was expected
        NotFoundError  an image or a label that a client names is not there
      OptionError    an option has the wrong type, range or name
      MethodError    an attribution method cannot explain this network, or would be wrong on it
      WeightsError   a checkpoint is missing or does not fit its network
      DeviceError    the device asked for is not there
      OutputError    a result cannot be written

A message says in plain sentences what is wrong, with the values that came, and how to mend it.
The command line and the server catch `HeatmaskError` once, at their edge, and print the message
alone; anything else is a defect and keeps its traceback.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

logger = logging.getLogger(__name__)


class HeatmaskError(Exception):
    """Base of all errors below."""


class InputError(HeatmaskError):
    """A scan, a label list or a folder is not what was expected."""


class NotFoundError(InputError):
    """An image or a label that a client names is not there."""


class OptionError(HeatmaskError):
    """An option has the wrong type, range or name."""


class MethodError(HeatmaskError):
    """An attribution method cannot explain this network, or would be wrong on it."""


class WeightsError(HeatmaskError):
    """A checkpoint is missing or does not fit its network."""


class DeviceError(HeatmaskError):
    """The device asked for is not there."""


class OutputError(HeatmaskError):
    """A result cannot be written."""


def find_reason(error: BaseException | None) -> HeatmaskError | None:
    """Return the first `HeatmaskError` among an error and what caused it, or None."""
    while error is not None and not isinstance(error, HeatmaskError):
        error = error.__cause__ or error.__context__
    return error


@contextmanager
def reveal_reason() -> Iterator[None]:
    """Raise the `HeatmaskError` behind an error of MONAI's in place of it.

    MONAI wraps what a transform or a config item raises in a `RuntimeError` of its own.
    """
    try:
        yield
    except HeatmaskError:
        raise
    except Exception as error:
        reason = find_reason(error)
        if reason is None:
            raise
        raise reason from error


class Failures:
    """What failed of many items while the others went on.

    Attributes
    ----------
    reasons : dict of str to str
        Why, on one line, by the item's name.
    """

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}

    @contextmanager
    def catch(self, name: str) -> Iterator[None]:
        """Keep and log an error in the block in place of raising it; Ctrl-C still stops.

        The traceback of a defect is logged with it.
        """
        try:
            yield
        except Exception as error:
            known = find_reason(error)
            text = str(known) if known else _describe(error)
            self.reasons[name] = " ".join(text.split()).removeprefix(f"{name}: ")
            logger.error("%s: %s", name, self.reasons[name], exc_info=known is None)


def _describe(error: BaseException) -> str:
    """Return what an error of a library began with: MONAI says only where it was."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}"


def list_reasons(reasons: Mapping[str, str]) -> str:
    """Return an indented line for each item, to end a message with."""
    return "".join(f"\n  {name}: {reason}" for name, reason in reasons.items())


def raise_failures(reasons: Mapping[str, str], total: int, items: str) -> None:
    """Say at the end which of many items failed; the exit status is then not 0.

    Raises
    ------
    HeatmaskError
        If any failed.
    """
    if reasons:
        raise HeatmaskError(
            f"{len(reasons)} of {total} {items} failed, the others are written:"
            f"{list_reasons(reasons)}"
        )
