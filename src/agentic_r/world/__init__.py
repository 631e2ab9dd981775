"""The generated world of the quickstart: entities, passages, questions with gold hops."""

from agentic_r.world.generate import SPLITS, Sizes, Split, World, generate
from agentic_r.world.names import AGENT, HELD_OUT, Pool

__all__ = ["AGENT", "HELD_OUT", "SPLITS", "Pool", "Sizes", "Split", "World", "generate"]
