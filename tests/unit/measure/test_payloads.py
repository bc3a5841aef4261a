"""The reader's sizes are the nodes' sizes, and both have the distribution asked for."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from toolkit.contract.payloads import Payload, size_of
from toolkit.measure.payloads import sizes_of

SIZES = st.lists(st.integers(40, 10**7), min_size=2, max_size=9, unique=True).map(sorted)
NUMBERS = st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**40)), min_size=1, max_size=40)


@given(sizes=SIZES, seed=st.integers(0, 2**40), numbers=NUMBERS, data=st.data())
def test_many_at_once_are_the_same_as_one_by_one(sizes, seed, numbers, data):
    weights = data.draw(st.just([]) | st.lists(st.floats(0.01, 100), min_size=len(sizes), max_size=len(sizes)))
    payload = Payload(sizes=sizes, weights=weights, seed=seed)
    streams, seqs = (np.array(column, dtype=np.int64) for column in zip(*numbers, strict=True))
    assert sizes_of(payload, streams, seqs).tolist() == [size_of(payload)(*pair) for pair in numbers]


def test_sizes_have_their_distribution_and_their_seed():
    seqs = np.arange(100_000)
    streams = np.full_like(seqs, 0x1234_0007)
    uniform = sizes_of(Payload(sizes=[100, 199], seed=1), streams, seqs)
    assert (uniform.min(), uniform.max()) == (100, 199)
    assert abs(uniform.mean() - 149.5) < 0.5
    given_ = sizes_of(Payload(sizes=[64, 1024], weights=[3, 1], seed=1), streams, seqs)
    assert abs((given_ == 64).mean() - 0.75) < 0.01
    assert (sizes_of(Payload(sizes=[100, 199], seed=2), streams, seqs) != uniform).mean() > 0.9
    in_another_run = np.full_like(seqs, 0x4321_0007)  # a stream's low 16 bits are its number in the run
    assert (sizes_of(Payload(sizes=[100, 199], seed=1), in_another_run, seqs) == uniform).all()
