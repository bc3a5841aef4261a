"""What render needs beside the file: hosts that nobody acquired, images that nobody built."""

from __future__ import annotations

from toolkit.provisioning.render import ImageReference
from toolkit.spec.testbed import Testbed
from toolkit.state import Host, SshAccess


class AnyImage(dict[tuple[str, str], ImageReference]):
    """(image name, architecture) -> a reference, whatever is asked for."""

    def __missing__(self, key: tuple[str, str]) -> ImageReference:
        return ImageReference(reference=key[0], content="content")


def hosts_on_loopback(testbed: Testbed) -> dict[str, Host]:
    """This machine, as every node."""
    return {
        node.name: Host(
            node=node.name, provider="container", type="container", address="127.0.0.1", architecture="amd64",
            ssh=SshAccess(address="127.0.0.1", known_hosts=""), facts={"shared_clock": True},
        )
        for node in testbed.nodes
    }  # fmt: skip
