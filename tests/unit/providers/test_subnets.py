from __future__ import annotations

from ipaddress import IPv4Network
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.providers.subnets import clash, free_alternative, host_routes

NET = IPv4Network
TABLE = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
down0\t0000000A\t00000000\t0000\t0\t0\t0\t000000FF\t0\t0\t0
"""


def test_routes_are_read_without_the_default_one_and_those_that_are_down(tmp_path: Path) -> None:
    table = tmp_path / "route"
    table.write_text(TABLE)
    assert host_routes(table) == {NET("172.17.0.0/16"): "docker0", NET("192.0.2.0/24"): "eth0"}


def test_a_machine_without_a_route_table_has_no_routes(tmp_path: Path) -> None:
    assert host_routes(tmp_path / "absent") == {}


def test_clash_names_network_and_owner_for_larger_and_smaller_ones() -> None:
    taken = {NET("10.77.0.0/16"): 'Docker network "lab"'}
    assert clash(NET("10.77.4.0/24"), taken) == '10.77.0.0/16 (Docker network "lab")'
    assert clash(NET("10.0.0.0/8"), taken) is not None
    assert clash(NET("10.78.0.0/24"), taken) is None


def test_the_alternative_is_the_next_one_above() -> None:
    taken = {NET("10.77.0.0/24"): "a", NET("10.77.1.0/24"): "b"}
    assert free_alternative(NET("10.77.0.0/24"), taken) == NET("10.77.2.0/24")


def test_where_everything_is_taken_there_is_no_alternative() -> None:
    assert free_alternative(NET("10.77.0.0/24"), {NET("0.0.0.0/0"): "everything"}) is None


@settings(deadline=None, max_examples=50)
@given(
    st.integers(8, 30),
    st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(8, 30)), max_size=8),
)
def test_an_alternative_is_private_of_the_same_size_and_free(length: int, others: list[tuple[int, int]]) -> None:
    subnet = NET((0x0A4D0000, length), strict=False)
    taken = {NET((address, size), strict=False): "somebody" for address, size in others}
    free = free_alternative(subnet, taken)
    if free is not None:
        assert free.prefixlen == length
        assert free.is_private
        assert clash(free, taken) is None
