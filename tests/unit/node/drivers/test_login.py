"""Where a client has its password from."""

from pathlib import Path

import pytest

from toolkit.errors import WorkloadError
from toolkit.node.drivers.login import read_login


def test_a_password_comes_from_a_variable_or_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("s3cret\n")
    environ = {"P": "plain", "P_FILE": str(tmp_path / "password")}
    assert read_login({"user": "lab", "password_variable": "P"}, environ) == ("lab", "plain")
    assert read_login({"user": "lab", "password_variable": "P_FILE"}, environ) == ("lab", "s3cret")


def test_nobody_logs_in_unless_asked() -> None:
    assert read_login({}, {}) is None
    assert read_login({}, {}, usual=("toolkit", "toolkit")) == ("toolkit", "toolkit")


def test_a_password_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match="P is not set"):
        read_login({"user": "lab", "password_variable": "P"}, {})
    with pytest.raises(WorkloadError, match="No such file"):
        read_login({"user": "lab", "password_variable": "P_FILE"}, {"P_FILE": str(tmp_path / "none")})
