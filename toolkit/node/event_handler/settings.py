"""How this Event Handler is set: TOOLKIT_SETTINGS and TOOLKIT_EVENT_HANDLER_*, read once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from toolkit.contract.settings import service_settings
from toolkit.node.arrowhead.quirks import QUIRKS, Quirks
from toolkit.node.sending import Sending

Mode = Literal["direct", "enhanced", "original"]
Overflow = Literal["block", "drop-oldest", "disconnect"]
Version = Literal["4.1", "4.1.1", "4.1.2"]
Congestion = Literal["kernel", "reno", "cubic", "bbr"]
_CHOICES = {
    "mode": ("direct", "enhanced", "original"),
    "overflow": ("block", "drop-oldest", "disconnect"),
    "congestion": ("kernel", "reno", "cubic", "bbr"),
    "version": tuple(QUIRKS),
}
_FIELDS = {
    "publishing_tolerance": "publishing_tolerance_s",
    "drain": "drain_s",
    "check_interval": "check_interval_s",
    "database_timeout": "database_timeout_s",
    "send_buffer": "send_buffer_bytes",
}
"""Setting of testbed.yml -> field that says its unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerSettings:
    """Every setting of one Event Handler; the variable of `queue_limit` is TOOLKIT_EVENT_HANDLER_QUEUE_LIMIT."""

    mode: Mode = "direct"
    address: str = "0.0.0.0"
    port: int = 8454
    overflow: Overflow = "block"
    """What happens when a subscriber's queue is full: the publisher waits, the oldest event goes, or the subscriber."""
    queue_limit: int = 1024
    """Events that may wait for one subscriber, beyond what its socket holds."""
    send_buffer_bytes: int = 0
    """SO_SNDBUF of a subscriber's connection; 0 leaves it to the kernel."""
    congestion: Congestion = "kernel"
    """Congestion control of those connections; `kernel` is the node's own."""
    replay: int = 0
    """Events per type kept for `Last-Event-ID`; 0 keeps none and sends no ids, as the original."""
    replay_bytes: int = 4 * 1024 * 1024
    """Bound of all events kept for replay together."""
    thread_pool_size: int = 64
    """Workers in modes enhanced and original; 0 takes twice the cores, as Grizzly does."""
    feedback: bool = True
    """Answer `deliveryCompleteUri` (mode direct: for events that had a callback subscriber)."""
    connection_reuse: bool = False
    """Mode original keeps its connections to subscribers."""
    publishing_tolerance_s: float = 3600.0
    """Timestamps further from now than this are refused; 0 takes any."""
    database: str = "none"
    """Where mode original keeps its filters: `none`, in memory; `sqlite`, in the file `database_path`; for anything
    else `database_url` says where."""
    database_path: str = "/var/lib/toolkit/data/subscriptions.sqlite"
    database_url: str = ""
    """Such as mariadb://user@host/name; goes before `database`."""
    database_password_file: str = ""
    """Holds the password for that URL."""
    database_pool: int = 10
    database_timeout_s: float = 2.0
    """Wait for a connection or for a lock; a server gets three times that for an answer."""
    sql_log: bool = False
    """Mode original writes a row for each line of its log, into the same database, and waits until it is there."""
    remove_old_filters: bool = False
    """Filters whose end has passed are removed, for the first time after a minute at the latest."""
    check_interval_s: float = 3600.0
    """How often those are looked for."""
    log_events: bool = False
    """Print a line for each event as it comes and as it goes, as the published measurements had them."""
    version: Version = "4.1"
    """The release whose validation statuses and interface names are imitated."""
    registry: str = ""
    """host:port of the Service Registry of the local cloud that it is a system of; empty: of none."""
    registered_address: str = "127.0.0.1"
    """What others of that cloud are told to call."""
    tls_certificate_file: str = ""
    """With its key and the cloud's certificate (PEM files): secure mode. Every client then shows a certificate of that
    cloud."""
    tls_key_file: str = ""
    tls_cloud_ca_file: str = ""
    max_body_bytes: int = 1024 * 1024
    max_head_bytes: int = 16 * 1024
    max_connections: int = 4096
    request_within_s: float = 30.0
    """A request that has begun is complete by then, or the connection ends."""
    idle_s: float = 300.0
    """A connection without a request or subscription is kept this long."""
    drain_s: float = 5.0
    """At the end subscribers get this long to take what is queued."""

    @property
    def secure(self) -> bool:
        """Whether clients speak TLS."""
        return bool(self.tls_certificate_file)

    @property
    def sending(self) -> Sending:
        """What is set on a subscriber's connection."""
        named = "" if self.congestion == "kernel" else self.congestion
        return Sending(buffer_bytes=self.send_buffer_bytes, congestion=named)

    @property
    def quirks(self) -> Quirks:
        """What is particular to that release."""
        return QUIRKS[self.version]

    @property
    def forgets_filters(self) -> bool:
        """Whether filters end with the process."""
        return self.database == "none" and not self.database_url

    @property
    def in_memory(self) -> bool:
        """Whether there is no database outside this process."""
        return self.forgets_filters and not self.sql_log

    @property
    def storage_url(self) -> str:
        """Where filters and log rows are."""
        if self.in_memory:
            return "sqlite://"
        return self.database_url or f"sqlite:///{self.database_path}"

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> HandlerSettings:
        """The defaults, then TOOLKIT_SETTINGS, then single variables; raises ValueError naming what is wrong."""
        known = {entry.name: entry.default for entry in fields(cls)}
        settable = known | {setting: known[field] for setting, field in _FIELDS.items()}
        given = service_settings("the Event Handler", settable, environ)
        values: dict[str, Any] = {_FIELDS.get(name, name): value for name, value in given.items()}
        for name, default in known.items():
            variable = f"TOOLKIT_EVENT_HANDLER_{name.upper()}"
            if (text := environ.get(variable)) is not None:
                values[name] = _typed(variable, text, default)
        for name, choices in _CHOICES.items():
            if name in values and values[name] not in choices:
                raise ValueError(f"{name} {values[name]!r} is not one of {', '.join(choices)}")
        settings = cls(**values)
        if settings.database not in ("none", "sqlite") and not settings.database_url:
            raise ValueError(
                f"database is {settings.database!r}; set TOOLKIT_EVENT_HANDLER_DATABASE_URL to where that is, "
                f"such as mariadb://user@host/name"
            )
        return settings


def _typed(variable: str, text: str, default: object) -> bool | int | float | str:
    if isinstance(default, bool):
        return text.lower() in ("1", "true", "yes")
    try:
        if isinstance(default, int):
            return int(text)
        return float(text) if isinstance(default, float) else text
    except ValueError as error:
        raise ValueError(f"{variable}={text!r} is not a number") from error
