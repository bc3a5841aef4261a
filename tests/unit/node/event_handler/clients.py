"""Programs that speak to an Event Handler: who publishes, who subscribes, and who is called back."""

import http.client
import http.server
import json
import socket
import threading
from typing import Any

from tests.unit.node.processes import NodeProcess
from tests.waiting import until

SOURCE = {"systemName": "PressPub", "address": "10.20.0.71", "port": 8462}


def ask(
    handler: NodeProcess, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> tuple[int, bytes, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection("127.0.0.1", handler.port, timeout=10)
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    connection.request(method, path, data, {"Content-Type": "application/json", **(headers or {})})
    response = connection.getresponse()
    answer = response.status, response.read(), response.headers
    connection.close()
    return answer


def publish(handler: NodeProcess, payload: str, event_type: str = "pressure", **more: Any) -> int:
    event = {"type": event_type, "payload": payload, **more.pop("event", {})}
    return ask(handler, "POST", "/eventhandler/publish", {"source": SOURCE, "event": event, **more})[0]


class Stream:
    """An SSE subscription read event by event."""

    def __init__(self, handler: NodeProcess, event_type: str = "pressure", **headers: str) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", handler.port, timeout=5)
        self.connection.request("GET", "/eventhandler/subscription", headers={"eventtype": event_type, **headers})
        self.response = self.connection.getresponse()
        assert self.response.status == 200

    def event(self) -> dict[str, str]:
        """Lines of the next event; several data lines are joined."""
        found: dict[str, str] = {}
        while line := self.response.readline().decode().rstrip("\n"):
            name, _, value = line.partition(": ")
            found[name] = f"{found[name]}\n{value}" if name in found else value
        return found

    def close(self) -> None:
        self.response.close()
        self.connection.close()


def stuck_subscriber(handler: NodeProcess) -> socket.socket:
    """One that subscribes with a small window and reads no event."""
    stuck = socket.socket()
    stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stuck.connect(("127.0.0.1", handler.port))
    stuck.settimeout(20)
    stuck.sendall(b"GET /eventhandler/subscription HTTP/1.1\r\nHost: x\r\neventtype: pressure\r\n\r\n")
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += stuck.recv(1)
    return stuck


class Consumer:
    """A subscriber that is called back, and a publisher that wants feedback."""

    def __init__(self) -> None:
        self.got: list[tuple[str, Any]] = []
        got = self.got

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                got.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
                self.send_response(500 if self.path == "/broken" else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def wait_for(self, count: int) -> list[tuple[str, Any]]:
        until(lambda: len(self.got) >= count, instead=lambda: self.got)
        return self.got

    def system(self, name: str) -> dict[str, Any]:
        return {"systemName": name, "address": "127.0.0.1", "port": self.port}


def feedback_to(consumer: Consumer) -> dict[str, Any]:
    """What a publisher adds that wants to hear who was reached."""
    return {"deliveryCompleteUri": "publisher/feedback", "source": consumer.system("PressPub")}


def publish_and_hear(handler: NodeProcess, consumer: Consumer) -> tuple[list[tuple[str, Any]], dict[str, bool]]:
    """What came of an event for subscribers `everything`, `exact` and `broken`; what its publisher is to hear."""
    event = {"type": "pressure", "payload": "41", "eventMetadata": {"unit": "bar"}}
    assert ask(handler, "POST", "/eventhandler/publish", {"event": event, **feedback_to(consumer)})[0] == 200
    got = consumer.wait_for(4)
    assert sorted(path for path, _ in got) == ["/broken", "/everything", "/exact", "/publisher/feedback"]
    base = f"http://127.0.0.1:{consumer.port}"
    return got, {f"{base}/everything": True, f"{base}/exact": True, f"{base}/broken": False}


def count(handler: NodeProcess, name: str) -> float:
    return sum(float(line.rpartition(" ")[2]) for line in handler.metrics().splitlines() if line.startswith(name))
