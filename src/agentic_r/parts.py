"""What a config names, opened: questions, corpus, agent, judge and the untouched retriever.

The loop and the verbs of the command line get their parts here, so that each is opened in one
way. Heavy modules are imported when the part is asked for.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgspec

from agentic_r.config import Config
from agentic_r.data.corpus import Corpus
from agentic_r.data.hub import fetched
from agentic_r.data.questions import Questions, hops, load_questions
from agentic_r.errors import ConfigError, DataError, LLMError
from agentic_r.io import digest_file, fingerprint
from agentic_r.protocols import LLM, AnnotatedJudge, Judge, JudgeRequest, SubAnswers
from agentic_r.types import Question, Trajectory
from agentic_r.utility.judge import LLMJudge
from agentic_r.utility.prompting import close
from agentic_r.waiting import wait
from agentic_r.world import SPLITS, Sizes, World, generate

if TYPE_CHECKING:
    from agentic_r.retriever.encoder import Encoder


TRIAL = JudgeRequest(
    question="In which country is Paris?",
    answers=("France",),
    query="country of Paris",
    subanswer="France",
    trajectory="<search> country of Paris </search>",
    passages=("Paris is the capital of France.", "Bread is made of flour and water."),
)
"""What a judge is asked before the run relies on it."""


@dataclass(frozen=True)
class Data:
    """A corpus and its questions by split."""

    corpus: Corpus
    train: Questions
    dev: Questions
    test: Questions
    about: str

    @cached_property
    def digests(self) -> dict[str, str]:
        """Digests of the corpus and of each split: what a stage names as its inputs."""
        digests = {"corpus": self.corpus.digest}
        for name in SPLITS:
            digests[name] = fingerprint(list(getattr(self, name)))
        return digests


def open_corpus(config: Config) -> tuple[Corpus, str]:
    """Make the world's passages, or read the user's; returns them and what they are in words."""
    if config.data.source == "world":
        return _world(config).corpus, _ABOUT_WORLD
    return Corpus.load(fetched(config.data.corpus)), Path(config.data.corpus).name


def open_data(config: Config) -> Data:
    """Make the world, or read the user's files; raises DataError where they are unusable."""
    if config.data.source == "world":
        world = _world(config)
        train, dev, test = (Questions(world.questions[name]) for name in SPLITS)
        return Data(world.corpus, train, dev, test, _ABOUT_WORLD)
    require_questions(config)
    corpus, about = open_corpus(config)
    questions = load_questions(fetched(config.data.questions))
    if config.data.test:
        test = load_questions(fetched(config.data.test))
        dev, train = questions.split(0.1, None, seed=config.seed)
    else:
        dev, test, train = questions.split(0.1, 0.3, None, seed=config.seed)
    for name, part in (("train", train), ("test", test)):
        if not part:
            roots = {each.metadata.get("root", each.id) for each in questions}
            raise DataError(
                f"{config.data.questions}: {len(questions)} questions of {len(roots)} roots leave "
                f"none for {name}, and those of one metadata.root stay together; give questions of "
                "more roots, or a test file with --data.test"
            )
    check_gold(corpus, [*train, *dev, *test])
    return Data(corpus, train, dev, test, about)


def open_passages(config: Config) -> Data:
    """Open what training on a given file needs: the corpus, and questions where any are named."""
    if config.data.source == "world" or config.data.questions:
        return open_data(config)
    corpus, about = open_corpus(config)
    return Data(corpus, Questions(), Questions(), Questions(), about)


def require_questions(config: Config) -> None:
    """Refuse, with a ConfigError, a config without questions: an index alone needs none."""
    if config.data.source == "files" and not config.data.questions:
        raise ConfigError(
            "data.questions: got nothing, expected a file of training questions; give "
            "--data.questions FILE (agentic-r index, search, serve and train with --examples do "
            "without, and evaluate where evaluation.datasets names its own)"
        )


_ABOUT_WORLD = "a generated world of invented people, companies, cities, films and novels"


def _world(config: Config) -> World:
    sizes = Sizes(**{name: getattr(config.world, name) for name in Sizes.__annotations__})
    return generate(config.seed, sizes)


def check_gold(corpus: Corpus, questions: Sequence[Question]) -> None:
    """Refuse hops that name passages which the corpus does not hold, with a DataError."""
    for question in questions:
        for hop in hops(question):
            if hop.passage_id and hop.passage_id not in corpus:
                raise DataError(
                    f"question {question.id}: hop {hop.index + 1} names passage "
                    f"{hop.passage_id!r}, which the corpus does not hold; "
                    "give the corpus that the annotation was made for"
                )


def gold_known(questions: Sequence[Question]) -> bool:
    """Say whether any question names the passage of a hop, which the oracle and hit@3 need."""
    return any(hop.passage_id for question in questions for hop in hops(question))


def open_encoder(config: Config) -> Encoder:
    """Load the untouched encoder, read as the table `retriever.encoder` says."""
    return load_encoder(config, config.retriever.base)


def load_encoder(config: Config, name: str) -> Encoder:
    """Load the untouched encoder by name, or a trained one by its folder.

    A trained one was saved with what the untouched one was changed to.
    """
    from agentic_r.retriever.encoder import Encoder

    settings = config.retriever.encoder
    changes: dict[str, Any] = {}
    if name == config.retriever.base:
        given = msgspec.structs.asdict(settings)
        changes = {k: v for k, v in given.items() if k != "dtype" and v not in ("auto", 0)}
        if "normalise" in changes:
            changes["normalise"] = changes["normalise"] == "yes"
    return Encoder.load(
        name,
        max_length=config.retriever.max_length or None,
        batch_tokens=config.retriever.batch_tokens,
        dtype=settings.dtype,
        changes=changes,
    )


def open_agent(config: Config, data: Data, log: Path | None = None) -> tuple[LLM, str]:
    """Return the agent's language model and what identifies it among a stage's inputs."""
    if config.agent.model == "oracle-reader":
        from agentic_r.testing import OracleReader

        if config.agent.dialect not in OracleReader.dialects:
            raise ConfigError(
                f"agent.dialect: got {config.agent.dialect!r} with agent.model oracle-reader, "
                f"expected one of {', '.join(OracleReader.dialects)}; take one of them, or a model"
            )
        questions = [*data.train, *data.dev, *data.test]
        return OracleReader(questions), f"oracle-reader:{fingerprint(questions)}"
    from agentic_r.agent.agent import open_llm

    return open_llm(config.agent, log), agent_key(config)


def open_judge(config: Config, data: Data, log: Path | None = None) -> tuple[Judge, SubAnswers]:
    """Return the judge of relevance and the source of sub-answers.

    Raises ConfigError where the sub-answers are to come from annotated hops and there are none.
    """
    from agentic_r.utility.judges import open_judge as open_named
    from agentic_r.utility.judges import open_subanswers

    annotated = config.given.sub_answers or any(hops(question) for question in data.train)
    if config.data.sub_answers == "hops" and not annotated:
        raise ConfigError(
            "data.sub_answers = hops, but no training question has metadata.hops; annotate them, "
            "give files as given.sub_answers, or set data.sub_answers = judge and utility.judge to "
            "the URL of a chat model"
        )
    store = judge_cache(config)
    judge = open_named(config.utility, store=store, log=log)
    return judge, open_subanswers(config.utility, config.data.sub_answers, judge, store=store)


def judge_cache(config: Config) -> Path | None:
    """Return the file that keeps what judges have said, None where it is off."""
    if config.utility.cache == "off":
        return None
    if config.utility.cache == "auto":
        return Path(config.runs) / "cache" / "judges.sqlite"
    return Path(config.utility.cache)


def check_servers(config: Config, data: Data, llm: LLM, *, agent: bool, judge: bool) -> None:
    """Try the agent's and the judge's server, before any long work is done for them.

    Raises LLMError, naming the setting, where one is down or cannot do its part, and ConfigError
    where the agent's model lacks what its dialect needs, and as `open_judge` does.
    """

    async def tried(key: str, trial: Coroutine[Any, Any, object], part: object) -> None:
        try:
            await trial
        except LLMError as error:
            raise type(error)(f"{key}: {error}") from error
        finally:
            await close(part)

    async def whole() -> None:
        if agent:
            await tried("agent.model", _able(config, llm), llm)
        if judge:
            found, _ = open_judge(config, data)
            found = getattr(found, "judge", found)  # the server itself, not what it once said
            if not isinstance(found, AnnotatedJudge):
                await tried("utility.judge", _graded(found), found)

    wait(whole())


async def _able(config: Config, llm: LLM) -> None:
    """Probe the agent's model and refuse it where it lacks what the dialect needs."""
    from agentic_r.agent.agent import open_dialect
    from agentic_r.agent.needs import needed, require

    spoken = open_dialect(config.agent, llm)
    prompt = spoken.prompt(Trajectory("trial", Question("trial", TRIAL.question, ())))
    names = needed(prompt, sorted(getattr(spoken, "needs", ())))
    asked: Any = llm
    if not hasattr(llm, "capabilities"):
        # It says nothing of itself, so it takes text alone; it may be down all the same.
        probe = getattr(llm, "probe", None)
        if probe is not None:
            await probe()
        asked = SimpleNamespace(name=config.agent.model)
    await require(asked, names, f"agent.dialect {config.agent.dialect}")


async def _graded(judge: Judge) -> None:
    scores = await judge.relevance(TRIAL)
    if None in scores:
        raise LLMError(
            "the judge was asked to grade two passages and wrote nothing that reads as two "
            "numbers; take a model that follows instructions, or raise utility.judge_tokens"
        )
    right, wrong = (score or 0.0 for score in scores)
    if isinstance(judge, LLMJudge) and right <= wrong:
        raise LLMError(
            f"the judge graded the passage that answers {TRIAL.query!r} with {right:g} of 100 and "
            f"one about bread with {wrong:g}, expected more for the first; take a model that can "
            "tell them apart, or ask it in other words (utility.judge_prompt_file)"
        )


def agent_key(config: Config) -> str:
    """Return what identifies the agent's model: a digest of its files, else its name."""
    from agentic_r.agent.agent import TINY, VLLM, tiny_checkpoint

    model = config.agent.model
    if model.startswith(VLLM):
        inner = msgspec.structs.replace(config.agent, model=model.removeprefix(VLLM))
        return f"vllm|{agent_key(msgspec.structs.replace(config, agent=inner))}"
    if config.agent.name and model.startswith(("http://", "https://")):
        return f"server|{config.agent.name}"
    folder = tiny_checkpoint() if model == TINY else Path(model)
    if not folder.is_dir():
        return f"{model}|{config.agent.name}"
    files = [p for p in sorted(folder.iterdir()) if p.is_file() and p.name != "training.json"]
    return fingerprint([(path.name, digest_file(path)) for path in files])
