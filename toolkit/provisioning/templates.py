"""Renders what stands in `templates/`; a name that is not given is an error, never an empty string."""

from __future__ import annotations

import json
from typing import Any

import jinja2

from toolkit import paths


def render_template(name: str, **values: Any) -> str:
    """The text of one template; raises jinja2.UndefinedError on a name that is not given."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(paths.TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - YAML and configuration files, not HTML
        keep_trailing_newline=True,
    )
    environment.filters["quoted"] = json.dumps  # jinja's own `tojson` writes > and & for HTML
    return environment.get_template(name).render(**values)


def duration(seconds: float) -> str:
    """A duration in the words of Prometheus and Grafana: 1s, 250ms."""
    return f"{int(seconds)}s" if float(seconds).is_integer() else f"{round(seconds * 1000)}ms"
