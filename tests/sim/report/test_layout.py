from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.report.layout import layout


@settings(max_examples=25)
@given(st.integers(0, 30), st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=60))
def test_all_nodes_are_within_the_picture(nodes: int, edges: list[tuple[int, int]]) -> None:
    within = [(one, other) for one, other in edges if one < nodes and other < nodes]
    places = layout(nodes, within)
    assert places.shape == (nodes, 2)
    assert np.all(np.isfinite(places))
    assert np.all(np.abs(places) <= 1 + 1e-9)


def test_connected_nodes_are_closer_than_others() -> None:
    two_circles = [(start + node, start + (node + 1) % 10) for start in (0, 10) for node in range(10)]
    places = layout(20, [*two_circles, (0, 10)])
    near = [np.linalg.norm(places[one] - places[other]) for one, other in two_circles]
    far = [np.linalg.norm(places[one] - places[one + 10]) for one in range(1, 10)]
    assert np.median(near) < np.median(far)


def test_a_graph_is_always_drawn_the_same_way() -> None:
    edges = [(node, (node * 7 + 3) % 50) for node in range(50)]
    assert np.array_equal(layout(50, edges), layout(50, edges))
