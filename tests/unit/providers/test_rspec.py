"""A manifest RSpec yields the SSH entrance of every node, or says what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.errors import FileInvalidError
from toolkit.events import Event
from toolkit.providers.base import Request
from toolkit.providers.rspec import RspecProvider, read_manifest
from toolkit.providers.ssh import Entrance
from toolkit.spec.testbed import Link, Node, ProviderSettings

MANIFEST = """<?xml version="1.0"?>
<rspec xmlns="http://www.geni.net/resources/rspec/3" type="manifest">
  <node client_id="broker-1" exclusive="false" component_manager_id="urn:publicid:IDN+wall2.example+authority+cm">
    <sliver_type name="emulab-xen"/>
    <services>
      <login authentication="ssh-keys" hostname="n091-01.wall2.example" port="30010" username="wuser"/>
      <login authentication="ssh-keys" hostname="n091-01.wall2.example" port="30010" username="other"/>
    </services>
    <interface client_id="broker-1:if0"><ip address="10.2.0.11" netmask="255.255.255.0" type="ipv4"/></interface>
  </node>
  <node client_id="device-1"><services><login authentication="ssh-keys" hostname="10.9.8.7"/></services></node>
  <node client_id="switch"/>
</rspec>
"""


def test_every_node_with_a_login_is_an_entrance(tmp_path: Path) -> None:
    file = tmp_path / "m.rspec"
    file.write_text(MANIFEST)
    assert read_manifest(file, "me") == {
        "broker-1": Entrance(address="n091-01.wall2.example", port=30010, user="wuser", network_address="10.2.0.11"),
        "device-1": Entrance(address="10.9.8.7", port=22, user="me"),
        "switch": None,
    }


def test_of_several_logins_ones_own_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "m.rspec"
    file.write_text(MANIFEST)
    found = read_manifest(file, "other")["broker-1"]
    assert found is not None
    assert found.user == "other"


SITES = """<rspec xmlns="http://www.geni.net/resources/rspec/3" type="manifest"
    xmlns:p="http://jfed.iminds.be/proxy/1.0">
  <node client_id="a" component_manager_id="urn:publicid:IDN+wall1.example+authority+cm"><services>
    <login authentication="ssh-keys" hostname="10.2.0.7" port="22" username="me"/>
    <p:proxy proxy="me@bastion.example:2222" for="me@10.2.0.7:22"/>
  </services></node>
  <node client_id="b" component_manager_id="urn:publicid:IDN+cot.example+authority+cm"/>
  <node client_id="a" component_manager_id="urn:publicid:IDN+wall1.example+authority+cm"/>
  <node client_id="b" component_manager_id="urn:publicid:IDN+cot.example+authority+cm"><services>
    <login authentication="ssh-keys" hostname="fd00::7" port="22" username="me"/>
  </services></node>
</rspec>"""


def test_a_manifest_of_several_sites_has_each_node_once_with_its_proxy(tmp_path: Path) -> None:
    file = tmp_path / "m.rspec"
    file.write_text(SITES)
    assert read_manifest(file, "me") == {
        "a": Entrance(address="10.2.0.7", port=22, user="me", jump="me@bastion.example:2222"),
        "b": Entrance(address="fd00::7", port=22, user="me"),
    }


def test_what_a_manifest_lacks_is_told_before_anything_is_touched(tmp_path: Path) -> None:
    from ipaddress import IPv4Network

    file = tmp_path / "m.rspec"
    file.write_text(MANIFEST)
    gone = str(tmp_path / "no-key")
    settings = ProviderSettings(name="wall", type="rspec", manifest=str(file), identity_file=gone)
    node = Node(name="switch", kind="vm", provider="wall", architecture=None, cpus=None, memory_bytes=None, link=Link())
    assert RspecProvider(settings).check("t", IPv4Network("10.2.0.0/24"), [node]) == [
        f"there is no file {gone} (`identity_file`)",
        f"{file}: node switch has no SSH login yet; is it ready? (in jFed: green)",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<rspec", "m.rspec:1:1: is not XML"),
        (MANIFEST.replace('"manifest"', '"request"'), "is no manifest RSpec but 'request'"),
        (MANIFEST.replace("<?xml version", "<!DOCTYPE a><?xml version"), "has a document type"),
        (MANIFEST.replace("30010", "ssh"), "node broker-1: the port of its SSH login is not a number"),
        ('<rspec xmlns="http://www.geni.net/resources/rspec/3" type="manifest"/>', "names no node with an SSH login"),
    ],
)
def test_a_wrong_manifest_says_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "m.rspec"
    file.write_text(text)
    with pytest.raises(FileInvalidError, match=message):
        read_manifest(file, "me")


def test_a_manifest_that_is_not_there_says_where_it_comes_from(tmp_path: Path) -> None:
    with pytest.raises(FileInvalidError, match="cannot be read"):
        read_manifest(tmp_path / "none.rspec", "me")


def test_a_node_that_the_manifest_lacks_is_named_with_the_nearest_one(tmp_path: Path) -> None:
    file = tmp_path / "m.rspec"
    file.write_text(MANIFEST)
    provider = RspecProvider(ProviderSettings(name="wall", type="rspec", manifest=str(file)))
    node = Node(
        name="brokr-1", kind="vm", provider="wall", architecture=None, cpus=None, memory_bytes=None, link=Link()
    )
    from ipaddress import IPv4Network

    request = Request(testbed="t", subnet=IPv4Network("10.2.0.0/24"), nodes=[node], images={}, directory=tmp_path)
    events: list[Event] = []
    got = provider.acquire(request, events.append)
    assert got.hosts == {}
    assert "did you mean 'broker-1'" in got.failed["brokr-1"]
