"""The store of known beginnings: what it finds, and what it drops when it is full."""

from __future__ import annotations

import torch

from agentic_r.agent.slab import PrefixStore, Slab


def source(length: int, value: float = 0.0) -> torch.Tensor:
    return torch.full((2, 2, 3, length, 4), value)


def test_the_longest_common_beginning_is_found() -> None:
    store = PrefixStore(10**6, block=4)
    store.add(list(range(20)), source(20, 1.0))
    store.add([*range(8), *range(50, 60)], source(18, 2.0))
    known, found = store.find([*range(15), 99, 98])
    assert known == 15
    assert found is not None and float(found[0, 0, 0, 0, 0]) == 1.0
    known, found = store.find([*range(8), *range(50, 53)])
    assert known == 10  # never the last token
    assert found is not None and float(found[0, 0, 0, 0, 0]) == 2.0
    assert store.find([7, 7, 7, 7, 7, 7]) == (0, None)
    assert store.find([0, 1, 2]) == (0, None)


def test_the_least_recently_used_is_dropped() -> None:
    size = source(8).numel() * 4
    store = PrefixStore(2 * size, block=4)
    for start in (0, 100, 200):
        store.add(list(range(start, start + 8)), source(8))
        store.find(list(range(9)))
    assert store.find(list(range(9)))[0] == 8
    assert store.find(list(range(100, 109)))[0] == 0
    assert store.find(list(range(200, 209)))[0] == 8
    store.add(list(range(300, 340)), source(40))
    assert store.find(list(range(300, 341)))[0] == 0  # larger than the whole store
    store.clear()
    assert store.find(list(range(9)))[0] == 0


def test_what_is_stored_is_a_copy() -> None:
    store = PrefixStore(10**6, block=4)
    original = source(8)
    store.add(list(range(8)), original)
    original += 1
    _, found = store.find(list(range(9)))
    assert found is not None and float(found.sum()) == 0.0


def test_a_slab_is_written_in_place_and_loses_rows() -> None:
    slab = Slab(torch.zeros(2, 2, 3, 1, 6, 4), 2)
    new = torch.ones(3, 1, 2, 4) * torch.arange(3.0)[:, None, None, None]
    keys, values = slab.cache.update(new, -new, 1)
    assert keys.shape == (3, 1, 4, 4)
    assert torch.equal(keys[:, :, 2:], new)
    assert torch.equal(values[:, :, 2:], -new)
    slab.keep(torch.tensor([2]))
    assert torch.equal(slab.data[1, 0, :, :, 2:4], new[2:])
    assert slab.cache.get_seq_length() == 2
