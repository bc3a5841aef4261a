"""What Prosody is configured with, and how it knows its one account."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

from toolkit.provisioning.templates import render_template
from toolkit.spec.quantities import in_base_units

DOMAIN = "localhost"
"""Of the one host; its publish/subscribe service is pubsub.<domain>."""
RUN = "/run/prosody"
MODULES = "/usr/local/lib/prosody/modules"
_ROUNDS = 4096
_NAMES = {
    "max_stanza_size": "c2s_stanza_size_limit",
    "max_unacknowledged": "smacks_max_queue_size",
    "resume_within": "smacks_hibernation_time",
}
_LOGS = {"warning": "warn", "info": "info", "debug": "debug"}
PROSODY_DEFAULTS: Mapping[str, Any] = {"max_stanza_size": 10 << 20, "max_unacknowledged": 1000, "resume_within": 600}
"""Written out, so that a broker's bounds can be read from its file."""


def prosody_config(
    settings: Mapping[str, Any],
    *,
    port: int,
    user: str,
    certificate: str = "",
    key: str = "",
    interface: str = "*",
    run: str = RUN,
    modules: str = MODULES,
) -> str:
    """prosody.cfg.lua.

    `user` owns every node, so that its clients may publish to all. With a `certificate` TLS begins with the first byte
    (XEP-0368), and nothing else is listened for.
    """
    merged = {**PROSODY_DEFAULTS, **{name: in_base_units(value) for name, value in settings.items()}}
    log_level = _LOGS[merged.pop("log_level", "warning")]
    return render_template(
        "prosody/prosody.cfg.lua.j2",
        port=port,
        user=user,
        domain=DOMAIN,
        certificate=certificate,
        key=key,
        interface=interface,
        run=run,
        modules=modules,
        log_level=log_level,
        settings={_NAMES.get(name, name): value for name, value in merged.items()},
    )


def prosody_login(user: str, password: str) -> str:
    """The SCRAM-SHA-256 verifier of an account, for the module auth_testbed; the password cannot be read from it.

    Its salt is the same for the same account, so that a second deploy changes nothing.
    """
    salt = hashlib.sha256(f"salt of xmpp\0{user}\0{password}".encode()).digest()[:16]
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _ROUNDS)
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    encoded = {
        "salt": salt,
        "stored_key": stored_key,
        "server_key": hmac.digest(salted, b"Server Key", "sha256"),
    }
    return json.dumps(
        {"user": user, "rounds": _ROUNDS} | {name: base64.b64encode(data).decode() for name, data in encoded.items()}
    )
