from __future__ import annotations

import pytest

from agentic_r.agent.guard import collapsed, invalid_rate, repeated
from agentic_r.settings import GuardConfig
from agentic_r.types import Question, Trajectory, Turn

CALM = {"entropy": 0.5, "kl": 0.01, "written": 50.0, "invalid": 0.1, "repeated": 0.02}
CONFIG = GuardConfig(patience=2, entropy=0.1, kl=0.5, length=3.0, invalid=0.3, repeated=0.4)


def history(**last: float) -> list[dict[str, float]]:
    return [CALM, CALM, CALM, CALM | last, CALM | last]


@pytest.mark.parametrize(
    ("last", "said"),
    [
        ({"entropy": 0.02}, "entropy is 0.02, expected at least 0.1 nats a token"),
        ({"kl": 0.9}, "kl is 0.9, expected at most 0.5"),
        ({"kl": -0.9}, "kl is -0.9"),
        ({"written": 200.0}, "written is 200, expected at most 150 tokens"),
        ({"invalid": 0.6}, "invalid is 0.6, expected at most 40% of the turns"),
        ({"repeated": 0.7}, "repeated is 0.7, expected at most 40%"),
    ],
)
def test_each_guard_names_what_it_saw(last: dict[str, float], said: str) -> None:
    assert said in collapsed(history(**last), CONFIG)
    assert collapsed(history(**last), GuardConfig(on_collapse="ignore", patience=2)) == ""


def test_a_calm_training_and_one_bad_step_pass() -> None:
    assert collapsed(history(), CONFIG) == ""
    assert collapsed([*history(), CALM | {"kl": 0.6}], CONFIG) == ""
    assert collapsed([CALM | {"kl": 9.0}], CONFIG) == ""


def trajectory(*turns: Turn) -> Trajectory:
    return Trajectory("1", Question("1", "?", ("x",)), turns)


def test_rates() -> None:
    loop = Turn("x", "length", tokens=tuple([1, 2] * 10))
    fine = Turn("x", "search", tokens=tuple(range(20)))
    assert invalid_rate([trajectory(fine, loop), trajectory(fine, fine)]) == 0.25
    assert repeated([trajectory(fine)]) == 0.0
    assert repeated([trajectory(loop)]) == pytest.approx(11 / 13)  # 13 grams, 2 different
    assert repeated([trajectory(Turn("x", "answer", tokens=(1, 2)))]) == 0.0
