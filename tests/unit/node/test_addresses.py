"""Which addresses are this machine's."""

from __future__ import annotations

import socket
from pathlib import Path

from toolkit.node.addresses import is_local, local_addresses

FIB = """\
Main:
  +-- 0.0.0.0/0 3 0 4
     +-- 10.77.0.0/24 2 0 2
           |-- 10.77.0.0
              /24 link UNICAST
           |-- 10.77.0.10
              /32 host LOCAL
        |-- 10.77.0.255
           /32 link BROADCAST
"""


def test_the_kernels_table_is_read(tmp_path: Path) -> None:
    (tmp_path / "fib").write_text(FIB)
    (tmp_path / "six").write_text("fe80000000000000d8c8fffffe854c3c f46 40 20 80 eth0\n")
    own = local_addresses(tmp_path / "fib", tmp_path / "six")
    assert own == {socket.inet_aton("10.77.0.10"), socket.inet_pton(socket.AF_INET6, "fe80::d8c8:ffff:fe85:4c3c")}
    assert is_local(socket.inet_aton("127.0.3.1"), own)
    assert not is_local(socket.inet_aton("10.77.0.255"), own)
    assert local_addresses(tmp_path / "fib", tmp_path / "none") == {socket.inet_aton("10.77.0.10")}


def test_a_kernel_that_does_not_tell_leaves_nothing_out(tmp_path: Path) -> None:
    nothing = local_addresses(tmp_path / "none")
    assert nothing == frozenset()
    assert is_local(socket.inet_aton("10.77.0.11"), nothing)


def test_this_machine_has_some() -> None:
    assert socket.inet_aton("127.0.0.1") in local_addresses()
