"""Clients that misbehave, neighbours that hang, databases that are away: answered, bounded, nobody else harmed."""

from __future__ import annotations

import contextlib
import json
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ports import await_port

from .local_cloud import ENTRY, GAUGE, PANEL, PRESS_GAUGE, LocalCloud, ask, free_port, request_form

QUERY = "/serviceregistry/query"
ORCHESTRATE = "/orchestrator/orchestration"


@contextlib.contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        yield connection


def read_all(connection: socket.socket) -> bytes:
    chunks = []
    with contextlib.suppress(ConnectionResetError):
        while chunk := connection.recv(65536):
            chunks.append(chunk)
    return b"".join(chunks)


def resident_bytes(cloud: LocalCloud, system: str) -> int:
    status = Path(f"/proc/{cloud.processes[system].pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    """A Service Registry with short time limits."""
    cloud = LocalCloud("impatient", tmp_path_factory.mktemp("impatient"))
    cloud.environment = {"TOOLKIT_ARROWHEAD_REQUEST_S": "1", "TOOLKIT_ARROWHEAD_DATABASE_TIMEOUT_S": "0.5"}
    cloud.seed(registryEntries=[ENTRY])
    cloud.start("service_registry")
    try:
        cloud.await_ready("service_registry")
        yield cloud
    finally:
        assert set(cloud.stop().values()) <= {0}


def test_a_body_of_64_mib_is_refused_and_not_kept(cloud: LocalCloud) -> None:
    before = resident_bytes(cloud, "service_registry")
    for announced in (True, False):
        with connected(cloud.ports["service_registry"]) as connection:
            length = b"Content-Length: 67108864" if announced else b"Transfer-Encoding: chunked"
            connection.sendall(b"PUT " + QUERY.encode() + b" HTTP/1.1\r\nHost: x\r\n" + length + b"\r\n\r\n")
            chunk = b"x" * 65536
            with contextlib.suppress(ConnectionError):
                for _ in range(1024):
                    connection.sendall(chunk if announced else b"10000\r\n" + chunk + b"\r\n")
            answer = read_all(connection)
        assert answer.startswith(b"HTTP/1.1 413 ")
        document = json.loads(answer.split(b"\r\n\r\n", 1)[1])
        assert (document["errorCode"], document["exceptionType"]) == (413, "BAD_PAYLOAD")
    assert resident_bytes(cloud, "service_registry") - before < 8 << 20
    assert cloud.service_registry("PUT", QUERY, {"service": GAUGE}).status == 200


def test_a_body_just_allowed(cloud: LocalCloud) -> None:
    body = json.dumps({"service": GAUGE, "more": ""}).encode()
    body = body.replace(b'""', b'"' + b"x" * ((1 << 20) - len(body)) + b'"')
    assert len(body) == 1 << 20
    assert cloud.service_registry("PUT", QUERY, body=body, headers={"Expect": "100-continue"}).status == 200
    assert cloud.service_registry("PUT", QUERY, body=body + b" ").status == 413


def test_slow_clients_are_let_go_and_others_served(impatient: LocalCloud) -> None:
    port = impatient.ports["service_registry"]
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(connected(port)) for _ in range(200)]
        for connection in slow:
            connection.sendall(b"PUT /serviceregistry/query HTTP/1.1\r\nX-Slow: ")
        started = time.monotonic()
        for _ in range(20):
            assert impatient.service_registry("PUT", QUERY, {"service": GAUGE}).status == 200
        assert time.monotonic() - started < 10, "each waits for a time limit of 1 s"
        for connection in slow:
            with contextlib.suppress(ConnectionError):
                connection.sendall(b"x")
        for connection in slow:
            answer = read_all(connection)
            assert answer.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % i for i in range(3000)) + b"\r\n", 431),
        (b"PUT /serviceregistry/query HTTP/1.1\r\nContent-Length: -5\r\n\r\n", 400),
        (b"PUT /serviceregistry/query HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"GET /serviceregistry HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", 400),
    ],
)
def test_what_is_no_http(cloud: LocalCloud, sent: bytes, status: int) -> None:
    with connected(cloud.ports["service_registry"]) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:200]


def test_pipelined_requests_are_answered_in_order(cloud: LocalCloud) -> None:
    with connected(cloud.ports["service_registry"]) as connection:
        requests = b"".join(b"GET /serviceregistry/mgmt/id/%d HTTP/1.1\r\nHost: x\r\n\r\n" % i for i in range(900, 950))
        connection.sendall(requests + b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = read_all(connection)
    positions = [answer.index(b"with the id %d" % number) for number in range(900, 950)]
    assert positions == sorted(positions)
    assert answer.count(b"HTTP/1.1 404 ") == 50


def test_a_client_that_vanishes_harms_nobody(cloud: LocalCloud) -> None:
    for _ in range(50):
        with connected(cloud.ports["orchestrator"]) as connection:
            body = json.dumps(request_form()).encode()
            head = b"POST /orchestrator/orchestration HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body)
            connection.sendall(head + body)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert cloud.orchestrator("POST", ORCHESTRATE, request_form()).status == 200


def test_many_at_once(cloud: LocalCloud) -> None:
    outcomes: list[int] = []

    def work() -> None:
        outcomes.extend(cloud.orchestrator("POST", ORCHESTRATE, request_form()).status for _ in range(10))

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [200] * 200


def test_registrations_at_once_are_all_kept(cloud: LocalCloud) -> None:
    answers: list[int] = []

    def work(number: int) -> None:
        provider = {**PRESS_GAUGE, "systemName": f"crowd-{number}"}
        entry = {**ENTRY, "providedService": {"serviceDefinition": "Crowd"}, "provider": provider}
        answers.append(cloud.service_registry("POST", "/serviceregistry/register", entry).status)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [201] * 40
    found = cloud.service_registry("PUT", QUERY, {"service": {"serviceDefinition": "Crowd"}}).json
    assert len(found["serviceQueryData"]) == 40


class TestDatabase:
    def test_a_locked_database_refuses_writes_and_still_reads(self, impatient: LocalCloud) -> None:
        with contextlib.closing(sqlite3.connect(impatient.folder / "cloud.sqlite")) as database:
            database.isolation_level = None
            database.execute("BEGIN IMMEDIATE")
            entry = {**ENTRY, "provider": {**PRESS_GAUGE, "systemName": "waiting"}}
            refused = impatient.service_registry("POST", "/serviceregistry/register", entry)
            assert (refused.status, refused.json["exceptionType"]) == (503, "UNAVAILABLE")
            assert impatient.service_registry("PUT", QUERY, {"service": GAUGE}).status == 200
            database.execute("ROLLBACK")
        assert impatient.service_registry("POST", "/serviceregistry/register", entry).status == 201

    def test_what_was_accepted_survives_a_kill(self, tmp_path: Path) -> None:
        cloud = LocalCloud("killed", tmp_path)
        cloud.seed()
        cloud.start("service_registry")
        try:
            cloud.await_ready("service_registry")
            assert cloud.service_registry("POST", "/serviceregistry/register", ENTRY).status == 201
            cloud.processes["service_registry"].kill()
            cloud.processes["service_registry"].wait(10)
            cloud.start("service_registry")
            cloud.await_ready("service_registry")
            assert len(cloud.service_registry("PUT", QUERY, {"service": GAUGE}).json["serviceQueryData"]) == 1
        finally:
            assert set(cloud.stop().values()) == {0}


@contextlib.contextmanager
def hanging() -> Iterator[int]:
    """A port that accepts connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield listener.getsockname()[1]


@pytest.mark.parametrize("gsd", ["sequential", "parallel"])
def test_neighbours_that_hang(tmp_path: Path, gsd: str, other_cloud: LocalCloud) -> None:
    """Three hang, one is dead, one answers: sequentially that costs three time limits, in parallel one."""
    cloud = LocalCloud("hall-1", tmp_path)
    cloud.environment |= {"TOOLKIT_ARROWHEAD_GSD": gsd}
    with hanging() as one, hanging() as two, hanging() as three:
        dead = [
            {**other_cloud.own, "cloudName": f"dead-{number}", "port": number}
            for number in (one, two, three, free_port())
        ]
        cloud.seed(neighborClouds=[*dead, other_cloud.own])
        # Its outbound side needs nobody else.
        cloud.start("gatekeeper", extra={"gatekeeper": {"TOOLKIT_ARROWHEAD_PEER_TIMEOUT_S": "1.5"}})
        try:
            await_port(cloud.ports["outbound"])
            form = {"requestedService": {"serviceDefinition": "IndoorTemperature", "interfaces": ["json"]}}
            answers: list[Any] = []
            started = time.monotonic()
            thread = threading.Thread(
                target=lambda: answers.append(cloud.outbound("PUT", "/gatekeeper/init_gsd", form))
            )
            thread.start()
            time.sleep(0.3)
            assert cloud.outbound("GET", "/gatekeeper").status == 200
            assert thread.is_alive(), "others wait for the one that hangs"
            thread.join()
            took_s = time.monotonic() - started
            assert answers[0].status == 200, answers[0].body
            assert [one["providerCloud"]["cloudName"] for one in answers[0].json["response"]] == ["hall-2"]
            assert took_s >= 4.5 if gsd == "sequential" else 1.5 <= took_s < 4.5
        finally:
            assert set(cloud.stop().values()) == {0}


def test_each_log_line_as_a_row(tmp_path: Path) -> None:
    """What made the originals slow: ten rows a request, each waited for."""
    cloud = LocalCloud("logged", tmp_path)
    cloud.environment |= {"TOOLKIT_ARROWHEAD_SQL_LOG": "1", "TOOLKIT_ARROWHEAD_GATEKEEPER": "0"}
    cloud.seed(
        registryEntries=[ENTRY],
        intraCloud=[{"consumer": PANEL, "providerList": [PRESS_GAUGE], "serviceList": [GAUGE]}],
    )
    systems = ("service_registry", "authorization", "orchestrator")
    cloud.start(*systems)
    try:
        cloud.await_ready(*systems)
        with contextlib.closing(sqlite3.connect(tmp_path / "cloud.sqlite")) as database:
            count = lambda: database.execute("SELECT count(*) FROM logs").fetchone()[0]  # noqa: E731
            before = count()
            for _ in range(3):
                assert cloud.orchestrator("POST", ORCHESTRATE, request_form()).status == 200
            assert 15 <= count() - before <= 45
        assert "INSERT INTO logs" in (tmp_path / "orchestrator.log").read_text()
        assert ask(cloud.metrics["orchestrator"], "GET", "/healthz").status == 200
    finally:
        assert set(cloud.stop().values()) == {0}
