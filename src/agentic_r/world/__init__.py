"""The generated world of the quickstart: entities, passages, questions with gold hops."""

from agentic_r.world.generate import Sizes, World, generate
from agentic_r.world.names import AGENT, HELD_OUT, Pool

__all__ = ["AGENT", "HELD_OUT", "Pool", "Sizes", "World", "generate"]
