"""The server's side of TLS: long messages both ways, closing, and clients that do not go on."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from toolkit.node.arrowhead.http_client import HttpClient, NoAnswerError
from toolkit.node.arrowhead.http_server import HttpServer, Limits, Request, Response
from toolkit.node.arrowhead.tls import client_context, server_context
from toolkit.provisioning import certificates


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cloud's certificate and those of two of its systems."""
    made = tmp_path_factory.mktemp("tls")
    cloud = certificates.make_cloud(certificates.make_master(), cloud="hall", operator="plant")
    (made / "ca.pem").write_bytes(cloud.certificate_pem)
    for name in ("server", "client"):
        certificates.save(certificates.make_system(cloud, system=name), made, name)
    return made


async def echo(request: Request) -> Response:
    subject = dict(pair for part in (request.certificate or {})["subject"] for pair in part)
    return Response(status=200, body=request.body, headers={"Caller": subject["commonName"]})


def serve(folder: Path, talk: Callable[[HttpServer, ssl.SSLContext], Awaitable[None]], **limits: float) -> None:
    """Start a server that echoes, let `talk` speak to it, stop it."""
    tls = server_context(folder / "server.crt", folder / "server.key", folder / "ca.pem")
    ours = client_context(folder / "client.crt", folder / "client.key", folder / "ca.pem", verify_host=False)

    async def run() -> None:
        server = HttpServer(echo, limits=Limits(body_bytes=8 << 20, **limits), tls=tls)  # type: ignore[arg-type]
        await server.start("127.0.0.1", 0)
        try:
            await talk(server, ours)
        finally:
            await server.stop()
        assert not server.connections

    asyncio.run(run())


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_messages_of_any_length_go_both_ways(folder: Path, newest: ssl.TLSVersion) -> None:
    async def talk(server: HttpServer, tls: ssl.SSLContext) -> None:
        tls.maximum_version = newest
        client = HttpClient(tls=tls)
        for size in (0, 1, 16_383, 16_384, 16_385, 7 << 20):
            body = b"0123456789abcdef" * (size // 16) + b"x" * (size % 16)
            answer = await client.request("POST", f"https://127.0.0.1:{server.port}/", body)
            assert (answer.status, answer.body) == (200, body)
            assert answer.headers["caller"] == "client.hall.plant.arrowhead.eu"
        several = [client.request("POST", f"https://127.0.0.1:{server.port}/", b"%d" % n) for n in range(50)]
        assert [answer.body for answer in await asyncio.gather(*several)] == [b"%d" % n for n in range(50)]
        assert len(server.connections) <= 50
        client.close()

    serve(folder, talk)


def test_who_shows_no_certificate_is_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def talk(server: HttpServer, _: ssl.SSLContext) -> None:
        nobody = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        nobody.check_hostname = False
        nobody.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        with pytest.raises(NoAnswerError, match="certificate required") as raised:
            await HttpClient(tls=nobody).request("GET", f"https://127.0.0.1:{server.port}/")
        assert raised.value.tls

    serve(folder, talk)
    assert "refused a client at 127.0.0.1: peer did not return a certificate" in caplog.text


def test_a_handshake_that_is_not_gone_on_with_ends(folder: Path) -> None:
    async def talk(server: HttpServer, _: ssl.SSLContext) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        async with asyncio.timeout(20):
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
        writer.close()

    serve(folder, talk, request_s=0.2)


def test_a_client_that_goes_in_the_middle_leaves_nothing(folder: Path) -> None:
    async def talk(server: HttpServer, tls: ssl.SSLContext) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=tls, server_hostname="x")
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1234")
        await writer.drain()
        while not server.connections:  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.01)
        raw: socket.socket = writer.get_extra_info("socket")
        raw.shutdown(socket.SHUT_RDWR)
        async with asyncio.timeout(20):
            while server.connections:  # noqa: ASYNC110 - the server tells nobody
                await asyncio.sleep(0.01)
        writer.close()

    serve(folder, talk)
