"""A search agent: a language model, a retriever and the protocol between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from tqdm import tqdm

from agentic_r.agent.dialects import dialect as find_dialect
from agentic_r.agent.dialects.limits import token_ruler
from agentic_r.agent.query import check
from agentic_r.agent.rollout import run_rollout
from agentic_r.config import AgentConfig
from agentic_r.errors import ConfigError, LLMError
from agentic_r.protocols import LLM, Dialect, Retriever, Sampling
from agentic_r.types import Question, Trajectory

TINY = "tiny"
OnRows = Callable[[list[Trajectory]], None]


class SearchAgent:
    """Answers questions by searching, turn by turn.

    `llm` is a model, or what names one: "tiny", a folder, a hub name, an http:// address.
    `dialect` is a protocol or its name; `k` passages are shown per search; `form` is what the
    retriever is sent (`agent/query.py`). `turns` and `max_tokens` bound the model calls and the
    new tokens of each; 0 turns are the dialect's own budget. Temperature 0 decodes greedily.
    `chunk` trajectories are carried at once, and a chunk's results do not depend on the chunks
    before it. `prompt_file`, `invalid_file` and `chat` are as in `dialects.dialect`.
    """

    def __init__(
        self,
        llm: LLM | str,
        retriever: Retriever,
        dialect: Dialect | str = "search-r1",
        *,
        k: int = 3,
        form: str = "query",
        turns: int = 0,
        max_tokens: int = 512,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        chunk: int = 128,
        prompt_file: str | Path = "",
        invalid_file: str | Path = "",
        chat: bool = False,
    ) -> None:
        self.llm: LLM = open_llm(AgentConfig(model=llm)) if isinstance(llm, str) else llm
        self.retriever = retriever
        if isinstance(dialect, str):
            dialect = find_dialect(
                dialect,
                prompt_file,
                getattr(self.llm, "template", None),
                turns=turns,
                chat=chat,
                invalid_file=invalid_file,
                ruler=token_ruler(self.llm),
            )
        if k < 1 or turns < 0 or chunk < 1 or max_tokens < 1:
            raise ConfigError(
                f"got k={k}, turns={turns}, max_tokens={max_tokens}, chunk={chunk}; "
                "expected at least 1 of each, or turns=0 for the dialect's own"
            )
        check(form)
        self.dialect = dialect
        self.k = k
        self.form = form
        self.turns = turns or dialect.turns
        self.sampling = Sampling(max_tokens, dialect.stop, temperature, top_p, seed)
        self.chunk = chunk

    @classmethod
    def from_config(
        cls, config: AgentConfig, retriever: Retriever, *, llm: LLM | None = None, **settings: Any
    ) -> SearchAgent:
        """Make the agent that a config describes; `settings` are k, form, seed and the like."""
        return cls(
            llm or open_llm(config),
            retriever,
            config.dialect,
            turns=config.turns,
            max_tokens=config.max_tokens,
            prompt_file=config.prompt_file,
            invalid_file=config.invalid_file,
            chat=config.chat,
            **{"chunk": 2 * config.batch, **settings},
        )

    def run(
        self,
        questions: Sequence[Question],
        *,
        on_rows: OnRows | None = None,
        progress: str | None = None,
        sample: int = 0,
    ) -> list[Trajectory]:
        """Answer every question; one trajectory each, in order.

        `on_rows` gets each chunk as it is finished. `progress` names a progress bar. A model
        call that failed ends its trajectory with stop "error"; where a whole chunk failed, the
        model is down and LLMError is raised.
        """
        starts = [Trajectory(trajectory_id(question, sample), question) for question in questions]
        return self.continue_(starts, on_rows=on_rows, progress=progress)

    def continue_(
        self,
        starts: Sequence[Trajectory],
        *,
        on_rows: OnRows | None = None,
        progress: str | None = None,
        forget: bool = True,
    ) -> list[Trajectory]:
        """Carry any starts to their ends (see `rollout`); results in the order of the starts.

        With `forget` a local model first drops what it knows of earlier prompts, so that the
        results are the same, to the bit, whatever was run before. Calls that belong to one unit
        of work, restarted as a whole, may keep it and be faster.
        """
        done: list[Trajectory] = []
        with tqdm(total=len(starts), desc=progress, unit="q", disable=progress is None) as bar:
            for chunk in _chunks(starts, self.chunk):
                if forget:
                    getattr(self.llm, "forget", _nothing)()
                rows = self._carry(chunk)
                _refuse_total_failure(chunk, rows)
                if on_rows is not None:
                    on_rows(rows)
                done.extend(rows)
                bar.update(len(rows))
        return done

    def using(
        self, retriever: Retriever | None = None, *, form: str | None = None, k: int | None = None
    ) -> SearchAgent:
        """Return the same agent with another retriever, form or k; this one is not changed."""
        return SearchAgent(
            self.llm,
            retriever or self.retriever,
            self.dialect,
            k=self.k if k is None else k,
            form=self.form if form is None else form,
            turns=self.turns,
            max_tokens=self.sampling.max_tokens,
            temperature=self.sampling.temperature,
            top_p=self.sampling.top_p,
            seed=self.sampling.seed or 0,
            chunk=self.chunk,
        )

    def _carry(self, starts: Sequence[Trajectory]) -> list[Trajectory]:
        return run_rollout(
            self.llm,
            self.retriever,
            starts,
            self.dialect,
            k=self.k,
            form=self.form,
            turns=self.turns,
            sampling=self.sampling,
        )


def trajectory_id(question: Question, sample: int = 0) -> str:
    """Name the trajectory number `sample` of a question; ids repeat only between data sets."""
    name = f"{question.dataset}/{question.id}" if question.dataset else question.id
    return f"{name}#{sample}" if sample else name


def open_llm(config: AgentConfig) -> LLM:
    """Open the model that a config names: "tiny", a folder, a hub name or an http:// address.

    Raises ConfigError for what cannot be opened; "oracle-reader" needs the questions and is made
    from `agentic_r.testing.OracleReader` by whoever has them.
    """
    if config.model.startswith(("http://", "https://")):
        from agentic_r.agent.remote import RemoteLLM

        return RemoteLLM(
            config.model,
            config.name,
            concurrency=config.concurrency,
            timeout=config.timeout,
            api_key_env=config.api_key_env,
        )
    if config.model == "oracle-reader":
        raise ConfigError(
            "agent.model oracle-reader follows the hops of given questions; make it with "
            "agentic_r.testing.OracleReader(questions) and pass it as the model"
        )
    from agentic_r.agent.local import LocalLLM

    name = str(tiny_checkpoint()) if config.model == TINY else config.model
    return LocalLLM(name, batch=config.batch)


def open_dialect(config: AgentConfig, llm: LLM) -> Dialect:
    """Make the protocol that a config names, for its model; raises ConfigError as `dialect`."""
    return find_dialect(
        config.dialect,
        config.prompt_file,
        getattr(llm, "template", None),
        turns=config.turns,
        chat=config.chat,
        invalid_file=config.invalid_file,
        ruler=token_ruler(llm),
    )


def tiny_checkpoint() -> Path:
    """Return the folder of the checkpoint that ships with the package."""
    folder = Path(str(resources.files("agentic_r") / "checkpoints" / "tiny-agent"))
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"agent.model tiny: the packaged checkpoint is missing ({folder}); install the "
            "package anew, or make it with: python -m agentic_r.agent.tiny --out DIR"
        )
    return folder


def _chunks(starts: Sequence[Trajectory], size: int) -> Iterator[Sequence[Trajectory]]:
    for start in range(0, len(starts), size):
        yield starts[start : start + size]


def _refuse_total_failure(starts: Sequence[Trajectory], rows: Sequence[Trajectory]) -> None:
    """Raise LLMError where not one model call of a chunk succeeded."""
    tried = [row for start, row in zip(starts, rows, strict=True) if start.stop is None]
    if len(tried) > 1 and all(row.stop == "error" for row in tried):
        raise LLMError(f"all {len(tried)} trajectories failed; the first: {tried[0].error}")


def _nothing() -> None:
    """Stand in for a model that has nothing to forget."""
