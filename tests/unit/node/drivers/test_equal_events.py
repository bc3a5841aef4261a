from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.node.drivers.equal_events import EqualEvents
from toolkit.node.drivers.http import ChunkedBody


def chunk(text: str) -> bytes:
    return b"%x\r\n%b\r\n" % (len(text.encode()), text.encode())


def event(data: str, kind: str = "pressure") -> bytes:
    return chunk(f"event: {kind}\ndata: {data}\n\n")


def test_events_of_the_shape_learned_are_taken_and_the_rest_is_left() -> None:
    equal = EqualEvents()
    stream = bytearray(event("12345"))
    assert equal.take(stream) == []
    equal.learn(stream)
    stream += event("67890") + event("a line\n")[:9]
    assert equal.take(stream) == [b"12345", b"67890"]
    assert stream == event("a line\n")[:9]


def test_what_is_not_one_plain_event_in_a_chunk_is_not_learned() -> None:
    for other in (
        chunk("id: 1\nevent: pressure\ndata: 1\n\n"),
        chunk("event: pressure\ndata: 1\ndata: 2\n\n"),
        chunk("event: pressure\ndata: 1\n\nevent: pressure\ndata: 2\n\n"),
        chunk("data: 1\n\n"),
        chunk(": a comment\n\n"),
        event("1")[:-1],
        b"no size\r\n",
        b"0\r\n\r\n",
        b"",
    ):
        equal = EqualEvents()
        equal.learn(bytearray(other))
        assert equal.take(bytearray(other * 2)) == []


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(["12345", "6\n789", "1234", "5\r678", "\ndata: "]), max_size=6), st.data())
def test_however_the_network_cuts_it_the_bytes_are_those_of_the_whole_parser(
    texts: list[str], data: st.DataObject
) -> None:
    whole = b"".join(event(text) for text in texts)
    cut = data.draw(st.integers(0, len(whole)))
    equal, plain = EqualEvents(), ChunkedBody()
    equal.learn(bytearray(event("abcde")))
    source, found = bytearray(whole[:cut]), bytearray()
    for text in equal.take(source):
        found += b"event: pressure\ndata: %b\n\n" % text
    source += whole[cut:]
    plain.take(source, found)
    expected = bytearray()
    ChunkedBody().take(bytearray(whole), expected)
    assert found == expected
