import zlib

from hypothesis import given
from hypothesis import strategies as st

from toolkit.contract.samples import HEADER_BYTES, Header, pack_header, unpack_header
from toolkit.node.messages import MessageMaker, Seen, read_header, with_flags


@given(
    stream=st.integers(0, 2**32 - 1),
    seq=st.integers(0, 2**64 - 1),
    t0=st.integers(-(2**63), 2**63 - 1),
    t1=st.integers(-(2**63), 2**63 - 1),
    flags=st.integers(0, 255),
)
def test_the_fast_header_is_the_contracts_header(stream: int, seq: int, t0: int, t1: int, flags: int) -> None:
    header = MessageMaker(payload_bytes=100, seed=1).header(stream, seq, t0, t1, flags)
    assert header == pack_header(Header(stream=stream, seq=seq, t0_ns=t0, t1_ns=t1, flags=flags))
    assert read_header(header + b"fill") == (stream, seq, flags, header[:-4])


@given(flags=st.integers(0, 255), others=st.integers(0, 255))
def test_other_flags_change_nothing_else(flags: int, others: int) -> None:
    first, second = (pack_header(Header(stream=1, seq=2, t0_ns=3, t1_ns=4, flags=value)) for value in (flags, others))
    assert with_flags(first[:-4], others) == second[:-4]


@given(st.binary(max_size=60), st.integers(0, HEADER_BYTES - 1), st.integers(1, 255))
def test_foreign_and_damaged_payloads_are_nobodys(noise: bytes, position: int, change: int) -> None:
    assert (read_header(noise) is None) == (unpack_header(noise) is None)
    damaged = bytearray(MessageMaker(payload_bytes=40, seed=1).header(1, 2, 3, 4, 0))
    damaged[position] ^= change
    assert read_header(bytes(damaged)) is None


def test_fill_has_its_size_and_its_seed() -> None:
    assert len(MessageMaker(payload_bytes=1000, seed=5).fill) == 960
    assert MessageMaker(payload_bytes=1000, seed=5).fill == MessageMaker(payload_bytes=1000, seed=5).fill
    assert MessageMaker(payload_bytes=1000, seed=5).fill != MessageMaker(payload_bytes=1000, seed=6).fill


def test_fill_is_of_the_kind_asked_for() -> None:
    assert MessageMaker(payload_bytes=100, seed=5, kind="zeros").fill == bytes(60)
    text = MessageMaker(payload_bytes=3000, seed=5, kind="text").fill
    assert len(text) == 2960
    assert len(zlib.compress(text)) < len(text) / 2
    assert text.decode().startswith('{"sensor"')
    random_ = MessageMaker(payload_bytes=3000, seed=5).fill
    assert len(zlib.compress(random_)) >= len(random_)


@given(st.lists(st.integers(0, 40), max_size=120))
def test_first_copies_are_told_from_duplicates_whatever_the_order(arrivals: list[int]) -> None:
    seen, known, highest, reordered = Seen(), set[int](), -1, 0
    for seq in arrivals:
        first = seq not in known
        assert seen.is_new(seq) is first
        reordered += first and seq < highest
        known.add(seq)
        highest = max(highest, seq)
    assert seen.reordered == reordered


def test_memory_of_gaps_is_bounded() -> None:
    seen = Seen(most_gaps=1000)
    for seq in range(0, 200_000, 2):
        seen.is_new(seq)
    assert len(seen._gaps) <= 1000
    assert seen.is_new(199_997)
    assert not seen.is_new(1)
