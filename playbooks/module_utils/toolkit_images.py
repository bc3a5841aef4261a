# SPDX-License-Identifier: Apache-2.0
"""Images of a node: what is missing comes from the testbed's registry, and is noted so that it can go again.

Runs on nodes: Python 3.8 and later, standard library only.
"""

from __future__ import annotations

import json

from ansible.module_utils.toolkit_engine import LABEL_CONTENT, EngineError
from ansible.module_utils.toolkit_files import read, write_atomically

NOTE = "images.json"
"""Below the node root: images that toolkit brought here."""


class Images:
    """The images of one engine, and where to get more."""

    def __init__(self, engine, files, report, *, registry=None, platform=None):
        self._engine = engine
        self._note = files.path(NOTE)
        self._report = report
        self._registry = registry
        self._platform = platform

    def missing(self, containers):
        """Fetch what these containers lack: container name -> why its image cannot be had."""
        answers = {}
        for container in containers:
            reference = container["image"]
            if reference not in answers:
                try:
                    answers[reference] = self._have(reference, container["content"])
                except EngineError as error:
                    answers[reference] = str(error)
        return {
            container["name"]: "%s: image %s: %s" % (container["name"], container["image"], answers[container["image"]])
            for container in containers
            if answers[container["image"]]
        }

    def _have(self, reference, content):
        """Have an image under its reference; returns why it cannot be had, or an empty text."""
        found = self._engine.image(reference)
        if found is not None and _same_content(found, content):
            return ""
        if not self._registry:
            return "it is not on this node, and there is no registry to fetch it from"
        if not self._report.change("pull", reference, "missing" if found is None else "another content"):
            return ""
        if found is None:
            self._remember(reference)
        name, tag = name_and_tag(reference)
        source = "%s/%s" % (self._registry, name)
        try:
            self._engine.pull(source, tag, self._platform)
        except EngineError as error:
            return "registry %s does not give it: %s" % (self._registry, error)
        self._engine.post("/images/%s:%s/tag" % (source, tag), repo=name, tag=tag)
        self._engine.delete("/images/%s:%s" % (source, tag))
        found = self._engine.image(reference)
        if found is None or not _same_content(found, content):
            return "the registry gave another content than %s" % content
        return ""

    def brought(self):
        """References of images that were not here before toolkit."""
        return json.loads(read(self._note) or b"[]")

    def _remember(self, reference):
        """Before it is fetched, so that an interrupted pull is known, too."""
        known = self.brought()
        if reference not in known:
            write_atomically(self._note, json.dumps(sorted([*known, reference])).encode(), 0o644)

    def remove(self, references):
        """Remove images; those that somebody else's container uses stay, with a remark."""
        for reference in references:
            if self._engine.image(reference) is None:
                continue
            if self._report.check:
                self._report.change("remove", "image " + reference)
                continue
            answer = self._engine.call("DELETE", "/images/" + reference, accept=(404, 409))
            if isinstance(answer, dict) and "message" in answer:
                self._report.notes.append("image %s stays: %s" % (reference, answer["message"]))
            else:
                self._report.change("remove", "image " + reference)


def name_and_tag(reference):
    """`registry:5000/name:tag` -> its name and its tag."""
    name, colon, tag = reference.rpartition(":")
    return (name, tag) if colon and "/" not in tag else (reference, "latest")


def _same_content(image, content):
    """By label, or by its id; an image of somebody else's may have no label and is known by its reference alone."""
    label = ((image.get("Config") or {}).get("Labels") or {}).get(LABEL_CONTENT)
    return not content or label is None or label == content or image["Id"].startswith("sha256:" + content)
