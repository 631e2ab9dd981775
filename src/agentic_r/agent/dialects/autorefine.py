"""The AutoRefine protocol: Search-R1 whose evidence is <documents>, refined by the agent.

What the agent writes between <refine> and </refine> is its own text and needs no reading.
"""

from __future__ import annotations

from agentic_r.agent.dialects.search_r1 import SearchR1


class AutoRefine(SearchR1):
    """Prompts, reads and shows evidence to an agent that speaks the AutoRefine protocol."""

    name = "autorefine"
    evidence = "documents"
