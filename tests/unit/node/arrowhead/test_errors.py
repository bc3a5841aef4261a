"""The error table row by row: what a system answers, and what of it arrives behind another system that asked it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.ports import free_port
from toolkit.node.arrowhead.front import Front
from toolkit.node.arrowhead.http_client import HttpClient
from toolkit.node.arrowhead.http_server import HttpServer
from toolkit.node.arrowhead.peers import exchange
from toolkit.node.arrowhead.quirks import QUIRKS
from toolkit.node.arrowhead.refusals import DEFAULT_STATUS, DOCUMENTATION, Refusal
from toolkit.node.arrowhead.routes import Call, Reply, Route
from toolkit.node.arrowhead.trace import Recorder

# Exception type: HTTP status where the error has no code of its own, code in the body.
TABLE = {
    "BAD_PAYLOAD": (400, 400),
    "JSON_PROCESSING": (400, 400),
    "AUTH": (401, 401),
    "DATA_NOT_FOUND": (404, 404),
    "DUPLICATE_ENTRY": (400, 400),
    "BAD_METHOD": (405, 405),
    "BAD_URI": (400, 400),
    "BAD_MEDIA_TYPE": (415, 405),
    "UNAVAILABLE": (504, 504),
    "DNS_SD": (500, 500),
    "ARROWHEAD": (500, 500),
    "GENERIC": (500, 500),
}


@contextlib.asynccontextmanager
async def system(handle: Callable[[Call], Any]) -> AsyncIterator[str]:
    """A system with one operation; yields where that is."""
    recorder = Recorder(system="tried", cloud="", samples=None, name="tried")
    route = Route(method="PUT", path="/tried/it", handle=handle, summary="It")
    front = Front([route], title="Tried", quirks=QUIRKS["4.1"], recorder=recorder)
    server = HttpServer(front.handle, refuse=front.refuse)
    await server.start("127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.port}/tried/it"
    finally:
        await server.stop(0.1)


async def asked(url: str) -> tuple[int, dict[str, Any]]:
    client = HttpClient()
    answer = await client.request("PUT", url, b"{}", {"Content-Type": "application/json"})
    client.close()
    return answer.status, json.loads(answer.body)


async def through(url: str) -> tuple[int, dict[str, Any]]:
    """The same, by way of another system."""
    client = HttpClient()

    async def pass_on(_: Call) -> Reply:
        return Reply(value=await exchange(client, "PUT", url, {}, dict))

    async with system(pass_on) as outer:
        told = await asked(outer)
    client.close()
    return told


def test_the_table_is_whole() -> None:
    assert set(TABLE) == set(DEFAULT_STATUS)


@pytest.mark.parametrize("kind", TABLE)
def test_each_row(kind: str) -> None:
    status, code = TABLE[kind]

    async def refuse(_: Call) -> Reply:
        raise Refusal(kind, f"it is {kind}")

    async def run() -> None:
        async with system(refuse) as url:
            expected = {
                "errorMessage": f"it is {kind}", "errorCode": code, "exceptionType": kind, "origin": url,
                "documentation": DOCUMENTATION,
            }  # fmt: skip
            assert await asked(url) == (status, expected)
            # Behind another system: the same type, message, code and origin.
            assert await through(url) == (status, expected)

    asyncio.run(run())


@pytest.mark.parametrize("kind", TABLE)
def test_a_code_of_its_own_goes_before_and_none_is_the_tables(kind: str) -> None:
    document = {"errorMessage": "m", "exceptionType": kind, "origin": "http://first/x"}

    async def run() -> None:
        for given, status in ((599, 599 if kind != "BAD_MEDIA_TYPE" else 415), (0, TABLE[kind][0])):

            async def answer(_: Call, code: int = given) -> Reply:
                return Reply(status=500, value={**document, "errorCode": code})

            async with system(answer) as url:
                found, body = await through(url)
            assert (found, body["exceptionType"], body["origin"]) == (status, kind, "http://first/x")

    asyncio.run(run())


def test_a_fault_of_the_program_is_generic() -> None:
    async def fail(_: Call) -> Reply:
        raise LookupError("there is none")

    async def run() -> None:
        async with system(fail) as url:
            status, body = await asked(url)
        assert (status, body["errorCode"], body["exceptionType"]) == (500, 500, "GENERIC")
        assert body["errorMessage"] == "class LookupError: there is none"
        assert body["origin"] == url

    asyncio.run(run())


def test_no_answer_is_unavailable_with_503() -> None:
    url = f"http://127.0.0.1:{free_port()}/gone"
    status, body = asyncio.run(through(url))
    assert (status, body["exceptionType"], body["origin"]) == (503, "UNAVAILABLE", url)
    assert body["errorMessage"].startswith("UnavailableServerException: ")


def test_an_error_without_a_document_keeps_its_status() -> None:
    async def odd(_: Call) -> Reply:
        return Reply(status=502, value="bad gateway")

    async def run() -> None:
        async with system(odd) as url:
            status, body = await through(url)
        assert (status, body["exceptionType"], body["origin"]) == (502, "ARROWHEAD", url)

    asyncio.run(run())
