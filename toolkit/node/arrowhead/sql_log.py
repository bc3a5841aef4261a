"""Log records as rows in the database, to imitate the originals' cost."""

from __future__ import annotations

import logging
from datetime import datetime

from sqlalchemy import insert
from sqlalchemy.engine import Connection

from toolkit.node.arrowhead.schema import LOG
from toolkit.node.arrowhead.storage import Storage


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


def write_rows_too(storage: Storage) -> None:
    """From here on each line of a request's processing is a row, and each statement is shown on stderr."""
    logger = logging.getLogger("toolkit")
    logger.setLevel(logging.DEBUG)
    logger.addHandler(SqlLog(storage))
    storage.engine.echo = True
