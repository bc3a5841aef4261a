"""Streams of stanzas, whatever way they are cut, and what must not come in them."""

import base64
import itertools
from xml.sax.saxutils import escape, quoteattr

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.node.drivers import xmpp_stanzas as stanzas
from toolkit.node.drivers.xmpp_stanzas import CLIENT, DATA, EVENT, PUBSUB, STREAMS, StanzaReader, StreamError

OPENING = f"<?xml version='1.0'?><stream:stream xmlns='{CLIENT}' xmlns:stream='{STREAMS}' id='1'>".encode()
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Cn", "Co")), min_size=1, max_size=20)


def event(payload: bytes, node: str = "t") -> bytes:
    return (
        f"<message from='pubsub.localhost' to='a@b/c'><event xmlns='{EVENT}'><items node={quoteattr(node)}>"
        f"<item id='x'><data xmlns='{DATA}'>{base64.b64encode(payload).decode()}</data></item>"
        "</items></event></message>"
    ).encode()


def reading() -> StanzaReader:
    reader = StanzaReader()
    assert reader.take(OPENING) == []
    return reader


@given(payloads=st.lists(st.binary(max_size=120), min_size=1, max_size=5), cuts=st.lists(st.integers(1, 2000)))
def test_payloads_come_out_as_they_went_in_wherever_the_stream_is_cut(payloads: list[bytes], cuts: list[int]) -> None:
    stream = OPENING + b" ".join(map(event, payloads))
    edges = [0, *sorted({cut for cut in cuts if cut < len(stream)}), len(stream)]
    reader = StanzaReader()
    found = [
        payload
        for begin, end in itertools.pairwise(edges)
        for stanza in reader.take(stream[begin:end])
        for payload in stanzas.payloads(stanza)
    ]
    assert found == payloads


@given(node=WORDS, service=WORDS, jid=WORDS, payload=st.binary(max_size=60), number=st.integers(0, 2**40))
def test_what_we_say_reads_back(node: str, service: str, jid: str, payload: bytes, number: int) -> None:
    before, between, after = stanzas.publish_frame(service, node)
    publish = before + b"%d" % number + between + base64.b64encode(payload) + after
    reader = reading()
    published, subscribed, created = reader.take(
        publish + stanzas.subscribe(7, service, node, jid) + stanzas.create(8, service, node)
    )
    assert published.attributes == {"type": "set", "id": f"p{number}", "to": service}
    wanted = published.find(f"{PUBSUB} pubsub", f"{PUBSUB} publish")
    assert wanted is not None
    assert wanted.attributes == {"node": node}
    data = wanted.find(f"{PUBSUB} item", f"{DATA} data")
    assert data is not None
    assert base64.b64decode(data.text) == payload
    asked = subscribed.find(f"{PUBSUB} pubsub", f"{PUBSUB} subscribe")
    assert asked is not None
    assert asked.attributes == {"node": node, "jid": jid}
    assert created.find(f"{PUBSUB} pubsub", f"{PUBSUB} create") is not None


def test_an_item_of_somebody_else_is_an_empty_payload_to_be_counted() -> None:
    for inside in ("", "<entry xmlns='http://www.w3.org/2005/Atom'>hi</entry>", f"<data xmlns='{DATA}'>&lt;</data>"):
        stanza = (
            f"<message><event xmlns='{EVENT}'><items node='t'><item>{inside}</item><retract id='1'/></items></event>"
            "</message>"
        )
        [message] = reading().take(stanza.encode())
        assert stanzas.payloads(message) == [b""]
    [iq] = reading().take(b"<iq type='result' id='p1'/>")
    assert stanzas.payloads(iq) == []


def test_errors_say_why() -> None:
    stanza = (
        "<iq type='error' id='p1'><error type='wait'><policy-violation xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>"
        f"<text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>{escape('too <big>')}</text></error></iq>"
    )
    [error] = reading().take(stanza.encode())
    assert error.why() == "policy-violation: too <big>"


@pytest.mark.parametrize(
    "bad",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"<html>",
        b"<!DOCTYPE x [<!ENTITY a 'aaaa'>]><x>&a;</x>",
        b"\x15\x03\x01\x00\x02",
        OPENING + b"<a></b>",
        OPENING + b"\xff",
    ],
)
def test_what_is_no_stream_ends_it(bad: bytes) -> None:
    with pytest.raises(StreamError):
        StanzaReader().take(bad)


def test_the_end_of_the_stream_comes_after_what_came_before_it() -> None:
    reader = reading()
    [last] = reader.take(event(b"last") + stanzas.END)
    assert stanzas.payloads(last) == [b"last"]
    with pytest.raises(StreamError, match="ended"):
        reader.take(b"")
