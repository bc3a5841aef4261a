"""The Event Handler's mode `original` with subscriptions and log on the database servers that a testbed may name."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.ports import await_port
from tests.unit.node.event_handler.clients import SOURCE, Consumer, ask, count, publish
from tests.unit.node.processes import ROOT, Bench, NodeProcess
from tests.waiting import until

from .database_servers import PASSWORD, DatabaseServer
from .local_cloud import NODE_PYTHON

COUNT_LOGS = """
import sys
from sqlalchemy import create_engine, text
from toolkit.node.arrowhead.storage import DRIVERS
scheme, _, rest = sys.argv[1].partition("://")
with create_engine(f"{DRIVERS[scheme]}://{rest}").connect() as connection:
    print(connection.execute(text("SELECT count(*) FROM logs")).scalar())
"""


def start(bench: Bench, database: DatabaseServer, folder: Path) -> NodeProcess:
    password = folder / "password"
    password.write_text(PASSWORD)
    settings = {"mode": "original", "database": "stores", "sql_log": True, "database_timeout": 1}
    return bench.event_handler(
        TOOLKIT_SETTINGS=json.dumps(settings),
        TOOLKIT_EVENT_HANDLER_DATABASE_URL=database.url.replace(f":{PASSWORD}@", "@"),
        TOOLKIT_EVENT_HANDLER_DATABASE_PASSWORD_FILE=str(password),
    )


def subscribe(handler: NodeProcess, consumer: Consumer, name: str) -> tuple[int, str | None]:
    document = {
        "eventType": "Größe",
        "consumer": consumer.system(name),
        "sources": [SOURCE],
        "startDate": "2001-01-01T00:00:00.123456Z",
        "endDate": "2999-01-01T00:00:00+05:00",
        "filterMetadata": {"unit": "bar"},
        "matchMetadata": True,
        "notifyUri": name,
    }
    status, text, _ = ask(handler, "POST", "/eventhandler/subscription", document)
    return status, json.loads(text).get("exceptionType") if text else None


def publish_five(handler: NodeProcess) -> None:
    more = {"event": {"eventMetadata": {"unit": "bar"}}}
    assert [publish(handler, str(number), "Größe", **more) for number in range(5)] == [200] * 5


def wait_for(consumer: Consumer, name: str, times: int) -> None:
    until(
        lambda: [path for path, _ in consumer.got].count(f"/{name}") >= times, within_s=60, instead=lambda: consumer.got
    )


@pytest.mark.databases
def test_events_wait_for_a_server_that_is_away_or_hangs(database: DatabaseServer, tmp_path: Path) -> None:
    database.start()
    await_port(database.port, within_s=60)
    bench, consumer = Bench(tmp_path, NODE_PYTHON), Consumer()
    try:
        handler = start(bench, database, tmp_path)
        assert subscribe(handler, consumer, "one") == (201, None)
        assert subscribe(handler, consumer, "one") == (204, None)
        assert publish(handler, "of another unit", "Größe") == 200
        publish_five(handler)
        wait_for(consumer, "one", 5)

        database.stop()
        assert subscribe(handler, consumer, "two") == (503, "UNAVAILABLE")
        publish_five(handler)
        assert len(consumer.got) == 5
        database.start()
        wait_for(consumer, "one", 10)
        assert subscribe(handler, consumer, "two") == (201, None)

        with database.hanging():
            assert subscribe(handler, consumer, "three") == (503, "UNAVAILABLE")
            publish_five(handler)
        wait_for(consumer, "one", 15)
        wait_for(consumer, "two", 5)
        assert subscribe(handler, consumer, "three")[0] in (201, 204)

        handler.process.terminate()
        assert handler.process.wait(20) == 0
        bench.processes.clear()
        again = start(bench, database, tmp_path)
        assert count(again, "toolkit_broker_subscribers") == 3
        publish_five(again)
        for name, times in (("one", 20), ("two", 10), ("three", 5)):
            wait_for(consumer, name, times)
        assert "of another unit" not in {event["payload"] for _, event in consumer.got}
        environment = {"PYTHONPATH": str(ROOT)}
        shown = subprocess.run(
            [NODE_PYTHON, "-c", COUNT_LOGS, database.url], env=environment, capture_output=True, check=True
        )
        # Two rows for each notification, one for each event.
        assert int(shown.stdout) >= 2 * 35 + 20
    finally:
        consumer.server.shutdown()
        consumer.server.server_close()
        bench.close()


@pytest.mark.databases
def test_filters_are_managed_on_a_server(database: DatabaseServer, tmp_path: Path) -> None:
    database.start()
    await_port(database.port, within_s=60)
    bench, consumer = Bench(tmp_path, NODE_PYTHON), Consumer()
    base = "/eventhandler/mgmt/subscriptions"
    try:
        handler = start(bench, database, tmp_path)
        assert [subscribe(handler, consumer, name)[0] for name in ("one", "two")] == [201, 201]
        first, second = json.loads(ask(handler, "GET", base)[1])
        assert (first["eventType"], first["startDate"]) == ("Größe", "2001-01-01T00:00:00.123Z")
        change = {"eventType": "Größe", "consumer": consumer.system("one"), "sources": [], "filterMetadata": {"a": "b"}}
        status, text, _ = ask(handler, "PUT", f"{base}/{first['id']}", change)
        assert (status, json.loads(text)) == (200, first | {"sources": [], "filterMetadata": {"a": "b"}})
        assert json.loads(ask(handler, "GET", f"{base}/{first['id']}")[1]) == json.loads(text)
        status, text, _ = ask(handler, "PUT", f"{base}/{second['id']}", change)
        assert (status, json.loads(text)["exceptionType"]) == (400, "DUPLICATE_ENTRY")
        assert ask(handler, "DELETE", f"{base}/{first['id']}")[0] == 200
        assert json.loads(ask(handler, "GET", base)[1]) == [second]
        database.stop()
        assert [ask(handler, method, f"{base}/{second['id']}")[0] for method in ("GET", "DELETE")] == [503, 503]
    finally:
        consumer.server.shutdown()
        consumer.server.server_close()
        bench.close()
