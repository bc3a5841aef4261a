"""Log records as JSON lines on stderr and, to imitate the originals' cost, as rows in the database."""

from __future__ import annotations

import json
import logging
import sys
import time
from datetime import datetime

from sqlalchemy import insert
from sqlalchemy.engine import Connection

from toolkit.contract.settings import ProcessSettings
from toolkit.node.arrowhead.schema import LOG
from toolkit.node.arrowhead.storage import Storage


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


class SqlLog(logging.Handler):
    """Writes each record as a row and waits for it: the work that was logging waits too."""

    def __init__(self, storage: Storage) -> None:
        super().__init__()
        self._storage = storage

    def emit(self, record: logging.LogRecord) -> None:
        """Insert the row and commit."""
        values = {
            "date": datetime.now(),  # noqa: DTZ005 - a LocalDateTime has no zone
            "origin": record.name,
            "level": "INFO" if record.levelno <= logging.INFO else record.levelname,
            "message": record.getMessage()[:2047],
        }

        def work(connection: Connection) -> None:
            connection.execute(insert(LOG).values(**values))

        try:
            self._storage.write_now(work)
        except Exception:  # noqa: BLE001 - logging must not end what logs
            self.handleError(record)


def configure(process: ProcessSettings, role: str) -> None:
    """Send warnings and what concerns the process to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(process, role))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("toolkit").setLevel(logging.INFO)


def write_rows_too(storage: Storage) -> None:
    """From here on each line of a request's processing is a row, and each statement is shown on stderr."""
    logger = logging.getLogger("toolkit")
    logger.setLevel(logging.DEBUG)
    logger.addHandler(SqlLog(storage))
    storage.engine.echo = True
