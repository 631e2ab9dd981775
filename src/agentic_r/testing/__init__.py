"""Public fakes with real behaviour, for tests and for trying the loop without a large model.

`OracleReader` follows a question's annotated hops; `ScriptedLLM`, `TableRetriever` and
`FixedJudge` do what they are told; `agentic_r.testing.server` is a real HTTP server process.
"""

from agentic_r.testing.fakes import FixedJudge, ScriptedLLM, TableRetriever
from agentic_r.testing.reader import OracleReader

__all__ = ["FixedJudge", "OracleReader", "ScriptedLLM", "TableRetriever"]
