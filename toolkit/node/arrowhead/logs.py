"""Log records as JSON lines on stderr."""

from __future__ import annotations

import json
import logging
import sys
import time

from toolkit.contract.settings import ProcessSettings


class JsonLines(logging.Formatter):
    """One JSON object a record, with who writes it."""

    def __init__(self, process: ProcessSettings, role: str) -> None:
        super().__init__()
        self._who = {"node": process.node, "service": process.service, "role": role}

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line = {
            "at_ns": time.time_ns(),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "origin": record.name,
            **self._who,
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure(process: ProcessSettings, role: str) -> None:
    """Send warnings and what concerns the process to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(process, role))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("toolkit").setLevel(logging.INFO)
