from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pytest

from agentic_r.evaluation.benchmark import Record, Row, summarise
from agentic_r.evaluation.table import Measured, averages, grid_table, with_intervals, written


def cell(retriever: str, dataset: str, rate: float, count: int = 40) -> Measured:
    draw = random.Random(f"{retriever}{dataset}")
    records = [
        Record(dataset, str(n), str(n), float(draw.random() < rate), 0.5, 2, stop="answered")
        for n in range(count)
    ]
    row = with_intervals(
        summarise(records, f"a + {retriever} on {dataset}", 3, 1.5), records, 300, 0
    )
    row = msgspec.structs.replace(row, agent="a", retriever=retriever, dataset=dataset)
    return Measured(row, records, Path(dataset))


def test_every_measured_figure_has_an_interval_around_it() -> None:
    row = cell("r", "nq", 0.4).row
    assert set(row.intervals) == {"em", "f1", "searches", "unfinished"}
    low, high = row.intervals["em"]
    assert low < row.em < high
    assert row.intervals["f1"] == (0.5, 0.5)


def test_an_average_counts_every_data_set_alike() -> None:
    done = [cell("r", "nq", 0.2, 200), cell("r", "popqa", 0.8, 20), cell("s", "nq", 0.5)]
    (average,) = averages(done, 300, 0)
    assert average.average
    assert average.row.name == "a + r on average"
    assert average.row.em == pytest.approx((done[0].row.em + done[1].row.em) / 2)
    assert (average.row.n, average.row.seconds) == (220, 3.0)
    low, high = average.row.intervals["em"]
    assert low < average.row.em < high
    # As loose as its parts allow: half the spread of the small set, nearly.
    small = done[1].row.intervals["em"]
    assert high - low < small[1] - small[0]


def test_what_one_data_set_lacks_the_average_lacks() -> None:
    one, two = cell("r", "nq", 0.4), cell("r", "popqa", 0.4)
    records = [msgspec.structs.replace(record, tokens=9) for record in one.records]
    one = Measured(msgspec.structs.replace(one.row, tokens=9.0), records, one.folder)
    (average,) = averages([one, two], 50, 0)
    assert average.row.tokens is None
    assert "tokens" not in average.row.intervals


def test_the_print_shows_what_some_row_has() -> None:
    done = [cell("r", "nq", 0.4), cell("s", "nq", 0.4)]
    done[0] = done[0]._replace(row=msgspec.structs.replace(done[0].row, tokens=1234.5))
    text = grid_table([held.row for held in done])
    lines = text.splitlines()
    assert lines[0] == "nq"
    assert lines[1].split() == ["EM", "F1", "searches", "tokens", "unfin.", "seconds", "n"]
    assert lines[2].startswith("a + r")
    assert "1,234" in lines[2]
    assert "\N{EN DASH}" in lines[3]
    assert lines[4].split()[-4] == "-"
    assert len({len(line) for line in (lines[1], lines[2], lines[4])}) == 1


def test_written() -> None:
    assert written("em", 0.1234) == "12.3"
    assert written("em", None) == "-"
    assert written("searches", 2.345) == "2.35" or written("searches", 2.345) == "2.34"
    assert Row("n", 1, 0, 0, None, 0, 0, 1).intervals == {}
