"""Workloads that cannot be are refused with what to change, before anything is played."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from toolkit.controller.feasible import check_workload
from toolkit.errors import WorkloadError
from toolkit.spec.load import load_testbed
from toolkit.spec.workload import Workload

FILE = """\
nodes: {{a: {{}}, b: {{count: 3}}}}
services:
  broker: {{on: a, image: {image}, settings: {{{settings}}}}}
  publisher: {{on: b, replicas: 2}}
  subscriber: {{on: b}}
"""


def check(folder: Path, image: str, settings: str = "", **workload: Any) -> None:
    file = folder / "testbed.yml"
    file.write_text(FILE.format(image=image, settings=settings))
    check_workload(load_testbed(file), dataclasses.replace(Workload(name="w"), **workload))


@pytest.mark.parametrize(
    ("image", "settings", "workload", "said"),
    [
        ("mosquitto", "", {"topics": 10_923}, "6 publishers x 1 connections x 10923 topics are 65538 streams"),
        ("mosquitto", "", {"subscriber_connections": 65_536}, "lower subscriber_connections"),
        ("mosquitto", "max_connections: 8", {}, "9 connections .*settings.max_connections"),
        ("mosquitto", "message_size_limit: 1K", {"payload_bytes": 1025}, "settings.message_size_limit .1K., or send"),
        ("rabbitmq", "max_message_size: 1M", {"payload_bytes": 2 << 20}, "settings.max_message_size"),
        ("prosody", "max_stanza_size: 10K", {"payload_bytes": 8000}, "11180 bytes as base64 .* at most 10240"),
        ("prosody", "", {"options": {"share": True}}, "with protocol xmpp each subscriber gets every message"),
        ("rabbitmq", "", {"options": {"share": True, "protocol": "mqtt"}}, "no shared subscriptions in MQTT"),
        ("mosquitto", "", {"options": {"share": True}, "join": {"subscriber": 1.0}}, "`join` is for subscribers that"),
        ("mosquitto", "", {"options": {"protocol": "amqp"}}, "speaks mqtt, not amqp"),
    ],
)
def test_it_is_named_with_what_to_change(
    tmp_path: Path, image: str, settings: str, workload: dict[str, Any], said: str
) -> None:
    with pytest.raises(WorkloadError, match=said):
        check(tmp_path, image, settings, **workload)


@pytest.mark.parametrize(
    ("image", "settings", "workload"),
    [
        ("mosquitto", "max_connections: 9, message_size_limit: 1K", {"payload_bytes": 1024, "topics": 10_922}),
        ("mosquitto", "", {"options": {"share": True}}),
        ("rabbitmq", "", {"options": {"share": True}}),
        ("prosody", "max_stanza_size: 12K", {"payload_bytes": 8000}),
    ],
)
def test_what_can_be_is_let_through(tmp_path: Path, image: str, settings: str, workload: dict[str, Any]) -> None:
    check(tmp_path, image, settings, **workload)
