"""SCRAM against the examples of its RFCs, and against servers that cheat."""

import pytest

from toolkit.errors import WorkloadError
from toolkit.node.drivers.sasl import Exchange, choose


def test_scram_sha_1_says_what_rfc_5802_shows() -> None:
    exchange = Exchange("SCRAM-SHA-1", "user", "pencil", nonce="fyko+d2lbbFgONRv9qkxdawL")
    assert exchange.first == b"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL"
    answer = exchange.answer(b"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096")
    assert answer == b"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts="
    exchange.finish(b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=")


def test_scram_sha_256_says_what_rfc_7677_shows() -> None:
    exchange = Exchange("SCRAM-SHA-256", "user", "pencil", nonce="rOprNGfwEbeRWgbNEkqO")
    answer = exchange.answer(b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096")
    assert answer.endswith(b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
    exchange.finish(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")


@pytest.mark.parametrize(
    "challenge",
    [b"", b"r=abc,s=QSXCR+Q6sek8bf92,i=1", b"r=nonce1,s=???,i=1", b"r=nonce1,s=QQ==,i=0", b"r=nonce1,s=QQ==,i=9999999"],
)
def test_a_challenge_that_is_none_is_not_answered(challenge: bytes) -> None:
    with pytest.raises(WorkloadError, match="challenge"):
        Exchange("SCRAM-SHA-256", "user", "pencil", nonce="nonce").answer(challenge)


def test_a_server_that_does_not_know_the_password_is_found_out() -> None:
    exchange = Exchange("SCRAM-SHA-256", "user", "pencil", nonce="n")
    exchange.answer(b"r=n1,s=QQ==,i=1")
    for last in (b"v=AAAA", b""):
        with pytest.raises(WorkloadError, match="prove"):
            exchange.finish(last)


def test_a_password_is_never_sent_as_it_is_without_tls() -> None:
    assert Exchange("PLAIN", "tim", "tanstaaftanstaaf").first == b"\0tim\0tanstaaftanstaaf"
    assert choose(["PLAIN", "SCRAM-SHA-1"], tls=True) == "SCRAM-SHA-1"
    assert choose(["PLAIN"], tls=True) == "PLAIN"
    with pytest.raises(WorkloadError, match=r"offered PLAIN; known SCRAM-SHA-256, SCRAM-SHA-1 .PLAIN only over TLS"):
        choose(["PLAIN"], tls=False)


def test_names_are_escaped() -> None:
    assert Exchange("SCRAM-SHA-1", "a=b,c", "p", nonce="n").first == b"n,,n=a=3Db=2Cc,r=n"
