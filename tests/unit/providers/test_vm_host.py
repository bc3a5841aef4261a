"""What a machine must have to run virtual ones, told before anything is touched; and what those are told."""

import io
import subprocess
import tarfile
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from toolkit.errors import UnreachableError
from toolkit.providers import provider_for, vm
from toolkit.providers.base import Request
from toolkit.providers.keys import KeyPair
from toolkit.providers.links import link_settings
from toolkit.spec.testbed import Link, Node, ProviderSettings


def test_programs_and_the_device_of_links_are_named_with_what_brings_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = provider_for(ProviderSettings(name="here", type="vm"))
    monkeypatch.setattr(vm.shutil, "which", lambda program: None if program == "qemu-img" else f"/usr/bin/{program}")
    with pytest.raises(UnreachableError, match="need qemu-utils; try: sudo apt-get install qemu-utils"):
        provider.check("t", IPv4Network("10.9.0.0/24"), [])
    monkeypatch.setattr(vm.shutil, "which", lambda program: f"/usr/bin/{program}")
    monkeypatch.setattr(vm, "TUN", tmp_path / "tun")
    with pytest.raises(UnreachableError, match="tun for their links, and it is not there; try: sudo modprobe tun"):
        provider.check("t", IPv4Network("10.9.0.0/24"), [])


def test_a_machine_is_told_its_link_in_words_for_a_shell(tmp_path: Path) -> None:
    link = Link(rate_bps=100_000_000, delay_s=0.01, loss=0.2)
    node = Node(
        name="one", kind="vm", provider="here", architecture=None, cpus=1.0, memory_bytes=None, link=link,
        address="10.9.0.2",
    )  # fmt: skip
    request = Request(testbed="t", subnet=IPv4Network("10.9.0.0/24"), nodes=[node], images={}, directory=tmp_path)
    keys = KeyPair(private=b"", public="")
    with tarfile.open(fileobj=io.BytesIO(vm._settings(request, node, keys, keys, {}, link_settings(link)))) as settings:
        settings.extract("etc/toolkit/link", tmp_path, filter="data")
    script = f'. {tmp_path}/etc/toolkit/link; echo "$TOOLKIT_LINK_RATE, $TOOLKIT_LINK_NETEM"'
    said = subprocess.run(["sh", "-euc", script], capture_output=True, text=True, check=True).stdout
    assert said == "100000000, delay 10000us loss 20.000000%\n"
