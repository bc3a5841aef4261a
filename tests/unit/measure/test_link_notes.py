from __future__ import annotations

from toolkit.measure.links import link_notes


def _manifest(**ways: str | None) -> dict[str, object]:
    return {"nodes": {name: {"facts": {} if way is None else {"link": way}} for name, way in ways.items()}}


def test_a_run_tells_by_what_its_links_were_impaired() -> None:
    assert link_notes(_manifest(near="", pi=None)) == []
    notes = link_notes(_manifest(b="relay", far="netem", a="relay", near=""))
    assert [note.partition(": ")[0] for note in notes] == [
        "delay, jitter and loss of the links of far",
        "delay, jitter and loss of the links of a, b",
    ]
    assert "netem" in notes[0]
    assert "relay" in notes[1]
