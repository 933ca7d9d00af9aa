"""The server's log: plain for people, or JSON for machines."""

import json
import logging
from datetime import UTC, datetime


def set_log_up(as_json: bool) -> None:
    """Let the log say what this package does, and of libraries only what is wrong."""
    handler = logging.StreamHandler()
    plain = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    handler.setFormatter(JsonFormatter() if as_json else plain)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("heatmask").setLevel(logging.INFO)


class JsonFormatter(logging.Formatter):
    """One JSON object a line, for machines that collect logs."""

    FACTS = ("method", "path", "status", "seconds", "person", "address")

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as JSON."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "message": record.getMessage(),
            **{name: getattr(record, name) for name in self.FACTS if hasattr(record, name)},
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)
