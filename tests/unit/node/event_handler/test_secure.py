"""The Event Handler in secure mode: who gets in, and whole runs over TLS."""

import contextlib
import http.client
import json
import socket
import ssl
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.unit.node.processes import Bench, NodeProcess, of_point, play
from tests.waiting import until
from toolkit.contract.samples import Point
from toolkit.node.tls_sockets import TlsSocket
from toolkit.provisioning import certificates

from .clients import count


@dataclass
class Cloud:
    """Certificates on disk, by system."""

    folder: Path

    def files(self, prefix: str, system: str) -> dict[str, str]:
        return {
            f"{prefix}CERTIFICATE_FILE": str(self.folder / f"{system}.crt"),
            f"{prefix}KEY_FILE": str(self.folder / f"{system}.key"),
        }

    def client(self, system: str) -> dict[str, str]:
        return self.files("TOOLKIT_TLS_", system) | {
            "TOOLKIT_TLS_CA_FILE": str(self.folder / "cloud.crt"),
            "TOOLKIT_SYSTEM": system,
        }

    def handler(self, bench: Bench, mode: str) -> NodeProcess:
        return bench.event_handler(
            TOOLKIT_SETTINGS=json.dumps({"mode": mode}),
            TOOLKIT_EVENT_HANDLER_TLS_CLOUD_CA_FILE=str(self.folder / "cloud.crt"),
            **self.files("TOOLKIT_EVENT_HANDLER_TLS_", "eventhandler"),
        )

    def context(self, system: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.sslsocket_class = TlsSocket
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_verify_locations(self.folder / "cloud.crt")
        if system:
            context.load_cert_chain(self.folder / f"{system}.crt", self.folder / f"{system}.key")
        return context


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Cloud:
    folder = tmp_path_factory.mktemp("cloud")
    master = certificates.make_master()
    own = certificates.make_cloud(master, cloud="a", operator="op")
    other = certificates.make_cloud(master, cloud="b", operator="op")
    certificates.save(own, folder, "cloud")
    for system in ("eventhandler", "gauge", "panel", "sysop"):
        certificates.save(certificates.make_system(own, system=system), folder, system)
    certificates.save(certificates.make_system(other, system="gauge"), folder, "stranger")
    return Cloud(folder)


def ask(
    handler: NodeProcess, cloud: Cloud, system: str, method: str, path: str, body: Any = None
) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPSConnection("127.0.0.1", handler.port, timeout=10, context=cloud.context(system))
    with contextlib.closing(connection):
        connection.request(method, path, json.dumps(body) if body is not None else None)
        response = connection.getresponse()
        text = response.read()
    return response.status, json.loads(text) if text.startswith(b"{") else {}


@pytest.mark.parametrize(("mode", "protocol"), [("direct", "sse"), ("enhanced", "sse"), ("original", "http")])
def test_a_run_over_tls_loses_nothing(bench: Bench, cloud: Cloud, mode: str, protocol: str) -> None:
    handler = cloud.handler(bench, mode)
    publisher = bench.publisher(0, **cloud.client("gauge"))
    subscriber = bench.subscriber(0, **cloud.client("panel"))
    play(
        handler,
        [publisher],
        [subscriber],
        run="r",
        protocol=protocol,
        broker=f"127.0.0.1:{handler.port}",
        messages=200,
        payload_bytes=71,
        options={"tls": True},
    )
    sent = {stamp[3:5] for stamp in of_point(publisher.stamps("r"), Point.SENT)}
    assert len(sent) == 200
    assert {stamp[3:5] for stamp in of_point(subscriber.stamps("r"), Point.RECEIVED)} == sent
    assert {stamp[3:5] for stamp in of_point(handler.stamps("r"), Point.BROKER_SENT)} == sent


@pytest.mark.parametrize("mode", ["direct", "original"])
def test_certificates_decide_who_may_what(bench: Bench, cloud: Cloud, mode: str) -> None:
    handler = cloud.handler(bench, mode)
    place = {"address": "127.0.0.1", "port": 8462}
    gauge, panel = ({"systemName": name, **place} for name in ("gauge", "panel"))
    event = {"source": gauge, "event": {"type": "pressure", "payload": "1"}}
    wanted = {"eventType": "pressure", "consumer": panel, "sources": [], "filterMetadata": {}, "matchMetadata": False}
    base = "/eventhandler"
    assert ask(handler, cloud, "gauge", "POST", f"{base}/publish", event)[0] == 200
    status, problem = ask(handler, cloud, "panel", "POST", f"{base}/publish", event)
    assert (status, problem["exceptionType"], problem["errorCode"]) == (401, "AUTH", 401)
    url = f"https://127.0.0.1:{handler.port}/eventhandler/publish"
    assert problem["errorMessage"] == f"panel.a.op.arrowhead.eu is unauthorized to access {url}"
    assert problem["origin"] == url
    assert ask(handler, cloud, "gauge", "POST", f"{base}/subscription", wanted)[0] == 401
    assert ask(handler, cloud, "panel", "POST", f"{base}/subscription", wanted)[0] == 201
    for path in (f"{base}/mgmt", f"{base}/mgmt/subscriptions", f"{base}/mgmt/subscriptions/1"):
        assert ask(handler, cloud, "panel", "GET", path)[0] == 401
        assert ask(handler, cloud, "sysop", "GET", path)[0] == 200
    gone = f"{base}/subscription/type/pressure/consumer/panel"
    assert ask(handler, cloud, "gauge", "DELETE", gone)[0] == 401
    assert ask(handler, cloud, "panel", "DELETE", gone)[0] == 200
    assert ask(handler, cloud, "gauge", "GET", base)[0] == 200
    for outsider in ("stranger", ""):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            ask(handler, cloud, outsider, "GET", base)
    with socket.create_connection(("127.0.0.1", handler.port), 5) as plain:
        plain.sendall(b"GET /eventhandler HTTP/1.1\r\nHost: x\r\n\r\n")
        assert not plain.recv(100).startswith(b"HTTP")
    assert ask(handler, cloud, "gauge", "POST", f"{base}/publish", event)[0] == 200
    assert "Traceback" not in bench.log("broker")


GAUGE = {"systemName": "gauge", "address": "127.0.0.1", "port": 1}


def event(payload: str) -> dict[str, Any]:
    return {"source": GAUGE, "event": {"type": "pressure", "payload": payload}}


class SecureStream:
    """A subscription over TLS; what it says meanwhile makes a worker read while others write to it."""

    def __init__(self, handler: NodeProcess, cloud: Cloud, system: str) -> None:
        self.socket = cloud.context(system).wrap_socket(socket.create_connection(("127.0.0.1", handler.port), 20))
        self.socket.sendall(b"GET /eventhandler/subscription HTTP/1.1\r\nHost: x\r\neventtype: pressure\r\n\r\n")
        self.text = b""
        self.read_until(lambda text: b"\r\n\r\n" in text)
        assert self.text.startswith(b"HTTP/1.1 200 ")

    def read_until(self, enough: Callable[[bytes], bool], *, say: bytes = b"") -> bytes:
        while not enough(self.text):
            piece = self.socket.recv(4000)
            assert piece
            self.text += piece
            self.socket.sendall(say)
        return self.text

    def payloads(self, number: int) -> list[str]:
        text = self.read_until(lambda text: text.count(b"\ndata: ") >= number and text.endswith(b"\n\n\r\n"), say=b"x")
        return [line[6:].decode() for line in text.split(b"\n") if line.startswith(b"data: ")]


def push(handler: NodeProcess, cloud: Cloud, payloads: list[str]) -> None:
    connection = http.client.HTTPSConnection("127.0.0.1", handler.port, timeout=20, context=cloud.context("gauge"))
    with contextlib.closing(connection):
        for payload in payloads:
            connection.request("POST", "/eventhandler/publish", json.dumps(event(payload)))
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200


def await_subscribers(handler: NodeProcess, number: int) -> None:
    until(lambda: count(handler, "toolkit_broker_subscribers") == number)


def test_enhanced_broadcasts_over_tls_while_its_streams_are_read_from(bench: Bench, cloud: Cloud) -> None:
    handler = cloud.handler(bench, "enhanced")
    sent = [[f"{publisher}-{number}-" + "x" * (number * 50) for number in range(100)] for publisher in range(4)]
    streams = [SecureStream(handler, cloud, system) for system in ("panel", "panel", "gauge")]
    with ThreadPoolExecutor(len(sent) + len(streams)) as pool:
        reading = [pool.submit(stream.payloads, 400) for stream in streams]
        for pushed in [pool.submit(push, handler, cloud, payloads) for payloads in sent]:
            pushed.result(60)
        got = [result.result(60) for result in reading]
    for payloads in got:
        assert len(payloads) == 400
        for publisher, own in enumerate(sent):
            assert [payload for payload in payloads if payload.startswith(f"{publisher}-")] == own
    for stream in streams:
        stream.socket.close()
    await_subscribers(handler, 0)
    assert "Traceback" not in bench.log("broker")


def test_who_may_what_with_enhanced(bench: Bench, cloud: Cloud) -> None:
    handler = cloud.handler(bench, "enhanced")
    leaver, stream = SecureStream(handler, cloud, "gauge"), SecureStream(handler, cloud, "panel")
    leaver.socket.close()  # which unsubscribes
    await_subscribers(handler, 1)
    status, problem = ask(handler, cloud, "panel", "POST", "/eventhandler/publish", event("not mine"))
    assert (status, problem["exceptionType"]) == (401, "AUTH")
    assert ask(handler, cloud, "gauge", "POST", "/eventhandler/publish", event("mine"))[0] == 200
    for outsider in ("stranger", ""):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            ask(handler, cloud, outsider, "GET", "/eventhandler")
    assert stream.payloads(1) == ["mine"]
    handler.process.terminate()
    assert stream.read_until(lambda text: text.endswith(b"\r\n0\r\n\r\n"))
    stream.socket.close()
    assert handler.process.wait(20) == 0
    assert "Traceback" not in bench.log("broker")
    bench.processes.clear()


def test_a_stuck_stream_of_enhanced_over_tls_is_given_up_and_its_end_is_noticed(bench: Bench, cloud: Cloud) -> None:
    handler = cloud.handler(bench, "enhanced")
    stuck = SecureStream(handler, cloud, "panel")
    with ThreadPoolExecutor(1) as pool:
        pushed = pool.submit(push, handler, cloud, ["x" * 900_000] * 8)
        time.sleep(1)
        assert not pushed.done()  # a worker waits for it
        stuck.socket.sendall(b"x")  # another has something to read, and waits for the first
        assert ask(handler, cloud, "panel", "GET", "/eventhandler")[0] == 200
        stuck.socket.close()
        pushed.result(30)
    await_subscribers(handler, 0)
    assert "Traceback" not in bench.log("broker")


def test_what_cannot_be_secure_is_said(bench: Bench, cloud: Cloud) -> None:
    missing = Cloud(cloud.folder / "nowhere")
    with pytest.raises(AssertionError, match="cannot be used for TLS"):
        missing.handler(bench, "direct")
