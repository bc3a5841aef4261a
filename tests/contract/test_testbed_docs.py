"""docs/testbed-file.md knows every key, and its examples load."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from toolkit.spec import file as models
from toolkit.spec.kinds import BUILT_IN
from toolkit.spec.load import load_testbed
from toolkit.spec.services import DEFAULT_IMAGE, IMAGES, ROLES
from toolkit.spec.settings import SETTINGS

PAGE = (Path(__file__).parents[2] / "docs" / "testbed-file.md").read_text()
TYPES = [kind for name, kind in vars(models).items() if name.endswith(("Entry", "File"))]
KEYS = sorted({key for kind in [*TYPES, *SETTINGS.values()] for key in kind.__annotations__})
EXAMPLES = [text for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if "nodes:" in text]


@pytest.mark.parametrize("key", KEYS)
def test_every_key_is_explained(key):
    assert re.search(rf"`([a-z]+\.)?{key}\b", PAGE), f"docs/testbed-file.md does not explain `{key}`"


@pytest.mark.parametrize("word", sorted({*ROLES, *DEFAULT_IMAGE.values(), *BUILT_IN, *IMAGES}))
def test_every_word_is_named(word):
    assert f"`{word}`" in PAGE


@pytest.mark.parametrize("text", EXAMPLES, ids=range(len(EXAMPLES)))
def test_every_example_loads(text, tmp_path):
    file = tmp_path / "testbed.yml"
    file.write_text(text)
    if "# needs: vault" in text:
        (tmp_path / "secrets.yml").write_text("$ANSIBLE_VAULT;1.1;AES256\n")
    assert load_testbed(file, environ={}).nodes


def test_there_are_examples():
    assert len(EXAMPLES) >= 8
