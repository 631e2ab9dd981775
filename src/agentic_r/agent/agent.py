"""A search agent: a language model, a retriever and the protocol between them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from agentic_r.agent.dialects import dialect as find_dialect
from agentic_r.agent.dialects.limits import token_ruler
from agentic_r.agent.engine import OnRows
from agentic_r.agent.needs import capabilities
from agentic_r.agent.progress import Progress
from agentic_r.agent.query import check
from agentic_r.agent.rollout import OnTurn, run_rollout
from agentic_r.config import AgentConfig
from agentic_r.errors import ConfigError
from agentic_r.protocols import LLM, Completion, Dialect, Retriever, Sampling
from agentic_r.types import Question, Trajectory

TINY = "tiny"
VLLM = "vllm:"
"""What stands before a model's name in `agent.model` where vLLM is to run it."""


class SearchAgent:
    """Answers questions by searching, turn by turn.

    `llm` is a model, or what names one: "tiny", a folder, a hub name, either of them behind
    "vllm:", an http:// address.
    `dialect` is a protocol or its name; `k` passages are shown per search; `form` is what the
    retriever is sent (`agent/query.py`). `turns` and `max_tokens` bound the model calls and the
    new tokens of each; 0 turns are the dialect's own budget. Temperature 0 decodes greedily.
    `chunk` trajectories are under way at once; of a model whose floats depend on the batch
    (`Capabilities.independent`) they are carried in fixed chunks, and a chunk's results do not
    depend on those before it. `prompt_file`, `invalid_file` and `chat` are as in
    `dialects.dialect`.
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
        llm = llm or open_llm(config)
        # A server is kept busy while half of what is under way waits for searches.
        many = getattr(llm, "capacity", None) or config.batch
        return cls(
            llm,
            retriever,
            config.dialect,
            turns=config.turns,
            max_tokens=config.max_tokens,
            prompt_file=config.prompt_file,
            invalid_file=config.invalid_file,
            chat=config.chat,
            **{"chunk": 2 * many, **settings},
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

        `on_rows` gets trajectories as they end. `progress` names a progress bar. A model call
        that failed ends its trajectory with stop "error"; where as many as are under way failed
        in a row, or all did, the model is down and LLMError is raised.
        """
        starts = [Trajectory(trajectory_id(question, sample), question) for question in questions]
        return self.continue_(starts, on_rows=on_rows, progress=progress)

    def continue_(
        self,
        starts: Sequence[Trajectory],
        *,
        on_rows: OnRows | None = None,
        on_turn: OnTurn | None = None,
        progress: str | None = None,
        forget: bool = True,
    ) -> list[Trajectory]:
        """Carry any starts to their ends (see `rollout`); results in the order of the starts.

        With `forget` a local model first drops what it knows of earlier prompts, so that the
        results are the same, to the bit, whatever was run before. Calls that belong to one unit
        of work, restarted as a whole, may keep it and be faster.
        """
        with Progress(len(starts), progress) as bar:

            def turned(trajectory: Trajectory, completion: Completion) -> None:
                bar.turn(trajectory, completion)
                if on_turn is not None:
                    on_turn(trajectory, completion)

            def ended(rows: list[Trajectory]) -> None:
                if on_rows is not None:
                    on_rows(rows)
                bar.ended(len(rows))

            if capabilities(self.llm).independent:
                return self._carry(starts, turned, ended, window=self.chunk)
            done: list[Trajectory] = []
            for first in range(0, len(starts), self.chunk):
                if forget:
                    getattr(self.llm, "forget", _nothing)()
                done += self._carry(starts[first : first + self.chunk], turned, ended)
            return done

    def owed(
        self, questions: Sequence[Question], done: Collection[tuple[str, str]]
    ) -> Sequence[Question]:
        """Return the questions to `run` again after a kill, those with the keys `done` kept.

        A chunk that was torn is run whole again, because its results depend on all that is in
        it; where they do not, only what is missing is run.
        """
        if capabilities(self.llm).independent:
            return [question for question in questions if question.key not in done]
        return questions[len(done) // self.chunk * self.chunk :]

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

    def _carry(
        self, starts: Sequence[Trajectory], on_turn: OnTurn, on_rows: OnRows, window: int = 0
    ) -> list[Trajectory]:
        return run_rollout(
            self.llm,
            self.retriever,
            starts,
            self.dialect,
            k=self.k,
            form=self.form,
            turns=self.turns,
            sampling=self.sampling,
            window=window,
            on_turn=on_turn,
            on_rows=on_rows,
        )


def trajectory_id(question: Question, sample: int = 0) -> str:
    """Name the trajectory number `sample` of a question; ids repeat only between data sets."""
    name = f"{question.dataset}/{question.id}" if question.dataset else question.id
    return f"{name}#{sample}" if sample else name


def open_llm(config: AgentConfig, log: Path | None = None) -> LLM:
    """Open the model that a config names: "tiny", a folder, a hub name or an http:// address.

    A name behind "vllm:" is run by vLLM in this process. `log` is where a server's answers are
    kept, so that none is paid for twice. Raises ConfigError for what cannot be opened;
    "oracle-reader" needs the questions and is made from `agentic_r.testing.OracleReader` by
    whoever has them.
    """
    if config.model.startswith(("http://", "https://")):
        from agentic_r.agent.remote import RemoteLLM

        return RemoteLLM(
            config.model,
            config.name,
            concurrency=config.concurrency,
            timeout=config.timeout,
            api_key_env=config.api_key_env,
            retries=config.retries,
            log=log,
            price=config.price,
        )
    if config.model == "oracle-reader":
        raise ConfigError(
            "agent.model oracle-reader follows the hops of given questions; make it with "
            "agentic_r.testing.OracleReader(questions) and pass it as the model"
        )
    if config.model.startswith(VLLM):
        from agentic_r.agent.vllm import VllmLLM

        name = config.model.removeprefix(VLLM)
        name = str(tiny_checkpoint()) if name == TINY else name
        return VllmLLM(name, precision=config.precision)
    from agentic_r.agent.local import LocalLLM

    name = str(tiny_checkpoint()) if config.model == TINY else config.model
    return LocalLLM(name, batch=config.batch, precision=config.precision)


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


def _nothing() -> None:
    """Stand in for a model that has nothing to forget."""
