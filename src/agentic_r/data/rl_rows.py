"""Upstream's reinforcement learning rows (contracts A4), from and to parquet files.

A row is {data_source, prompt: [{role, content}], ability, reward_model: {style, ground_truth:
{target}}, extra_info: {split, index}} with the original columns id, question, golden_answers and
metadata beside it, where there are any.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agentic_r.data.questions import Questions, load_questions
from agentic_r.errors import DataError, MissingExtraError
from agentic_r.types import Question

ABILITY = "fact-reasoning"


def load_rl_questions(paths: Sequence[Path | str]) -> Questions:
    """Read several question files (FlashRAG JSON lines or upstream's parquet) as one list.

    The data set of a JSON lines file is its name; a parquet row names its own. Raises DataError
    where two files have a question of the same data set and id.
    """
    seen: dict[tuple[str, str], str] = {}
    found = Questions()
    for path in map(Path, paths):
        parquet = path.suffix == ".parquet"
        name = path.name.removesuffix(".gz").removesuffix(".jsonl")
        for question in read_parquet(path) if parquet else load_questions(path, dataset=name):
            first = seen.setdefault(question.key, str(path))
            if first != str(path):
                raise DataError(
                    f"{path}: got question {question.id!r} of {question.dataset!r}, which {first} "
                    "has too; expected every question once, so name the file otherwise"
                )
            found.append(question)
    return found


def read_parquet(path: Path | str) -> list[Question]:
    """Read upstream's rows. The id is the row's own, else its split and index.

    Raises DataError for a missing file, a row without a question or answers, and a repeated id;
    MissingExtraError where pyarrow is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; check the path")
    parquet = _pyarrow()
    try:
        rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
    except (OSError, ValueError) as error:  # pyarrow's own errors are of these kinds
        raise DataError(f"{path}: cannot be read as parquet: {error}") from error
    questions = [_question(row, f"{path}: row {number}") for number, row in enumerate(rows, 1)]
    if not questions:
        raise DataError(f"{path}: got no rows, expected one question a row")
    keys: dict[tuple[str, str], int] = {}
    for number, question in enumerate(questions, 1):
        first = keys.setdefault(question.key, number)
        if first != number:
            raise DataError(
                f"{path}: row {number}: got id {question.id!r}, which row {first} has too; "
                "expected unique ids within a data set"
            )
    return questions


def write_parquet(questions: Sequence[Question], prompts: Sequence[str], path: Path | str) -> None:
    """Write upstream's rows, `prompts` being what each question is put as; all or nothing."""
    import io

    from agentic_r.io import write_atomic

    parquet = _pyarrow()
    import pyarrow

    rows = [
        {
            "data_source": question.dataset,
            "prompt": [{"role": "user", "content": prompt}],
            "ability": ABILITY,
            "reward_model": {"style": "rule", "ground_truth": {"target": list(question.answers)}},
            "extra_info": {"split": "train", "index": number},
            "id": question.id,
            "question": question.text,
            "golden_answers": list(question.answers),
        }
        for number, (question, prompt) in enumerate(zip(questions, prompts, strict=True))
    ]
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), buffer)
    write_atomic(path, buffer.getvalue())


def _question(row: dict[str, Any], where: str) -> Question:
    extra = row.get("extra_info") or {}
    truth = ((row.get("reward_model") or {}).get("ground_truth") or {}).get("target")
    answers = row.get("golden_answers") or truth or []
    answers = [answers] if isinstance(answers, str) else answers
    text = row.get("question") or extra.get("question")
    if not text or not answers:
        raise DataError(
            f"{where}: got {sorted(row)}, expected a question and its answers (golden_answers, or "
            "reward_model.ground_truth.target)"
        )
    id = row.get("id")
    if id is None:
        id = f"{extra.get('split', 'train')}_{extra.get('index', where.rpartition(' ')[2])}"
    return Question(
        str(id),
        str(text),
        tuple(map(str, answers)),
        str(row.get("data_source") or ""),
        row.get("metadata") or {},
    )


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "rl") from error
    return parquet
