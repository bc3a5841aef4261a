from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mosquitto import Mosquitto

from .event_handler.clients import Consumer
from .processes import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    started = Bench(tmp_path)
    yield started
    started.close()


@pytest.fixture
def consumer() -> Iterator[Consumer]:
    """One that an Event Handler calls back."""
    made = Consumer()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[int]:
    """The port of a Mosquitto of our own."""
    with Mosquitto(tmp_path, "max_queued_messages 0") as broker:
        yield broker.port
