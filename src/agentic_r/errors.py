"""The errors that a user can meet, each one clear line: what was got, expected, to be done.

AgenticRError            exit code 1
├── DataError            a file that is missing, malformed, empty or full of duplicates
├── ConfigError          exit code 2: a key, value or override that cannot be
├── RunError             a run folder that refuses: changed settings, another process
├── MismatchError        two artefacts that do not belong together (checkpoint, index)
└── LLMError             a language model that answered nonsense, or too late
    ├── ContextError     a prompt that is longer than the model reads
    ├── JudgeError       a judge that cannot score one request; the server is not at fault
    └── OutageError      a language model server that is down: the run stops and can be resumed
"""

from __future__ import annotations


class AgenticRError(Exception):
    """Base of every error that the program reports in one line."""

    exit_code = 1


class DataError(AgenticRError):
    """A data file is missing, malformed, empty, or has duplicate ids."""


class ConfigError(AgenticRError):
    """A configuration cannot be used; the program exits with 2."""

    exit_code = 2


class RunError(AgenticRError):
    """A run folder refuses: other settings, another process, a damaged manifest."""


class MismatchError(AgenticRError):
    """Two artefacts do not belong together, such as an index and another encoder."""


class LLMError(AgenticRError):
    """A language model could not be reached or answered nonsense."""


class ContextError(LLMError):
    """A prompt is longer than the model reads: how a trajectory can end, and no fault of a call."""


class OutageError(LLMError):
    """A language model server is down or overloaded, which is no single question's fault.

    It stops the run, where other language model errors count as one failed question, so that
    the same command can go on once the server is back.
    """


class JudgeError(LLMError):
    """A judge cannot score one request, whose search counts as not measured.

    It has nothing to score it by, or wrote twice what cannot be read. That is no fault of the
    server, and asking again would end the same.
    """


class MissingExtraError(AgenticRError):
    """An optional dependency is not installed."""

    def __init__(self, module: str, extra: str) -> None:
        super().__init__(
            f"{module} is not installed; install it with: pip install 'agentic-r[{extra}]'"
        )
