"""A Testbed as YAML that loads to an equal one, everything written out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toolkit.spec.clouds import written_cloud
from toolkit.spec.quantities import BITRATE, DURATION, FRACTION, SIZE
from toolkit.spec.services import IMAGES
from toolkit.spec.sweep import written_experiment
from toolkit.spec.testbed import Image, Link, Node, ProviderSettings, Secret, Service, Testbed
from toolkit.spec.traffic import written_workload
from toolkit.spec.variables import escaped
from toolkit.spec.yaml import write


def dump_testbed(testbed: Testbed) -> str:
    """YAML 1.2; relative paths have become absolute, counts single nodes, secrets stay names."""
    return write({k: value if k == "secrets" else escaped(value) for k, value in _document(testbed).items()})


def _document(testbed: Testbed) -> dict[str, Any]:
    own = {s.image.name: s.image for s in testbed.services if s.image.name not in IMAGES}
    entries = dict.fromkeys(node.entry or node.name for node in testbed.nodes)
    kinds = {node.kind: {"like": "host"} for node in testbed.nodes}
    return _without_empty(
        {
            "version": 1,
            "name": testbed.name,
            "description": testbed.description,
            "twin": testbed.twin,
            "providers": {name: _provider(settings) for name, settings in testbed.providers.items()},
            "kinds": {kind: entry for kind, entry in kinds.items() if kind != "host"},
            "groups": {node.group: {} for node in testbed.nodes if node.group},
            "network": {"subnet": str(testbed.subnet)},
            "nodes": {entry: _nodes([n for n in testbed.nodes if (n.entry or n.name) == entry]) for entry in entries},
            "images": {name: _image(image) for name, image in own.items()},
            "clouds": {name: written_cloud(cloud) for name, cloud in testbed.clouds.items()},
            "services": {service.name: _service(service) for service in testbed.services},
            "clock": {
                "max_offset": DURATION.write(testbed.clock.max_offset_s),
                "max_root_distance": DURATION.write(testbed.clock.max_root_distance_s),
                "within": DURATION.write(testbed.clock.within_s),
            },
            "monitoring": _without_empty(
                {
                    "scrape_interval": DURATION.write(testbed.monitoring.scrape_interval_s),
                    "retention": DURATION.write(testbed.monitoring.retention_s),
                    "grafana": testbed.monitoring.grafana_image or False,
                    "alertmanager": testbed.monitoring.alertmanager,
                    "console": testbed.monitoring.console or None,
                },
                but=("grafana",),
            ),
            "workloads": {name: written_workload(workload) for name, workload in testbed.workloads.items()},
            "experiments": {name: written_experiment(each) for name, each in testbed.experiments.items()},
            "secrets": {name: _secret(secret) for name, secret in testbed.secrets.items()},
        },
        but=("clock", "monitoring"),
    )


def _without_empty(mapping: Mapping[str, Any], *, but: tuple[str, ...] = ()) -> dict[str, Any]:
    empty: tuple[Any, ...] = (None, "", (), [], {}, False)
    return {
        key: value for key, value in mapping.items() if key in but or not any(value is e or value == e for e in empty)
    }


def _provider(settings: ProviderSettings) -> dict[str, Any]:
    plain = ProviderSettings(name=settings.name, type=settings.type)
    entry = {
        name: getattr(settings, name)
        for name in ProviderSettings.__dataclass_fields__
        if name not in {"name", "type"} and getattr(settings, name) != getattr(plain, name)
    }
    return {"type": settings.type} | entry


def _nodes(alike: list[Node]) -> dict[str, Any]:
    """The entry that stands for nodes of one count."""
    node = alike[0]
    addresses = [n.address for n in alike if n.address is not None]
    several = node.name != node.entry
    entry = {
        "count": len(alike) if several else None,
        "kind": node.kind,
        "provider": node.provider,
        "architecture": str(node.architecture) if node.architecture else None,
        "cpus": node.cpus,
        "memory": SIZE.write(node.memory_bytes) if node.memory_bytes is not None else None,
        "link": _link(node.link),
        "address": None if several else node.address,
        "addresses": addresses if several else None,
        "group": node.group,
        "labels": dict(node.labels),
    }
    return _without_empty(entry)


def _link(link: Link) -> dict[str, Any]:
    entry = {
        "rate": BITRATE.write(link.rate_bps) if link.rate_bps is not None else None,
        "delay": DURATION.write(link.delay_s) if link.delay_s else None,
        "jitter": DURATION.write(link.jitter_s) if link.jitter_s else None,
        "loss": FRACTION.write(link.loss) if link.loss else None,
    }
    return _without_empty(entry)


def _image(image: Image) -> dict[str, Any]:
    platforms = [f"linux/{platform}" for platform in sorted(image.platforms)]
    return _without_empty({"reference": image.reference, "build": image.build, "platforms": platforms})


def _service(service: Service) -> dict[str, Any]:
    health = service.health
    entry = {
        "role": service.role,
        "image": service.image.name,
        "cloud": service.cloud,
        "on": list(service.nodes),
        "replicas": service.replicas if service.replicas != 1 else None,
        "settings": dict(service.settings),
        "environment": dict(service.environment),
        "secrets": dict(service.secrets),
        "tls": service.tls,
        "login": {"user": service.login.user, "password": service.login.secret} if service.login else None,
        "command": list(service.command),
        "ports": list(service.ports),
        "capabilities": list(service.capabilities),
        "cpus": service.cpus,
        "memory": SIZE.write(service.memory_bytes) if service.memory_bytes is not None else None,
        "after": list(service.after),
        "health": _without_empty(
            {
                "command": list(health.command),
                "interval": DURATION.write(health.interval_s),
                "within": DURATION.write(health.within_s),
            }
        )
        if health
        else None,
    }
    return _without_empty(entry, but=("after", "ports"))


def _secret(secret: Secret) -> Any:
    return f"${{env.{secret.variable}}}" if secret.variable else {"vault": secret.vault, "key": secret.key}
