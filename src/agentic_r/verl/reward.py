"""The reward as verl asks for it: the one that the agent loop read from what was sampled.

verl offers the decoded response, in which passages stand beside what the agent wrote. A passage
that holds `<answer>gold</answer>` would earn the full reward there, so the text is never read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentic_r.errors import ConfigError

KEY = "agentic_r_reward"
"""The field of the agent loop's output that holds its reward."""


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    **_: Any,
) -> float:
    """Return the agent loop's reward; raises ConfigError for a row that another loop carried."""
    if extra_info is None or KEY not in extra_info:
        raise ConfigError(
            f"a row of {data_source} has no {KEY}, expected that of agentic_r.verl.loop; leave "
            "agent_name in the data and agent_loop_config_path in the settings as they were written"
        )
    return float(extra_info[KEY])
