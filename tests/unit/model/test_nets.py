"""Net files, builder, structure and formats: what is read, what is refused and how it is said."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.errors import ModelError
from toolkit.model.analyse import solve
from toolkit.model.expressions import bind, parse_expression
from toolkit.model.net import NetBuilder
from toolkit.model.netfile import dump_net, load_net, net_document, read_net
from toolkit.model.pnml import load_pnml, load_xpn, pnml_text
from toolkit.model.semantics import Rules
from toolkit.model.simulate import simulate
from toolkit.model.structure import analyse_structure, check, incidence

MODELS = Path(__file__).parents[3] / "examples" / "models"


def write(tmp_path, text):
    file = tmp_path / "net.yml"
    file.write_text(text)
    return file


GOOD = """\
net: small
params: {K: 2}
places: {A: K, B: 0}
transitions:
  go: {in: A, out: B, delay: "exponential(2)"}
"""


def test_parameters_aliases_and_tokens_reach_the_net():
    net = load_net(MODELS / "event-handler.yml", {"threads": 8, "C": 2}, tokens=5)
    assert net.params == {"N": 5, "K": 8, "C": 2}
    assert net.places["Publisher"] == 5
    assert net.transition("start").inhibitors == {"Executing": 2}
    assert str(net.transition("assign").guard).endswith("< 8")


@pytest.mark.parametrize(
    ("change", "line", "message"),
    [
        (("exponential(2)", "exponential(0)"), 5, "rate must be above 0"),
        (("exponential(2)", "erlang(2.5, 1)"), 5, "shape must be whole"),
        (("exponential(2)", "uniform(3, 1)"), 5, "0 <= low < high"),
        (("exponential(2)", "normal(1, 2)"), 5, "unknown distribution 'normal'"),
        (("exponential(2)", "gamma(K, Z)"), 5, "Z is not a parameter"),
        (("out: B", "out: C"), 5, "output place 'C' does not exist"),
        (("delay:", "dealy:"), 5, "did you mean 'delay'"),
        (("B: 0", "B: -1"), 1, "starts with -1 tokens"),
        (("B: 0", "B: Q"), 3, "'Q' is not a parameter"),
        (("in: A", "in: {A: 0}"), 5, "multiplicity 0"),
        (('exponential(2)"', "exponential(2)\", guard: \"__import__('os')\""), 5, "not allowed"),
        (('exponential(2)"', 'exponential(2)", guard: "A.x > 1"'), 5, "not allowed"),
        (('exponential(2)"', 'exponential(2)", server: 0'), 5, "0 servers"),
        (("net: small", "nett: small"), 1, "did you mean 'net'"),
    ],
)  # fmt: skip
def test_a_bad_file_names_its_line(tmp_path, change, line, message):
    file = write(tmp_path, GOOD.replace(*change))
    with pytest.raises(ModelError, match=r"net\.yml") as caught:
        load_net(file)
    assert message in str(caught.value)
    assert any(p.line == line for p in caught.value.problems), caught.value.problems


def test_all_problems_of_a_file_are_reported_together(tmp_path):
    file = write(tmp_path, GOOD.replace("exponential(2)", "exponential(-1)") + "  x: {in: A, out: B}\n")
    with pytest.raises(ModelError) as caught:
        load_net(file)
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize("text", ["", "- a\n", "net: [\n", "net: x\n"])
def test_what_is_no_net_is_an_error(tmp_path, text):
    with pytest.raises(ModelError):
        load_net(write(tmp_path, text))


def test_an_unknown_setting_offers_the_known_ones():
    with pytest.raises(ModelError, match="did you mean 'threads'"):
        load_net(MODELS / "event-handler.yml", {"thread": 3})


def test_yaml_and_pnml_round_trips_keep_the_net(tmp_path):
    for name in ("intracloud", "intercloud", "event-handler"):
        net = load_net(MODELS / f"{name}.yml", tokens=2)
        again = read_net(net_document(net))
        assert net_document(again) == net_document(net)
        (tmp_path / "n.yml").write_text(dump_net(net))
        assert net_document(load_net(tmp_path / "n.yml")) == net_document(net)
        (tmp_path / "n.pnml").write_text(pnml_text(net))
        back = load_pnml(tmp_path / "n.pnml")
        assert net_document(back) == net_document(net)


def test_each_way_through_a_net_may_have_its_own_start_of_the_latency(tmp_path):
    builder = NetBuilder("kinds").place("Source", 400).place("Sent").place("Quick").place("Slow").place("Done")
    builder.timed("arrive", "Source", "Sent", "exponential(1)")
    builder.immediate("is_quick", "Sent", "Quick", weight=3).immediate("is_slow", "Sent", "Slow")
    builder.timed("hurry", "Quick", "Done", "deterministic(1)", servers=None)
    builder.timed("crawl", "Slow", "Done", "deterministic(5)", servers=None)
    net = builder.measure("done", first_passage="Done == 400").latency(["hurry", "crawl"], "Done").build()
    (tmp_path / "n.pnml").write_text(pnml_text(net))
    for same in (net, read_net(net_document(net)), load_pnml(tmp_path / "n.pnml")):
        assert same.latency.start == ("hurry", "crawl")
    latency = simulate(net, least=64, most=64).latency
    assert set(np.unique(latency.round(3))) == {1.0, 5.0}
    assert (latency < 2).mean() == pytest.approx(0.75, abs=0.02)


def test_a_message_that_tries_again_sets_out_once_and_arrives_once():
    builder = NetBuilder("retry").place("A", 3).place("Tried").place("Done")
    builder.timed("work", "A", "Tried", "exponential(1)", servers=None)
    builder.immediate("again", "Tried", "A").immediate("succeed", "Tried", "Done")
    builder.timed("back", "Done", "A", "exponential(0.1)", servers=None)
    net = builder.measure("done", first_passage="Done == 3").latency("work", "Done").build()
    found = simulate(net, least=4096, most=4096)
    # A geometric number of tries of 1 each, two on average.
    assert found.latency.mean() == pytest.approx(2, rel=0.05)
    assert (np.diff(found.delivered, axis=1) >= 0).all()


def test_pipes_dialect_is_read(tmp_path):
    file = tmp_path / "pipe.xml"
    file.write_text(
        """<pnml><net id="n" type="P/T net">
        <place id="P0"><name><value>P0</value></name><initialMarking><value>Default,2</value></initialMarking></place>
        <place id="P1"><name><value>P 1</value></name></place>
        <transition id="T0"><rate><value>2.0</value></rate><timed><value>true</value></timed>
          <infiniteServer><value>true</value></infiniteServer></transition>
        <transition id="T1"><rate><value>1.0</value></rate><timed><value>false</value></timed></transition>
        <arc id="a" source="P0" target="T0"><inscription><value>Default,1</value></inscription></arc>
        <arc id="b" source="T0" target="P1"/><arc id="c" source="P1" target="T0"><type value="inhibitor"/></arc>
        <arc id="d" source="P1" target="T1"/></net></pnml>"""
    )
    net = load_pnml(file)
    assert net.places == {"P0": 2, "P_1": 0}
    assert net.transition("T0").inhibitors == {"P_1": 1}
    assert net.transition("T0").timing.servers is None
    assert net.immediate[0].name == "T1"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((">2<", ">1.5<"), "place A, initial marking: '1.5' is not a whole number"),
        (("</transition>", "<rate><value>fast</value></rate></transition>"), "transition T: 'fast' is not a number"),
        ((">3<", ">x<"), "arc a: 'x' is not a number"),
        (('target="B"', 'target="C"'), "arc b: joins T and C, one of which does not exist"),
        (('source="T"', 'source="A"'), "arc b: joins A and B; an arc joins a place and a transition"),
        (("grammar/ptnet", "grammar/symmetricnet"), "is a net of type symmetricnet"),
        (("</net>", ""), "not XML"),
    ],
)
def test_bad_pnml_names_what_is_wrong(tmp_path, change, message):
    text = """<pnml><net id="n" type="http://www.pnml.org/version-2009/grammar/ptnet">
        <place id="A"><initialMarking><text>2</text></initialMarking></place><place id="B"/>
        <transition id="T"></transition><arc id="b" source="T" target="B"/>
        <arc id="a" source="A" target="T"><inscription><text>3</text></inscription></arc></net></pnml>"""
    file = tmp_path / "n.pnml"
    file.write_text(text)
    assert load_pnml(file).transition("T").inputs == {"A": 3}
    file.write_text(text.replace(*change))
    with pytest.raises(ModelError, match=re.escape(message)):
        load_pnml(file)


def test_xml_entities_are_refused(tmp_path):
    file = tmp_path / "n.pnml"
    file.write_text('<!DOCTYPE x [<!ENTITY a "b">]><pnml/>')
    with pytest.raises(ModelError, match="entities"):
        load_pnml(file)


def test_oris_arcs_run_through_joints(tmp_path):
    file = tmp_path / "oris.xpn"
    data = "org.oristool.models.stpn"
    file.write_text(
        f"""<tpn-editor><place uuid="1"><property id="default.name" name="Start"/>
        <property id="default.marking" marking="1"/></place>
        <place uuid="2"><property id="default.name" name="End"/></place>
        <transition uuid="3"><property id="default.name" name="t"/>
        <property id="transition.stochastic" property-data-type="{data}.Erlang" k="3" lambda="2"/></transition>
        <joint uuid="4"/><arc from="1" to="4"/><arc from="4" to="3"/><arc from="3" to="2"/></tpn-editor>"""
    )
    net = load_xpn(file)
    assert net.transition("t").inputs == {"Start": 1}
    assert str(net.transition("t").timing.delay) == "erlang(3, 2)"
    file.write_text(file.read_text().replace("Erlang", "Strange"))
    with pytest.raises(ModelError, match="transition t: timing 'strange'"):
        load_xpn(file)


def test_invariants_that_are_too_many_to_look_for_are_not_called_none():
    builder = NetBuilder("pairs")
    for stage in range(13):
        builder.place(f"A{stage}", int(stage == 0)).place(f"B{stage}", int(stage == 0))
    for stage in range(12):  # 2^13 ways to follow one token of each pair
        builder.timed(
            f"t{stage}", {f"A{stage}": 1, f"B{stage}": 1}, {f"A{stage + 1}": 1, f"B{stage + 1}": 1}, "exponential(1)"
        )
    found = analyse_structure(builder.build())
    assert found.place_invariants is None
    assert found.transition_invariants == ()


def test_invariants_bounds_and_deadlocks_are_named():
    net = load_net(MODELS / "event-handler.yml", tokens=3)
    found = analyse_structure(net)
    assert found.place_invariants == (dict.fromkeys(net.places, 1),)
    assert found.transition_invariants == ()
    assert found.bounds["Executing"] == 3
    assert found.deadlocks == ({"Subscriber": 3},)
    assert check(net) == []


def test_a_growing_place_a_dead_transition_and_an_early_deadlock_are_noted():
    source = NetBuilder("s").place("A").place("B").timed("make", None, "A", "exponential(1)").build()
    assert analyse_structure(source).unbounded == ("A",)
    stuck = NetBuilder("d").place("A", 1).place("B").place("C").timed("go", "A", "B", "exponential(1)")
    stuck.timed("both", ["A", "B"], "C", "exponential(1)").measure("end", first_passage="C == 1")
    notes = check(stuck.build())
    assert "transition both can never fire" in notes
    assert any("deadlock before C == 1: B=1" in note for note in notes)


def test_what_a_guard_an_inhibitor_or_an_immediate_transition_bounds_does_not_grow():
    make = NetBuilder("m").place("A").place("B")
    guarded = NetBuilder("g").place("A").place("B").timed("make", None, "A", "exponential(1)", guard="A < 5")
    inhibited = NetBuilder("i").place("A").place("B").timed("make", None, "A", "exponential(1)", inhibit={"A": 5})
    flushed = make.timed("make", None, "A", "exponential(1)").immediate("flush", {"A": 6}, {"B": 1})
    for builder, bounds in ((guarded, {"A": 5, "B": 0}), (inhibited, {"A": 5, "B": 0})):
        assert analyse_structure(builder.build()).bounds == bounds
        assert check(builder.build()) == []
    assert check(flushed.timed("take", "B", None, "exponential(1)").build(), most_markings=500) == [
        "place B may grow for ever (in 501 markings nothing stopped it)"
    ]
    # Firing takes what a marking holds at most once: with room for one B both places are bounded.
    held = NetBuilder("h").place("A").place("B").timed("make", None, "A", "exponential(1)", inhibit="B")
    held.immediate("flush", {"A": 6}, {"B": 1}).timed("take", "B", None, "exponential(1)")
    found = analyse_structure(held.build())
    assert (found.unbounded, found.is_complete, found.bounds) == ((), True, {"A": 6, "B": 1})


@pytest.mark.parametrize("method", ["phases", "semi-markov", "simulation"])
def test_a_rate_that_is_none_names_its_transition(method):
    net = NetBuilder("n").place("A", 1).place("B").timed("go", "A", "B", "exponential(A - 3)")
    with pytest.raises(ModelError, match="transition go: the rate A - 3 is -2"):
        solve(net.measure("done", first_passage="B == 1").build(), method=method)


@pytest.mark.filterwarnings("error")
def test_guards_may_divide_by_empty_places():
    net = NetBuilder("n").place("A", 2).place("B").measure("done", first_passage="B == 2")
    net.timed("go", "A", "B", "exponential(1)", guard="B == 0 or 1 / B > 0.5")
    assert solve(net.build()).time.mean == pytest.approx(2)
    with pytest.raises(ModelError, match="1 / 0 > 1 has no value"):
        solve(net.timed("never", "A", "B", "exponential(1)", guard="1 / 0 > 1").build())


def test_the_builder_refuses_what_a_file_could_not_say():
    with pytest.raises(ModelError, match="place A is there twice"):
        NetBuilder("n").place("A", 1).place("A", 2)
    net = NetBuilder("n").place("A", 1).place("B").timed("go", "A", "B", "exponential(1)")
    with pytest.raises(ModelError, match="measure m: 'passage' is none of first_passage"):
        net.measure("m", passage="B == 1").build()


def test_an_unbounded_net_names_its_place_when_solved():
    net = NetBuilder("s").place("A").place("B").timed("make", None, "A", "exponential(1)")
    net.timed("move", "A", "B", "exponential(1)").measure("never", first_passage="A == -1")
    with pytest.raises(ModelError, match=r"place [AB] has reached"):
        solve(net.build(), method="phases")


def test_multiplicities_and_priorities():
    net = (
        NetBuilder("n").place("A", 4).place("B").place("C").place("D")
        .timed("pair", {"A": 2}, "B", "exponential(1)")
        .immediate("first", "B", "C", priority=2).immediate("second", "B", "D", priority=1)
        .measure("done", first_passage="A == 0").build()
    )  # fmt: skip
    solution = solve(net, at=(50.0,))
    assert solution.time.mean == pytest.approx(2)
    assert solution.tokens["C"][0] == pytest.approx(2, abs=1e-8)
    assert solution.occupied["D"][0] == 0


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_firing_keeps_the_invariants(data):
    places = [f"P{i}" for i in range(data.draw(st.integers(2, 4)))]
    builder = NetBuilder("random")
    for place in places:
        builder.place(place, data.draw(st.integers(0, 3)))
    arcs = st.dictionaries(st.sampled_from(places), st.integers(1, 2), min_size=1, max_size=2)
    for i in range(data.draw(st.integers(1, 3))):
        builder.timed(f"t{i}", data.draw(arcs), data.draw(arcs), "exponential(1)")
    net = builder.build()
    found = analyse_structure(net, most_markings=200)
    assert found.place_invariants is not None
    for weights in found.place_invariants:
        vector = np.array([weights.get(p, 0) for p in places])
        assert (vector @ incidence(net) == 0).all()
    rules = Rules(net)
    marking = rules.initial[:, None].copy()
    for transition in net.transitions:
        if rules.degree(transition, marking)[0] > 0:
            after = marking.copy()
            rules.fire(transition, after)
            assert (after >= 0).all()
            for weights in found.place_invariants:
                vector = np.array([weights.get(p, 0) for p in places])
                assert (vector @ after == vector @ marking).all()


def test_expressions_work_on_arrays_and_numbers():
    expression = parse_expression("0 < A <= 2 and not B == 1 or min(A, B) > 5")
    assert expression({"A": np.array([0, 1, 2, 9]), "B": np.array([0, 1, 0, 9])}).tolist() == [False, False, True, True]
    for bad in ("A if B else 1", "[A]", "lambda: 1", "A and", "f(A)", "'x'", "A[0]", "2 ** A", "x" * 3000):
        with pytest.raises(ModelError):
            parse_expression(bad)


def test_what_reads_no_places_is_worked_out_once():
    bound = bind(parse_expression("S > 2 and A + 2 * B < 3"), {"S": 3, "B": 4})
    assert (str(bound), bound.names) == ("3 > 2 and A + 2 * 4 < 3", {"A"})
    assert not bound({"A": 0})
    assert not bind(parse_expression("S > 2 and A < 3"), {"S": 2})({"A": 0})
    assert bind(parse_expression("S > 2 or A < 3"), {"S": 3})({"A": 9})
    assert bind(parse_expression("min(S, 4) ** 0.5 + A"), {"S": 9})({"A": 1}) == 3


def test_a_folder_is_no_net(tmp_path):
    with pytest.raises(ModelError, match="is a folder, no net; `toolkit model show RUN --write"):
        load_net(tmp_path)
