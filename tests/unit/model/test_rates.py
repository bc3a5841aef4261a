"""Rates as compressed rows and their uniformised steps, against dense matrices."""

from __future__ import annotations

import numpy as np
import pytest

from toolkit.model.rates import Steps, Window, sparse

SIZE = 40


def random_rates(seed=1, moves=150):
    """Mostly onward, a few back, several between the same states."""
    rng = np.random.Generator(np.random.Philox(seed))
    source = rng.integers(0, SIZE - 1, moves)
    target = np.clip(source + rng.integers(1, 5, moves) - 6 * (rng.random(moves) < 0.05), 0, SIZE - 1)
    keep = source != target
    return source[keep], target[keep], rng.random(moves)[keep] + 0.1


def dense(source, target, value):
    matrix = np.zeros((SIZE, SIZE))
    np.add.at(matrix, (source, target), value)
    return matrix


def test_moves_between_the_same_states_are_added():
    moves = random_rates()
    rates = sparse(SIZE, *moves)
    matrix = dense(*moves)
    assert rates.matrix().toarray() == pytest.approx(matrix)
    assert rates.out == pytest.approx(matrix.sum(axis=1))
    assert len(rates.value) == np.count_nonzero(matrix) < len(moves[0])
    order = np.random.Generator(np.random.Philox(2)).permutation(SIZE)
    assert rates.reordered(order).matrix().toarray() == pytest.approx(matrix[np.ix_(order, order)])


def test_distances_are_the_fewest_moves():
    rates = sparse(5, np.array([0, 0, 1, 2, 3]), np.array([1, 2, 3, 3, 4]), np.ones(5))
    assert rates.distance(np.array([0])).tolist() == [0, 1, 1, 2, 3]
    assert rates.distance(np.array([0, 3])).tolist() == [0, 1, 1, 0, 1]


def test_steps_in_a_window_are_those_of_the_whole_matrix():
    moves = random_rates()
    rates, matrix = sparse(SIZE, *moves), dense(*moves)
    leak = np.linspace(0, 0.2, SIZE)
    steps = Steps(rates, leak)
    whole = np.eye(SIZE) + (matrix - np.diag(matrix.sum(axis=1) + leak)) / steps.rate
    label = np.arange(SIZE) // 7
    vector = np.zeros(SIZE)
    vector[0] = 1.0
    expected = vector.copy()
    for _ in range(12):
        window = Window(steps, *steps.reach(*steps.clear(vector, nothing=0.0, tiny=0.0), 4), label)
        assert window.moves >= window.high - window.low
        block = window.advance(vector, 4)
        for after, sums in zip(block, window.sums(block), strict=True):
            expected = expected @ whole
            found = np.zeros(SIZE)
            found[window.states] = after
            assert found == pytest.approx(expected, abs=1e-14)
            by_label = np.bincount(window.labels, weights=sums, minlength=label[-1] + 1)
            assert by_label == pytest.approx(np.bincount(label, weights=expected), abs=1e-14)
        assert vector == pytest.approx(expected, abs=1e-14)
    assert vector.sum() < 1


def test_a_state_that_many_flow_into_is_summed_on_its_own():
    hub = sparse(SIZE, np.arange(SIZE - 1), np.full(SIZE - 1, SIZE - 1), np.arange(1.0, SIZE))
    steps = Steps(hub, np.zeros(SIZE))
    vector = np.full(SIZE, 1 / SIZE)
    Window(steps, 0, SIZE, np.zeros(SIZE, dtype=np.int64)).advance(vector, 1)
    rate = (SIZE - 1) * 1.0001
    assert vector[:-1] == pytest.approx((1 - np.arange(1, SIZE) / rate) / SIZE)
    assert vector.sum() == pytest.approx(1)
