"""Every error that Heatmask raises on purpose.

::

    HeatmaskError
      InputError     a scan, a label list or a folder is not what was expected
      OptionError    an option has the wrong type, range or name
      MethodError    an attribution method cannot explain this network, or would be wrong on it
      WeightsError   a checkpoint is missing or does not fit its network
      DeviceError    the device asked for is not there
      OutputError    a result cannot be written

A message says what must hold, what came, and how to fix it. The command line and
the server catch `HeatmaskError` once, at their edge, and print the message alone;
anything else is a defect and keeps its traceback.
"""

from collections.abc import Iterator
from contextlib import contextmanager


class HeatmaskError(Exception):
    """Base of all errors below."""


class InputError(HeatmaskError):
    """A scan, a label list or a folder is not what was expected."""


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
