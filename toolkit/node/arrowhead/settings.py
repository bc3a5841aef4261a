"""What a core system is told by its environment, read once at its start."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from toolkit.contract.arrowhead import ENVIRONMENT, PORTS
from toolkit.contract.settings import ProcessSettings
from toolkit.errors import UsageError
from toolkit.node.arrowhead.quirks import QUIRKS, Quirks


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files of secure mode. The last three are the Gatekeeper's, for its dealings with other clouds."""

    certificate: Path
    """The system's own, followed by its cloud's."""
    key: Path
    cloud_ca: Path
    cloud_certificate: Path | None = None
    cloud_key: Path | None = None
    master_ca: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One core system's settings."""

    process: ProcessSettings
    system: str
    cloud: str
    """Label of the local cloud in step records, e.g. `a`; may be empty."""
    address: str
    """What the system registers as its address."""
    bind: str
    port: int
    outbound_port: int
    """The Gatekeeper's second port, for its own Orchestrator."""
    registry: str
    """host:port of the Service Registry."""
    database_url: str
    database_password: Path | None
    """A file; None: the URL says it, or none is needed."""
    database_pool: int
    database_timeout_s: float
    seed: Path | None
    quirks: Quirks
    secure: bool
    tls: TlsFiles | None
    signing_key: Path | None
    """The Authorization's private key in insecure mode; one is made at its start when there is none."""
    verify_host: bool
    gatekeeper: bool
    """False: an Orchestrator of a cloud without Gatekeeper."""
    gsd: Literal["parallel", "sequential"]
    strict_cloud: bool
    """The certificate of a calling Gatekeeper must be that of the cloud it speaks for."""
    auth_for_cloud: bool
    """Every system of the cloud may ask the Authorization, and make rules within the cloud."""
    sql_log: bool
    """Each log line is also a row, written before work goes on, as the originals do."""
    ping_timeout_s: float
    ping_interval_s: float
    """0: providers are not watched."""
    ttl_interval_s: float
    """0: expired entries stay."""
    peer_timeout_s: float
    body_bytes: int
    request_s: float

    @property
    def scheme(self) -> str:
        """Of the own addresses."""
        return "https" if self.secure else "http"


def settings_from(system: str, environ: Mapping[str, str]) -> Settings:
    """Read `TOOLKIT_*` for one of `PORTS`; raises UsageError naming the variable that is missing or wrong."""
    reader = _Reader(environ)
    secure = reader.switch("SECURE", default=False)
    defaults = {
        "TOOLKIT_TESTBED": "arrowhead",
        "TOOLKIT_NODE": socket.gethostname(),
        "TOOLKIT_SERVICE": system,
        "TOOLKIT_METRICS_PORT": "0",
        "TOOLKIT_CONTROL_PORT": "0",
    }
    try:
        process = ProcessSettings.from_environment({**defaults, **environ})
    except (KeyError, ValueError) as error:
        raise UsageError(f"the environment is wrong: {error}; each TOOLKIT_*_PORT is a number") from None
    address = reader.text("ADDRESS", "127.0.0.1")
    seed = reader.text("SEED", "")
    signing_key = reader.text("SIGNING_KEY_FILE", "")
    return Settings(
        process=process,
        system=system,
        cloud=reader.text("CLOUD", ""),
        address=address,
        bind=reader.text("BIND", "0.0.0.0"),
        port=reader.whole("PORT", PORTS[system][secure]),
        outbound_port=reader.whole("OUTBOUND_PORT", PORTS["gatekeeper_outbound"][secure]),
        registry=reader.text("SR_ADDRESS", f"{address}:{PORTS['service_registry'][secure]}"),
        database_url=reader.text("DATABASE_URL", "sqlite:////var/lib/toolkit/data/arrowhead.sqlite"),
        database_password=reader.optional_file("DATABASE_PASSWORD_FILE"),
        database_pool=reader.whole("DATABASE_POOL", 10),
        database_timeout_s=reader.number("DATABASE_TIMEOUT_S", 5.0),
        seed=Path(seed) if seed else None,
        quirks=QUIRKS[reader.choice("VERSION", tuple(QUIRKS))],
        secure=secure,
        tls=reader.tls() if secure else None,
        signing_key=Path(signing_key) if signing_key else None,
        verify_host=reader.switch("VERIFY_HOST", default=False),
        gatekeeper=reader.switch("GATEKEEPER", default=True),
        gsd=cast("Literal['parallel', 'sequential']", reader.choice("GSD", ("parallel", "sequential"))),
        strict_cloud=reader.switch("STRICT_CLOUD", default=False),
        auth_for_cloud=reader.switch("AUTH_FOR_CLOUD", default=False),
        sql_log=reader.switch("SQL_LOG", default=False),
        ping_timeout_s=reader.number("PING_TIMEOUT_S", 5.0),
        ping_interval_s=reader.number("PING_INTERVAL_S", 0.0),
        ttl_interval_s=reader.number("TTL_INTERVAL_S", 0.0),
        peer_timeout_s=reader.number("PEER_TIMEOUT_S", 30.0),
        body_bytes=reader.whole("BODY_BYTES", 1024 * 1024),
        request_s=reader.number("REQUEST_S", 15.0),
    )


class _Reader:
    """Typed access to the variables with our prefix."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def text(self, name: str, default: str) -> str:
        return self._environ.get(ENVIRONMENT + name, "").strip() or default

    def number(self, name: str, default: float) -> float:
        given = self.text(name, str(default))
        try:
            value = float(given)
        except ValueError:
            value = -1.0
        if not 0 <= value < float("inf"):
            raise UsageError(f"{ENVIRONMENT}{name} is {given!r}; try a number such as {default:g}")
        return value

    def whole(self, name: str, default: int) -> int:
        return int(self.number(name, default))

    def switch(self, name: str, *, default: bool) -> bool:
        return self.choice(name, ("1", "0") if default else ("0", "1")) == "1"

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        """One of `choices`; the first when unset."""
        given = self.text(name, choices[0])
        if given not in choices:
            raise UsageError(f"{ENVIRONMENT}{name} is {given!r}; try one of {', '.join(choices)}")
        return given

    def tls(self) -> TlsFiles:
        """The files of secure mode."""
        return TlsFiles(
            certificate=self._file("TLS_CERTIFICATE_FILE"),
            key=self._file("TLS_KEY_FILE"),
            cloud_ca=self._file("TLS_CLOUD_CA_FILE"),
            cloud_certificate=self.optional_file("TLS_CLOUD_CERTIFICATE_FILE"),
            cloud_key=self.optional_file("TLS_CLOUD_KEY_FILE"),
            master_ca=self.optional_file("TLS_MASTER_CA_FILE"),
        )

    def optional_file(self, name: str) -> Path | None:
        return self._file(name) if self.text(name, "") else None

    def _file(self, name: str) -> Path:
        path = Path(self.text(name, ""))
        if not path.is_file():
            raise UsageError(
                f"{ENVIRONMENT}{name} is {str(path)!r}, which is no file; secure mode needs a PEM file there"
            )
        return path
