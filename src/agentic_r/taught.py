"""Training the retriever on a file of examples: `train CONFIG retriever --examples FILE`.

The corpus is enough for it; a file that holds texts needs nothing but itself. Examples of the run's
dev and test questions are not learned from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from agentic_r.config import Config
from agentic_r.data.corpus import Corpus
from agentic_r.data.questions import Questions
from agentic_r.dev import dev_hops
from agentic_r.errors import ConfigError, DataError
from agentic_r.exchange.counting import lines
from agentic_r.exchange.ids import is_number
from agentic_r.exchange.training_sets import by_row_number, check_ids, read_training_set
from agentic_r.learning import check_training, refuse_choice, trained
from agentic_r.parts import Data, open_data, open_encoder, open_passages
from agentic_r.protocols import SEPARATOR
from agentic_r.stage import Run
from agentic_r.steps import Workspace
from agentic_r.types import Example, Question

UNREASONED = (
    "with this retriever.input the hops of dev questions are asked without the agent's reasoning, "
    "and what is best without it need not be best with it"
)


def train_on(
    run: Run,
    config: Config,
    path: Path | str,
    form: str = "ours",
    *,
    row_numbers: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Path:
    """Train the base encoder on a file of examples; returns the stage's folder `given/retriever`.

    `form` is a format of `exchange.training_sets`; with `row_numbers` its passages are rows of
    the corpus, as upstream names them. Neither questions nor an agent are needed, and a format
    that holds texts brings its own passages; dev hit@k is measured with `hold_out` alone then.
    Examples of the run's dev and test questions are left out; `say` hears how many.
    Raises DataError where the file is malformed, names passages that the corpus does not have or
    is about dev and test questions alone, ConfigError for settings that do not go with it,
    RunError where another file was trained on before.
    """
    base = open_encoder(config)
    check_training(config, base)
    if config.retriever.input == "question+reasoning+query":
        refuse_choice(config.retriever.train, UNREASONED)
    left = Counter[str]()
    examples, passages = read_training_set(path, form, left=left)
    for line in lines(left):
        say(f"Left out: {line}")
    if passages:
        _refuse_unfit_texts(config, form, row_numbers)
        about = f"the passages of {Path(path).name}"
        data = Data(Corpus([*passages.values()]), Questions(), Questions(), Questions(), about)
        own = open_data(config) if config.data.source == "world" or config.data.questions else data
    else:
        own = data = open_passages(config)
        examples = of_corpus(config, examples, data.corpus, say, row_numbers=row_numbers)
    examples = not_held_out(path, examples, [*own.dev, *own.test], say)
    dev = dev_hops(data.dev, config.retriever.input)
    trained(Workspace(run, config, data), "given/retriever", examples, base, base, dev)
    return run.folder / "given" / "retriever"


def _refuse_unfit_texts(config: Config, form: str, row_numbers: bool) -> None:
    """Refuse what goes with passages of a corpus alone, where a file brings its own."""
    if row_numbers:
        raise ConfigError(
            f"--row-numbers: the format {form} holds its passages itself, so that no row of a "
            "corpus is meant; leave it out"
        )
    why = f"the format {form} brings its own passages, which dev questions do not name"
    refuse_choice(config.retriever.train, why)


def of_corpus(
    config: Config,
    examples: list[Example],
    corpus: Corpus,
    say: Callable[[str], None],
    *,
    row_numbers: bool,
) -> list[Example]:
    """Return the examples of a file with ids of the corpus; `say` hears how numbers are read.

    Raises DataError for a passage that the corpus does not have.
    """
    try:
        examples = by_row_number(examples, corpus) if row_numbers else examples
        check_ids(examples, corpus)
    except DataError as error:
        if config.data.source != "world":
            raise
        raise DataError(
            f"{error}. The corpus is the generated world, for the config names no other: give "
            "--data.source files --data.corpus FILE"
        ) from error
    if not row_numbers and all(
        is_number(id) for each in examples for id in (*each.positives, *each.negatives)
    ):
        say("Passages are read as ids of the corpus; if they are row numbers, say --row-numbers")
    return examples


def not_held_out(
    path: Path | str,
    examples: Sequence[Example],
    questions: Sequence[Question],
    say: Callable[[str], None],
) -> list[Example]:
    """Leave out the examples of a file that are of dev or test questions; `say` hears how many.

    Raises DataError where none is left.
    """
    texts = {_words(question.text) for question in questions}
    ids: dict[str, list[Question]] = {}
    for question in questions:
        ids.setdefault(question.id, []).append(question)

    def held(example: Example) -> bool:
        if _words(example.query.partition(SEPARATOR)[0]) in texts:
            return True
        # Some formats number the searches of a question.
        names = dict.fromkeys([example.question_id, example.question_id.rpartition("#")[0]])
        return any(_is_of(example, each) for name in names for each in ids.get(name, ()))

    kept = [example for example in examples if not held(example)]
    if not kept:
        raise DataError(
            f"{path}: all of its {len(examples):,} examples are of dev or test questions of this "
            "run, expected others; give a file made from training questions"
        )
    if len(kept) < len(examples):
        say(
            f"Left out: {len(examples) - len(kept):,} of {len(examples):,} examples, which are of "
            "dev or test questions of this run"
        )
    return kept


def _is_of(example: Example, question: Question) -> bool:
    """Say whether an example with the id of a question is of that question.

    Ids repeat between data sets, and files name these as they like: of another data set, or of
    none, it is not where it shows another question, or where its id is a number alone.
    """
    same = example.dataset == question.dataset
    if same and example.dataset:
        return True
    shown, found, _ = example.query.partition(SEPARATOR)
    # What the encoder cannot read may have been cut off.
    if found and not _words(question.text).startswith(_words(shown)):
        return False
    return same or not question.id.isdecimal()


def _words(text: str) -> str:
    return " ".join(text.lower().split())
