"""What a machine must have to run virtual ones, told before anything is touched."""

from ipaddress import IPv4Network
from pathlib import Path

import pytest

from toolkit.errors import UnreachableError
from toolkit.providers import provider_for, vm
from toolkit.spec.testbed import ProviderSettings


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
