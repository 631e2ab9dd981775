"""Train the retriever of a search agent on what really helped the agent.

The names below are all there is to learn; the modules that define them are imported when a name
is first used, so that `import agentic_r` is light and needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentic_r.agent.agent import SearchAgent
    from agentic_r.agent.local import LocalLLM
    from agentic_r.agent.remote import RemoteLLM
    from agentic_r.api import label, select
    from agentic_r.config import load_config
    from agentic_r.data.corpus import Corpus
    from agentic_r.data.datasets import Source, load_beir, load_datasets
    from agentic_r.data.questions import Questions, load_questions
    from agentic_r.errors import (
        AgenticRError,
        ConfigError,
        ContextError,
        DataError,
        JudgeError,
        LLMError,
        MismatchError,
        MissingExtraError,
        OutageError,
        RunError,
    )
    from agentic_r.evaluation.compare import Comparison, compare
    from agentic_r.evaluation.significance import Contest, contest
    from agentic_r.evaluation.trec import measure_retriever
    from agentic_r.metrics import exact_match, f1
    from agentic_r.protocols import (
        LLM,
        Capabilities,
        ChatLLM,
        Completion,
        Conversation,
        Dialect,
        Judge,
        JudgeRequest,
        Message,
        Retriever,
        Reward,
        Sampling,
        SubAnswers,
        Tool,
        ToolCall,
    )
    from agentic_r.retriever.bm25 import BM25Retriever
    from agentic_r.retriever.dense import DenseRetriever
    from agentic_r.retriever.encoder import Encoder
    from agentic_r.retriever.oracle import OracleRetriever
    from agentic_r.settings import Config
    from agentic_r.types import (
        Candidate,
        Example,
        Hit,
        Passage,
        Question,
        Search,
        Trajectory,
        Turn,
        Utility,
    )
    from agentic_r.utility.by_rule import ContainmentJudge, GoldJudge, OfflineJudge
    from agentic_r.utility.judge import LLMJudge
    from agentic_r.utility.labelled import Labels

__version__ = "0.1.0"

__all__ = [
    "LLM",
    "AgenticRError",
    "BM25Retriever",
    "Candidate",
    "Capabilities",
    "ChatLLM",
    "Comparison",
    "Completion",
    "Config",
    "ConfigError",
    "ContainmentJudge",
    "Contest",
    "ContextError",
    "Conversation",
    "Corpus",
    "DataError",
    "DenseRetriever",
    "Dialect",
    "Encoder",
    "Example",
    "GoldJudge",
    "Hit",
    "Judge",
    "JudgeError",
    "JudgeRequest",
    "LLMError",
    "LLMJudge",
    "Labels",
    "LocalLLM",
    "Message",
    "MismatchError",
    "MissingExtraError",
    "OfflineJudge",
    "OracleRetriever",
    "OutageError",
    "Passage",
    "Question",
    "Questions",
    "RemoteLLM",
    "Retriever",
    "Reward",
    "RunError",
    "Sampling",
    "Search",
    "SearchAgent",
    "Source",
    "SubAnswers",
    "Tool",
    "ToolCall",
    "Trajectory",
    "Turn",
    "Utility",
    "__version__",
    "compare",
    "contest",
    "exact_match",
    "f1",
    "label",
    "load_beir",
    "load_config",
    "load_datasets",
    "load_questions",
    "measure_retriever",
    "select",
]

_HOMES = {
    "agent.agent": "SearchAgent",
    "agent.local": "LocalLLM",
    "agent.remote": "RemoteLLM",
    "api": "label select",
    "config": "load_config",
    "data.corpus": "Corpus",
    "data.datasets": "Source load_beir load_datasets",
    "data.questions": "Questions load_questions",
    "errors": "AgenticRError ConfigError ContextError DataError JudgeError LLMError MismatchError "
    "MissingExtraError OutageError RunError",
    "evaluation.compare": "Comparison compare",
    "evaluation.significance": "Contest contest",
    "evaluation.trec": "measure_retriever",
    "metrics": "exact_match f1",
    "protocols": "LLM Capabilities ChatLLM Completion Conversation Dialect Judge JudgeRequest "
    "Message Retriever Reward Sampling SubAnswers Tool ToolCall",
    "retriever.bm25": "BM25Retriever",
    "retriever.dense": "DenseRetriever",
    "retriever.encoder": "Encoder",
    "retriever.oracle": "OracleRetriever",
    "settings": "Config",
    "types": "Candidate Example Hit Passage Question Search Trajectory Turn Utility",
    "utility.by_rule": "ContainmentJudge GoldJudge OfflineJudge",
    "utility.judge": "LLMJudge",
    "utility.labelled": "Labels",
}
_WHERE = {name: module for module, names in _HOMES.items() for name in names.split()}

_EXTRAS = {
    "torch": "local",
    "transformers": "local",
    "faiss": "local",
    "bm25s": "local",
    "Stemmer": "local",
}
"""Optional dependencies and the extra that brings them."""


def __getattr__(name: str) -> Any:
    """Import the module of a public name when the name is first used (PEP 562)."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        from agentic_r.errors import MissingExtraError

        raise MissingExtraError(str(error.name), extra) from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
