"""Which beginnings a batch shares, against a slow search for them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agentic_r.agent.slab import PrefixStore
from agentic_r.agent.stems import BLOCKS, SIBLINGS, stems

STORE = PrefixStore(10**6, block=4)

token = st.integers(0, 1)
prompts = st.lists(st.lists(token, min_size=1, max_size=14), min_size=1, max_size=40)


@given(prompts)
def test_members_begin_alike_and_keep_a_token(batch: list[list[int]]) -> None:
    taken: set[int] = set()
    for length, members in stems(batch, STORE):
        assert len(members) >= SIBLINGS
        assert length >= BLOCKS * STORE.block
        assert not taken & set(members)
        taken |= set(members)
        beginning = batch[members[0]][:length]
        for index in members:
            assert batch[index][:length] == beginning
            assert len(batch[index]) > length
        # No longer beginning would do for all of them.
        longer = {tuple(batch[index][: length + 1]) for index in members}
        spare = all(len(batch[index]) > length + 1 for index in members)
        assert len(longer) > 1 or not spare


@given(prompts)
def test_one_family_alone_is_always_found(batch: list[list[int]]) -> None:
    stem = [7, 8, 9, 7, 8, 9, 7, 8, 9]
    family = [stem + prompt for prompt in batch][:20]
    found = stems(family, STORE)
    if len(family) >= SIBLINGS:
        assert found
        assert sum(len(members) for _, members in found) >= SIBLINGS
    else:
        assert not found


def test_few_or_short_beginnings_are_left_alone() -> None:
    stem = list(range(20))
    assert not stems([[*stem, n] for n in range(SIBLINGS - 1)], STORE)
    assert not stems([[1, 2, 3, 4, 5, 6, 7, n] for n in range(20)], STORE)
    assert stems([[*stem, n] for n in range(SIBLINGS)], STORE) == [(20, list(range(SIBLINGS)))]
