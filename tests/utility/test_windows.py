from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_r.utility.windows import joined, windows


@given(st.integers(0, 70), st.integers(1, 25), st.integers(0, 6))
def test_every_row_is_shown_and_windows_are_full_but_the_last(
    count: int, size: int, anchors: int
) -> None:
    shown = windows(count, size, anchors)
    assert {row for rows in shown for row in rows} == set(range(count))
    assert all(len(set(rows)) == len(rows) <= size for rows in shown)
    assert all(len(rows) == size for rows in shown[:-1])
    assert len(shown) <= 1 or all(set(rows) & set(shown[0]) for rows in shown) == bool(
        min(anchors, size - 1)
    )
    repeated = sum(len(rows) for rows in shown) - count
    assert repeated == max(0, len(shown) - 1) * min(anchors, size - 1)


def test_what_fits_a_window_is_one_window() -> None:
    assert windows(20, 20, 2) == [list(range(20))]
    assert windows(0, 20, 2) == []
    assert windows(5, 2, 9) == [[0, 1], [0, 2], [0, 3], [0, 4]]
    assert windows(20, 10, 0) == [list(range(10)), list(range(10, 20))], "as upstream has them"
    with pytest.raises(ValueError, match="got 0, expected at least 1"):
        windows(3, 0, 1)


@given(
    st.lists(st.integers(30, 70), min_size=1, max_size=60),
    st.integers(2, 20),
    st.integers(1, 4),
    st.data(),
)
def test_windows_that_differ_by_an_offset_come_out_as_one(
    true: list[int], size: int, anchors: int, data: st.DataObject
) -> None:
    shown = windows(len(true), size, anchors)
    offsets = [0, *(data.draw(st.integers(-30, 30)) for _ in shown[1:])]
    given_ = [
        [float(true[row] + offset) for row in rows]
        for rows, offset in zip(shown, offsets, strict=True)
    ]
    assert joined(shown, given_, len(true)) == true


@given(st.integers(1, 50), st.integers(1, 12), st.integers(0, 3), st.data())
def test_orders_inside_a_window_stay_and_nothing_leaves_the_scale(
    count: int, size: int, anchors: int, data: st.DataObject
) -> None:
    shown = windows(count, size, anchors)
    score = st.one_of(st.none(), st.integers(0, 100).map(float))
    scores = [data.draw(st.lists(score, min_size=len(r), max_size=len(r))) for r in shown]
    result = joined(shown, scores, count)
    assert all(value is None or 0.0 <= value <= 100.0 for value in result)
    first = dict(zip(shown[0], scores[0], strict=True))
    assert all(result[row] == value for row, value in first.items() if value is not None)
    for rows, given_ in zip(shown[1:], scores[1:], strict=True):
        new = [(v, result[r]) for r, v in zip(rows, given_, strict=True) if r not in first]
        for before, after in new:
            assert (before is None) == (after is None)
        known = sorted((b, a) for b, a in new if b is not None and a is not None)
        assert [a for _, a in known] == sorted(a for _, a in known)


def test_an_anchor_that_was_not_read_is_not_used() -> None:
    shown = [[0, 1, 2], [0, 1, 3]]
    assert joined(shown, [[50.0, None, 10.0], [40.0, 90.0, 30.0]], 4) == [50.0, 100.0, 10.0, 40.0]
    assert joined(shown, [[None, None, 10.0], [40.0, 90.0, 30.0]], 4) == [40.0, 90.0, 10.0, 30.0]
