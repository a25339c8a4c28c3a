from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from typing import Any

import pytest

from sim.report.canvas import INK, to_svg
from sim.report.metrics import Metrics, metrics_of
from sim.report.plots import _PLOTS, available, draw_plots
from sim.scenario.model import Checks
from tests.sim.record.support import TOPIC, Still, finish_round, recorder, rung
from tests.sim.report.support import _outcome, busy_outcome, quiet_outcome


@pytest.fixture(scope="module")
def metrics() -> Metrics:
    return metrics_of(busy_outcome())


def _names(metrics: Metrics) -> list[str]:
    return [plot.name for plot in draw_plots(metrics)]


def _draw(name: str, metrics: Metrics) -> str:
    """One plot; empty when it is left out."""
    figure = _PLOTS[name][0](metrics)
    return "" if figure is None else to_svg(figure, name)


def test_metrics_survive_json(metrics: Metrics) -> None:
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


def test_plots_are_the_same_for_the_same_metrics(metrics: Metrics) -> None:
    assert available()
    assert draw_plots(metrics) == draw_plots(metrics)


def test_plots_are_svg_with_text_in_the_colour_of_the_page(metrics: Metrics) -> None:
    for plot in draw_plots(metrics):
        root = ET.fromstring(plot.svg)
        assert root.tag.endswith("svg")
        assert "currentColor" in plot.svg
        assert INK not in plot.svg


def test_titles_say_what_was_found(metrics: Metrics) -> None:
    cdf = metrics["latency_cdf"]
    title = f"Half of all deliveries take up to {cdf['p50']:,.0f} ms, 99 % up to {cdf['p99']:,.0f} ms"
    assert title in _draw("delivery-cdf", metrics)
    assert "put (20)" in _draw("lookup-hops", metrics)


def test_a_quiet_run_has_next_to_no_plots() -> None:
    assert _names(metrics_of(quiet_outcome())) == ["degrees"]
    nobody = metrics_of(quiet_outcome()) | {"connections": {"value": [], "count": []}}
    assert _names(nobody) == []


def test_troubles_are_shaded_once_and_cut_at_the_end(metrics: Metrics) -> None:
    assert _draw("latency-over-time", metrics).count(">something wrong, or healing<") == 1
    calm = _draw("latency-over-time", metrics | {"trouble": []})
    assert "something wrong" not in calm
    beyond = _draw("latency-over-time", metrics | {"trouble": [[50.0, 60.0, "late"]]})
    assert "something wrong" not in beyond


def test_long_tails_are_drawn_on_logarithmic_axes(metrics: Metrics) -> None:
    tail = dict(metrics)
    tail["latency_cdf"] = {"ms": [10.0, 11.0, 9000.0], "share": [0.5, 0.9, 1.0], "p50": 10.0, "p99": 9000.0}
    tail["latency_over_time"] = {"at": [1, 2], "p50": [10, 10], "p90": [11, 11], "p99": [9000, 12]}
    assert "1,000" in _draw("delivery-cdf", tail)
    assert "1,000" in _draw("latency-over-time", tail)


def test_many_different_degrees_share_bars(metrics: Metrics) -> None:
    star = metrics | {
        "connections": {"value": [1, 999], "count": [999, 1]},
        "mesh": {"value": [], "count": []},
    }
    assert _draw("degrees", star).count("<path") < 300
    assert ">mesh peers<" in _draw("degrees-over-time", metrics)
    assert ">mesh peers<" not in _draw("degrees-over-time", star)


def test_rounds_that_nobody_measured_are_left_out(metrics: Metrics) -> None:
    rounds = [one | {"accuracy": None} for one in metrics["rounds"]["digits"]]
    assert _draw("accuracy", metrics | {"rounds": {"digits": rounds}}) == ""
    two = metrics | {"rounds": {**metrics["rounds"], "another": metrics["rounds"]["digits"]}}
    assert ">another<" in _draw("accuracy", two)


def test_the_neighbourhood_of_a_large_network_is_drawn() -> None:
    peers = 700
    made = recorder(peers, gossip=(), checks=Checks())
    links = {node: [other for other in (node - 1, node + 1) if 0 <= other < peers] for node in range(peers)}
    still = Still(links)
    made.heap.now = 5.0
    made.finish(rung(still), still)
    topology = metrics_of(_outcome(made, []))["topology"]
    assert topology["nodes"] == list(range(300))
    assert len(topology["edges"]) == 299
    assert "300 of 700 nodes" in _draw("topology", metrics_of(_outcome(made, [])))


def test_of_many_connections_some_are_drawn(metrics: Metrics) -> None:
    everybody = [[one, other] for one in range(100) for other in range(one)]
    graph = {"nodes": list(range(100)), "edges": everybody, "down": [], "adversaries": []}
    svg = _draw("topology", metrics | {"peers": 100, "topology": graph})
    assert "one line for 2 connections" in svg
    assert len(svg) < 300_000


def test_a_large_network_in_pieces_is_drawn_as_far_as_it_goes() -> None:
    made = recorder(400, gossip=())
    still = Still({node: [node ^ 1] for node in range(400)})
    made.heap.now = 5.0
    made.finish(rung(still), still)
    assert metrics_of(_outcome(made, []))["topology"]["nodes"] == [0, 1]


def test_seconds_without_deliveries_have_no_latency() -> None:
    made = recorder()
    made.published(0, TOPIC, b"lost", 1)
    made.heap.now = 3.0
    finish_round(made, 0, 1, measured={})
    found: dict[str, Any] = metrics_of(_outcome(made, []))
    assert found["latency_over_time"]["at"] == []
    assert found["per_second"]["published"] == [1, 0, 0, 0]
    assert found["rounds"]["digits"][0]["accuracy_low"] is None


def test_scores_of_honest_nodes_and_of_adversaries_are_told_apart(metrics: Metrics) -> None:
    svg = _draw("scores", metrics)
    assert ">honest<" in svg
    assert ">adversaries<" in svg
    nobody = {name: [None] * len(values) for name, values in metrics["scores"].items() if "advers" in name}
    assert ">adversaries<" not in _draw("scores", metrics | {"scores": metrics["scores"] | nobody})
    assert _draw("scores", metrics | {"scores": {"at": [0.0], "honest_median": [1.0]}}) == ""
