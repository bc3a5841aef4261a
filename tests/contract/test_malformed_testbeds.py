"""Every malformed file under testbeds/ says exactly what its .expected file says: a new case is two files."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.errors import FileInvalidError
from toolkit.spec.load import load_testbed

FOLDER = Path(__file__).parent / "testbeds"
CASES = sorted(FOLDER.glob("*.yml"))


@pytest.mark.parametrize("file", CASES, ids=lambda file: file.stem)
def test_says_what_is_wrong_and_where(file):
    with pytest.raises(FileInvalidError) as raised:
        load_testbed(file, environ={})
    said = "".join(f"{p.line}:{p.column}: {p.message}\n" for p in raised.value.problems)
    assert said.replace(str(FOLDER), "FOLDER") == file.with_suffix(".expected").read_text()
    assert all(problem.file == str(file) for problem in raised.value.problems)
    assert str(raised.value).count(f"{file}:") == len(raised.value.problems)


def test_no_case_lacks_its_other_half():
    assert len(CASES) >= 40
    assert {file.stem for file in CASES} == {file.stem for file in FOLDER.glob("*.expected")}
