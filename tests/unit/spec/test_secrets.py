from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from toolkit.errors import UsageError
from toolkit.spec.dump import dump_testbed
from toolkit.spec.load import load_testbed
from toolkit.spec.secrets import read_secrets

VALUE = "correct horse"
TEXT = """
nodes: {base: {}}
services:
  monitor: {on: base, secrets: {ADMIN: grafana, OTHER: other}}
secrets:
  grafana: ${env.GRAFANA_ADMIN}
  other: {vault: vault.yml, key: nested}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("secrets")
    (folder / "testbed.yml").write_text(TEXT)
    (folder / "password").write_text("open sesame\n")
    (folder / "wrong").write_text("open sesam\n")
    (folder / "vault.yml").write_text(f"nested: {VALUE}\nnumber: 017\n")
    program = Path(sys.executable).with_name("ansible-vault")
    command = [program, "encrypt", "--vault-password-file", folder / "password", folder / "vault.yml"]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def test_values_come_at_the_last_moment(folder):
    testbed = load_testbed(folder / "testbed.yml", environ={})
    values = read_secrets(
        testbed.secrets,
        ["grafana", "other"],
        vault_password_file=folder / "password",
        environ={"GRAFANA_ADMIN": "hunter2"},
    )
    assert values == {"grafana": "hunter2", "other": VALUE}


def test_a_value_is_the_text_that_was_written(folder):
    testbed = load_testbed(folder / "testbed.yml", environ={})
    number = dataclasses.replace(testbed.secrets["other"], key="number")
    assert read_secrets({"other": number}, ["other"], vault_password_file=folder / "password") == {"other": "017"}


def test_a_testbed_never_holds_a_value(folder):
    testbed = load_testbed(folder / "testbed.yml", environ={"GRAFANA_ADMIN": "hunter2"})
    assert testbed.services[0].secrets == {"ADMIN": "grafana", "OTHER": "other"}
    for text in (repr(testbed), dump_testbed(testbed), str(dataclasses.asdict(testbed))):
        assert "hunter2" not in text
        assert VALUE not in text


def test_the_password_file_may_come_from_the_environment(folder):
    testbed = load_testbed(folder / "testbed.yml", environ={})
    environ = {"ANSIBLE_VAULT_PASSWORD_FILE": str(folder / "password")}
    assert read_secrets(testbed.secrets, ["other"], environ=environ) == {"other": VALUE}


def test_says_every_value_that_is_not_to_be_had(folder):
    testbed = load_testbed(folder / "testbed.yml", environ={})
    wrong_key = dataclasses.replace(testbed.secrets["other"], key="nestd")
    with pytest.raises(UsageError) as raised:
        read_secrets(
            {"grafana": testbed.secrets["grafana"], "other": wrong_key},
            ["grafana", "other"],
            vault_password_file=folder / "password",
            environ={},
        )
    assert "GRAFANA_ADMIN is not set" in str(raised.value)
    assert "no key 'nestd'" in str(raised.value)
    assert "did you mean 'nested'?" in str(raised.value)


def test_a_wrong_password_is_said_without_the_content(folder):
    testbed = load_testbed(folder / "testbed.yml", environ={})
    with pytest.raises(UsageError, match="does not open with the password") as raised:
        read_secrets(testbed.secrets, ["other"], vault_password_file=folder / "wrong", environ={})
    assert VALUE not in str(raised.value)


def test_no_password_file_says_how_to_name_one(folder):
    testbed = load_testbed(folder / "testbed.yml", environ={})
    with pytest.raises(UsageError, match="export ANSIBLE_VAULT_PASSWORD_FILE=FILE"):
        read_secrets(testbed.secrets, ["other"], environ={})
