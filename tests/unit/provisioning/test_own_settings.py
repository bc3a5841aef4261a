"""Settings of the programs that are toolkit's own, from the file to the process."""

import json
from pathlib import Path

from tests.rendered import AnyImage, hosts_on_loopback
from toolkit.node.event_handler.settings import HandlerSettings
from toolkit.node.platform.settings import GatewaySettings, HubSettings, read_settings
from toolkit.provisioning.render import render_bundles
from toolkit.spec.load import load_testbed

FILE = """\
name: kept
nodes: {a: {}}
services:
  broker:
    on: a
    settings: {publishing_tolerance: 1.5 m, drain: 250ms, check_interval: 1h, database_timeout: 0.5s, send_buffer: 1.5K}
  gateway: {on: a, settings: {broker: broker, protocol: sse, max_payload: 1.5 K, queue_limit: 7}}
  hub: {on: a, settings: {send_buffer: 0.5M, mqtt: "5"}}
"""


def test_quantities_come_as_the_file_writes_them(tmp_path: Path) -> None:
    (tmp_path / "testbed.yml").write_text(FILE)
    testbed = load_testbed(tmp_path / "testbed.yml")
    [bundle] = render_bundles(testbed, hosts_on_loopback(testbed), AnyImage()).values()
    given = {container.service: container.environment for container in bundle.containers}
    handler = HandlerSettings.from_environment(given["broker"])
    assert (handler.publishing_tolerance_s, handler.drain_s, handler.check_interval_s) == (90, 0.25, 3600)
    assert (handler.database_timeout_s, handler.send_buffer_bytes) == (0.5, 1536)
    gateway = read_settings("gateway", GatewaySettings, given["gateway"])
    assert (gateway.max_payload, gateway.queue_limit) == (1536, 7)
    assert (gateway.protocol, gateway.upstream) == ("sse", ("127.0.0.1:8454",))
    hub = read_settings("hub", HubSettings, given["hub"])
    assert (hub.send_buffer, hub.mqtt) == (1 << 19, "5")
    assert "broker" not in json.loads(given["gateway"]["TOOLKIT_SETTINGS"])
