"""A TLS connection that broke, and another one of the same thread."""

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from toolkit.node.tls_sockets import TlsSocket
from toolkit.provisioning import certificates


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("cloud")
    cloud = certificates.make_cloud(certificates.make_master(), cloud="a", operator="op")
    certificates.save(certificates.make_system(cloud, system="gauge"), found, "gauge")
    return found


@contextlib.contextmanager
def connected(folder: Path) -> Iterator[tuple[ssl.SSLSocket, ssl.SSLSocket]]:
    """Both ends of a connection: ours, and the other side's."""
    ours, others = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ours.sslsocket_class = TlsSocket
    ours.load_cert_chain(folder / "gauge.crt", folder / "gauge.key")
    others.check_hostname = False
    others.verify_mode = ssl.CERT_NONE
    plain = socket.socketpair()
    for end in plain:
        end.settimeout(20)
    other: list[ssl.SSLSocket] = []
    shaking = threading.Thread(target=lambda: other.append(others.wrap_socket(plain[1])))
    shaking.start()
    with ours.wrap_socket(plain[0], server_side=True) as our:
        shaking.join()
        with other[0]:
            yield our, other[0]


def test_what_broke_one_connection_is_not_told_of_another(folder: Path) -> None:
    with connected(folder) as (broken, its_end), connected(folder) as (sound, other_end):
        assert isinstance(broken, TlsSocket)
        socket.socket.setsockopt(its_end, socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        socket.socket.close(its_end)
        with pytest.raises(OSError, match=r"reset|Broken pipe|EOF"):
            broken.sendall(b"x" * 10_000_000)
        sound.settimeout(0)
        with pytest.raises(ssl.SSLWantReadError):
            sound.recv(10)
        other_end.sendall(b"well")
        sound.settimeout(20)
        assert sound.recv(10) == b"well"
