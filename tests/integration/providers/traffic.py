"""How fast one machine sends to another."""

from __future__ import annotations

import subprocess

from tests.integration.providers.bench import on
from toolkit.state import Host

_MEASURE = """
import socket, time
with socket.create_server(("", 5555)) as server:
    connection, _ = server.accept()
    first = connection.recv(1 << 16)
    began, count = time.monotonic(), 0
    while chunk := connection.recv(1 << 16):
        count += len(chunk)
    print(count * 8 / (time.monotonic() - began))
"""
_SEND = """
import socket, time
for _ in range(50):
    try:
        connection = socket.create_connection(("{peer}", 5555)); break
    except OSError:
        time.sleep(0.1)
for _ in range({mebibytes}):
    connection.sendall(bytes(1 << 20))
connection.close()
"""


def rate_bps(sender: Host, receiver: Host, mebibytes: int = 4) -> float:
    """bit/s of so much from one node to the other."""
    with subprocess.Popen(_ssh(receiver, _MEASURE), stdout=subprocess.PIPE, text=True) as measuring:
        on(sender, f"python3 -c '{_SEND.format(peer=receiver.node, mebibytes=mebibytes)}'")
        output, _ = measuring.communicate(timeout=30)
    return float(output)


def _ssh(host: Host, code: str) -> list[str]:
    access = host.ssh
    options = ["-i", str(access.identity_file), "-o", f"UserKnownHostsFile={access.known_hosts}", "-o", "BatchMode=yes"]
    return ["ssh", *options, f"{access.user}@{access.address}", f"python3 -c '{code}'"]
