"""Every benchmark that a page quotes is there, with the options quoted; the list of them is whole."""

from __future__ import annotations

import re
from pathlib import Path

from tests.conftest import ROOT

BENCH = ROOT / "tests" / "bench"
PAGES = [ROOT / "README.md", BENCH / "README.md", *ROOT.glob("docs/**/*.md")]
QUOTED = re.compile(r"tests/bench/([\w.]+)([^`\n]*)")
HERE = {file.stem.removeprefix("bench_") for file in BENCH.glob("bench_*.py")}


def lacks(file: str, options: str) -> str:
    """What of a quoted benchmark there is not; empty: it is all there."""
    if not (BENCH / file).is_file():
        return file
    source = (BENCH / file).read_text()
    return " ".join(option for option in re.findall(r"--[a-z-]+", options) if f'"{option}"' not in source)


def quoted(page: Path) -> set[tuple[str, str]]:
    return {(file.rstrip("."), options) for file, options in QUOTED.findall(page.read_text())}


def test_every_quoted_benchmark_exists() -> None:
    missing = {(page.name, what) for page in PAGES for each in quoted(page) if (what := lacks(*each))}
    assert missing == set()
    assert lacks("bench_deploi.py", "") == "bench_deploi.py"
    assert lacks("bench_sampling.py", " --pairs 40 --twin") == "--twin"


def test_the_list_has_every_benchmark_and_says_which_run_by_default() -> None:
    listed = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", (BENCH / "README.md").read_text(), re.MULTILINE))
    assert listed.keys() == HERE
    default = re.search(r"names=\((\w+[^)]*)\)", (BENCH / "run.sh").read_text())
    assert default is not None
    assert set(default[1].split()) == {name for name, text in listed.items() if "by default" not in text}
