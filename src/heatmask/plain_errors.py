"""Show people what went wrong without the tracebacks of everything in between.

`python -m monai.bundle run` wraps an error once for every config item that depends on the
one that failed, so that its last line says "Failed to evaluate" and the reason stands forty
lines above it.
"""

import sys
from types import TracebackType

from heatmask.errors import find_reason


def show_plain_errors() -> None:
    """Make an uncaught error that was caused by a `HeatmaskError` print its message alone.

    Other errors keep their traceback: they are defects. The exit status stays 1.
    """
    previous = sys.excepthook

    def show(
        kind: type[BaseException], error: BaseException, traceback: TracebackType | None
    ) -> None:
        reason = find_reason(error)
        if reason is None:
            previous(kind, error, traceback)
        else:
            print(f"\nheatmask: error: {reason}", file=sys.stderr)

    sys.excepthook = show
