"""Cyclone DDS through ctypes: as much of its C library (0.10, as in Debian 12) as publishing bytes needs.

The one type spoken is a keyless structure with a single sequence of octets, described to the library the way its IDL
compiler would; on the wire a payload stands as it is, behind its length. Layouts: dds/dds.h, dds/ddsc/*.h.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from ctypes import (
    CFUNCTYPE,
    POINTER,
    Structure,
    byref,
    c_bool,
    c_char_p,
    c_int32,
    c_int64,
    c_size_t,
    c_uint32,
    c_void_p,
)
from functools import cache
from typing import Any, ClassVar
from xml.sax.saxutils import quoteattr

from toolkit.errors import WorkloadError

LIBRARIES = "libddsc.so.0debian", "libddsc.so.0"
TYPE_NAME = b"toolkit::Message"
MOST_PARTICIPANTS = 32
"""Processes of one domain on one node; each announcement goes to as many ports of every peer."""
TIMEOUT = -10
_NAMES = {0: "KEEP_LAST", 1: "KEEP_ALL"}
_BEST_EFFORT, _RELIABLE = 0, 1
_KEEP_LAST, _KEEP_ALL = 0, 1
_SAMPLES_AT_ONCE = 64
_ADR_SEQUENCE_OF_OCTETS = 0x01 << 24 | 0x07 << 16 | 0x01 << 8


class _TypeMeta(Structure):
    _fields_: ClassVar = [("data", c_void_p), ("size", c_uint32)]


class _Descriptor(Structure):
    """The library calls it dds_topic_descriptor_t."""

    _fields_: ClassVar = [
        ("size", c_uint32), ("align", c_uint32), ("flags", c_uint32), ("keys", c_uint32), ("typename", c_char_p),
        ("key_list", c_void_p), ("nops", c_uint32), ("ops", POINTER(c_uint32)), ("meta", c_char_p),
        ("information", _TypeMeta), ("mapping", _TypeMeta), ("restrict", c_uint32),
    ]  # fmt: skip


class _Sequence(Structure):
    """dds_sequence_t, and the whole of a sample."""

    _fields_: ClassVar = [("maximum", c_uint32), ("length", c_uint32), ("buffer", c_void_p), ("release", c_bool)]


class _SampleInfo(Structure):
    """The library calls it dds_sample_info_t."""

    _fields_: ClassVar = [
        ("sample_state", c_uint32), ("view_state", c_uint32), ("instance_state", c_uint32), ("valid", c_bool),
        ("source_ns", c_int64), ("instance", ctypes.c_uint64), ("publication", ctypes.c_uint64),
        ("disposed", c_uint32), ("no_writers", c_uint32), ("sample_rank", c_uint32), ("generation_rank", c_uint32),
        ("absolute_generation_rank", c_uint32),
    ]  # fmt: skip


class _Matched(Structure):
    """dds_publication_matched_status_t and its like; the others begin alike."""

    _fields_: ClassVar = [
        ("total", c_uint32), ("total_change", c_int32), ("current", c_uint32), ("current_change", c_int32),
        ("handle", ctypes.c_uint64),
    ]  # fmt: skip


_OPS = (c_uint32 * 3)(_ADR_SEQUENCE_OF_OCTETS, 0, 0)
_DESCRIPTOR = _Descriptor(
    size=ctypes.sizeof(_Sequence), align=ctypes.alignment(_Sequence), typename=TYPE_NAME, nops=2, ops=_OPS, meta=b""
)
_ON_DATA = CFUNCTYPE(None, c_int32, c_void_p)


@cache
def library() -> Any:
    """The C library; raises WorkloadError where it is not installed."""
    for name in LIBRARIES:
        try:
            found: Any = ctypes.CDLL(name)
        except OSError:
            continue
        for function in ("dds_create_qos", "dds_create_listener"):
            getattr(found, function).restype = c_void_p
        found.dds_create_listener.argtypes = [c_void_p]
        found.dds_lset_data_available.argtypes = [c_void_p, _ON_DATA]
        found.dds_strretcode.restype = c_char_p
        found.dds_qset_reliability.argtypes = [c_void_p, c_int32, c_int64]
        found.dds_qset_history.argtypes = [c_void_p, c_int32, c_int32]
        found.dds_create_domain.argtypes = [c_uint32, c_char_p]
        found.dds_create_participant.argtypes = [c_uint32, c_void_p, c_void_p]
        found.dds_create_topic.argtypes = [c_int32, POINTER(_Descriptor), c_char_p, c_void_p, c_void_p]
        found.dds_create_writer.argtypes = found.dds_create_reader.argtypes = [c_int32, c_int32, c_void_p, c_void_p]
        found.dds_write.argtypes = [c_int32, c_void_p]
        found.dds_take.argtypes = [c_int32, c_void_p, c_void_p, c_size_t, c_uint32]
        found.dds_return_loan.argtypes = [c_int32, c_void_p, c_int32]
        found.dds_wait_for_acks.argtypes = [c_int32, c_int64]
        for function in ("dds_delete_qos", "dds_delete_listener"):
            getattr(found, function).argtypes = [c_void_p]
        return found
    raise WorkloadError(
        "Cyclone DDS is not installed; on Debian 12: apt-get install libddsc0debian, from 13 on: libddsc0t64"
    )


def _checked(result: int, what: str) -> int:
    if result < 0:
        raise WorkloadError(f"Cyclone DDS: {what}: {library().dds_strretcode(-result).decode()}")
    return result


def configuration(own: str, peers: Sequence[str], *, multicast: bool) -> str:
    """The library's configuration: one interface, and whom to look for there."""
    listed = "".join(f"<Peer address={quoteattr(peer)}/>" for peer in peers)
    allowed = str(multicast).lower()
    return (
        f"<CycloneDDS><Domain><General><Interfaces><NetworkInterface address={quoteattr(own)} "
        f"multicast='{allowed}'/></Interfaces><AllowMulticast>{allowed}</AllowMulticast></General><Discovery>"
        f"<ParticipantIndex>auto</ParticipantIndex><MaxAutoParticipantIndex>{MOST_PARTICIPANTS - 1}"
        f"</MaxAutoParticipantIndex><Peers>{listed}</Peers></Discovery></Domain></CycloneDDS>"
    )


class Domain:
    """The library's one domain of a number in this process, shared by its participants and gone with the last."""

    _lock = threading.Lock()
    _open: ClassVar[dict[int, list[Any]]] = {}
    """Number -> [entity, configuration, participants]."""

    @classmethod
    def enter(cls, number: int, config: str) -> int:
        """A new participant; raises WorkloadError where the library has no domain like that."""
        with cls._lock:
            domain = cls._open.get(number)
            if domain is None:
                entity = _checked(library().dds_create_domain(number, config.encode()), f"domain {number}")
                domain = cls._open[number] = [entity, config, 0]
            elif domain[1] != config:
                raise WorkloadError(f"domain {number} is open with other peers; end the other run first")
            participant = _checked(library().dds_create_participant(number, None, None), "participant")
            domain[2] += 1
            return participant

    @classmethod
    def leave(cls, number: int, participant: int) -> None:
        """The participant and all that belongs to it; the domain with the last one."""
        with cls._lock:
            library().dds_delete(participant)
            domain = cls._open[number]
            domain[2] -= 1
            if not domain[2]:
                del cls._open[number]
                library().dds_delete(domain[0])


def _make_qos(*, reliable: bool, depth: int) -> int:
    qos: int = library().dds_create_qos()
    # A writer whose readers lag behind is told so at once: the hot thread never waits.
    library().dds_qset_reliability(qos, _RELIABLE if reliable else _BEST_EFFORT, 0)
    library().dds_qset_history(qos, _KEEP_LAST if depth else _KEEP_ALL, depth)
    return qos


def topic_name(topic: str) -> str:
    """A name that the library takes (ASCII letters, digits, underscores), different for different topics."""
    plain = topic.isascii() and topic.isalnum() and topic[0].isalpha()
    if plain:
        return topic
    return "_" + "".join(c if c.isascii() and c.isalnum() else f"_{ord(c):x}_" for c in topic)


def create_topic(participant: int, topic: str) -> int:
    """The topic of that name."""
    return _checked(
        library().dds_create_topic(participant, byref(_DESCRIPTOR), topic_name(topic).encode(), None, None),
        f"topic {topic!r}",
    )


class Writer:
    """Writes payloads to one topic."""

    def __init__(self, participant: int, topic: str, *, reliable: bool) -> None:
        qos = _make_qos(reliable=reliable, depth=0 if reliable else 1)
        self.entity = _checked(
            library().dds_create_writer(participant, create_topic(participant, topic), qos, None),
            f"writer of {topic!r}",
        )
        library().dds_delete_qos(qos)
        self._write = library().dds_write
        self._sample = _Sequence()
        self._pointer = byref(self._sample)

    def write(self, payload: bytes) -> bool:
        """Whether the library took it; False while readers lag behind. Raises WorkloadError for other reasons."""
        sample = self._sample
        sample.maximum = sample.length = len(payload)
        sample.buffer = ctypes.cast(c_char_p(payload), c_void_p)
        result: int = self._write(self.entity, self._pointer)
        if result == TIMEOUT:
            return False
        _checked(result, "write")
        return True

    def readers(self) -> int:
        """How many readers are matched now."""
        status = _Matched()
        _checked(library().dds_get_publication_matched_status(self.entity, byref(status)), "readers")
        return int(status.current)

    def mismatched(self) -> int:
        """Readers that asked for more than this writer offers."""
        status = _Matched()
        _checked(library().dds_get_offered_incompatible_qos_status(self.entity, byref(status)), "mismatches")
        return int(status.total)

    def await_acknowledged(self, timeout_s: float) -> bool:
        """Whether everything written before this call has been acknowledged within that time."""
        return bool(library().dds_wait_for_acks(self.entity, round(timeout_s * 1e9)) == 0)


class Reader:
    """Calls `on_data` from the library's own thread whenever something has come; `take` gives what there is."""

    def __init__(
        self, participant: int, topic: str, *, reliable: bool, depth: int, on_data: Callable[[Reader], None]
    ) -> None:
        self._infos = (_SampleInfo * _SAMPLES_AT_ONCE)()
        self._samples = (POINTER(_Sequence) * _SAMPLES_AT_ONCE)()
        self._callback = _ON_DATA(lambda _entity, _argument: on_data(self))
        self.entity = 0
        listener = library().dds_create_listener(None)
        library().dds_lset_data_available(listener, self._callback)
        qos = _make_qos(reliable=reliable, depth=0 if reliable else depth)
        self.entity = _checked(
            library().dds_create_reader(participant, create_topic(participant, topic), qos, listener),
            f"reader of {topic!r}",
        )
        library().dds_delete_qos(qos)
        library().dds_delete_listener(listener)

    def take(self) -> list[bytes]:
        """Every payload that waits; in the library's thread only."""
        payloads: list[bytes] = []
        samples, infos = self._samples, self._infos
        while self.entity:
            ctypes.memset(samples, 0, ctypes.sizeof(c_void_p))  # the library lends its own samples
            count = library().dds_take(self.entity, samples, infos, _SAMPLES_AT_ONCE, _SAMPLES_AT_ONCE)
            if count <= 0:
                break
            for index in range(count):
                if infos[index].valid:
                    sample = samples[index].contents
                    payloads.append(ctypes.string_at(sample.buffer, sample.length) if sample.length else b"")
            library().dds_return_loan(self.entity, samples, count)
            if count < _SAMPLES_AT_ONCE:
                break
        return payloads

    def lost(self) -> int:
        """Samples that the library knows to be gone."""
        status = _Matched()
        _checked(library().dds_get_sample_lost_status(self.entity, byref(status)), "lost samples")
        return int(status.total)
