from __future__ import annotations

from pathlib import Path

import paramiko

from toolkit.providers.keys import identity, know_hosts, make_key, remove_identity


def test_the_identity_is_made_once_and_for_the_owner_only(tmp_path: Path) -> None:
    directory = tmp_path / "testbed"
    first = identity(directory)
    assert identity(directory) == first
    assert (directory / "id_ed25519").stat().st_mode & 0o777 == 0o600
    read = paramiko.Ed25519Key.from_private_key_file(str(directory / "id_ed25519"))
    assert first.public == f"ssh-ed25519 {read.get_base64()}"


def test_a_key_does_not_show_its_private_half() -> None:
    assert "PRIVATE" not in repr(make_key())


def test_removing_the_identity_says_what_was_there(tmp_path: Path) -> None:
    identity(tmp_path)
    assert {file.name for file in remove_identity(tmp_path)} == {"id_ed25519", "id_ed25519.pub"}
    assert remove_identity(tmp_path) == []


def test_known_hosts_keep_lines_of_others_and_replace_their_own(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    file.write_text("10.0.0.9 ssh-ed25519 OTHER\n10.0.0.1 ssh-ed25519 OLD\n")
    know_hosts(tmp_path, {"10.0.0.1": "ssh-ed25519 NEW"})
    assert file.read_text() == "10.0.0.9 ssh-ed25519 OTHER\n10.0.0.1 ssh-ed25519 NEW\n"
    know_hosts(tmp_path, {}, forget=frozenset({"10.0.0.1"}))
    assert file.read_text() == "10.0.0.9 ssh-ed25519 OTHER\n"


def test_known_hosts_that_are_right_are_not_written_again(tmp_path: Path) -> None:
    know_hosts(tmp_path, {"10.0.0.1": "ssh-ed25519 KEY"})
    file = tmp_path / "known_hosts"
    before = file.stat().st_ino
    know_hosts(tmp_path, {"10.0.0.1": "ssh-ed25519 KEY"})
    assert file.stat().st_ino == before
