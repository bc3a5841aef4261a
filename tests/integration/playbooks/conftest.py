"""Two virtual nodes, one born with the image it is to run and one without."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playbook_lab import ARCHITECTURE, NAME, Lab, vm_node

from tests.subnets import free_subnet
from toolkit import ssh
from toolkit.providers.base import NodeImage, Request
from toolkit.providers.container import ContainerProvider
from toolkit.provisioning.images import Builder
from toolkit.spec.testbed import ProviderSettings


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    directory = tmp_path_factory.mktemp("lab") / NAME
    directory.mkdir()
    images = Builder(lambda _: None).build([("node", ARCHITECTURE), ("clock", ARCHITECTURE)])
    image = images["clock", ARCHITECTURE]
    provider = ContainerProvider(ProviderSettings(name="container", type="container"))
    held = (NodeImage(reference=image.reference, content=image.content),)
    request = Request(
        testbed=NAME,
        subnet=free_subnet(),
        nodes=[vm_node("full"), vm_node("empty")],
        images={"full": held, "empty": ()},
        directory=directory,
        node_image=images["node", ARCHITECTURE].reference,
    )
    try:
        got = provider.acquire(request, lambda _: None)
        assert not got.failed, got.failed
        yield Lab(hosts=got.hosts, image=image, directory=directory)
    finally:
        ssh.disconnect()
        ssh.close_shared(directory / "ssh_config", last=True)
        provider.release(NAME, None, directory, lambda _: None)


@pytest.fixture
def clean(lab: Lab) -> Iterator[Lab]:
    """The lab, and after the test nodes with nothing of the testbed on them."""
    yield lab
    run = lab.deploy(*(lab.bundle(node) for node in lab.hosts), playbook="teardown.yml")
    assert not run.failed, run.failed
    for node, outcome in run.outcomes.items():
        assert outcome.left == ()
        assert (
            lab.on(node, "ls -A /var/lib/toolkit 2>/dev/null; command -v docker >/dev/null && docker ps -aq || true")
            == ""
        )
