"""A re-ranker: one transformer that reads query and passage together and gives one number.

On the disk it is what sentence-transformers calls a CrossEncoder and transformers a sequence
classification checkpoint with one label; neither library's classes are needed to make it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import torch
import transformers

from agentic_r.errors import ConfigError
from agentic_r.io import write_atomic
from agentic_r.retriever.encoder import plan
from agentic_r.retriever.loading import find_folder, first_line, quiet
from agentic_r.retriever.precision import Precision, autocast, resolve
from agentic_r.retriever.sealed import check_seal, seal

ABOUT_FILE = "agentic_r_reranker.json"

CARD = """---
library_name: sentence-transformers
pipeline_tag: text-ranking
tags:
- sentence-transformers
- cross-encoder
- reranker
- agentic-r
---

# A re-ranker for a search agent

Reads a query and a passage of up to {length} tokens together and gives one number, higher for
passages that helped an agent to answer. Trained by agentic-r, started from `{base}`.

{notes}
```python
from sentence_transformers import CrossEncoder

model = CrossEncoder("FOLDER")
print(model.rank("question [SEP] query", ["Title\\nText of a passage", "..."]))
```
"""


class About(msgspec.Struct, frozen=True):
    """What a re-ranker's folder says of it beyond the model."""

    max_length: int
    base: str
    weight: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0


def own_weight(folder: Path) -> float:
    """Return the weight that a re-ranker was saved with, 1 where it says none.

    Raises ConfigError where its file is damaged.
    """
    path = folder / ABOUT_FILE
    if not path.is_file():
        return 1.0
    try:
        return msgspec.json.decode(path.read_bytes(), type=About).weight
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path}: {error}; expected what training a re-ranker wrote") from None


def _read(folder: Path, **options: Any) -> tuple[Any, Any]:
    """Read tokenizer and model, fp32, from a folder alone."""
    with quiet():
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = transformers.AutoModelForSequenceClassification.from_pretrained(
            folder, local_files_only=True, dtype=torch.float32, **options
        )
    return tokenizer, model


class CrossEncoder:
    """Scores (query, passage) pairs; higher is better."""

    def __init__(
        self, model: Any, tokenizer: Any, base: str, max_length: int, batch_tokens: int = 2048
    ) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.base = base
        self.max_length = max_length
        self.batch_tokens = batch_tokens

    @classmethod
    def open(cls, name: str, max_length: int = 512, batch_tokens: int = 4096) -> CrossEncoder:
        """Open a trained re-ranker by folder or hub name, to rank with.

        It reads no more than `max_length` tokens of a pair, fewer where it knows no more. Raises
        ConfigError where nothing of that name can be loaded, or it has other than one score.
        """
        folder = find_folder(name)
        check_seal(folder)
        try:
            tokenizer, model = _read(folder, use_safetensors=True)
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(
                f"retriever.rerank.model: {name!r}: {first_line(error)}; expected a cross-encoder"
            ) from None
        outputs = int(model.config.num_labels)
        if outputs != 1:
            raise ConfigError(
                f"retriever.rerank.model: {name!r} has {outputs} outputs, expected 1, the relevance"
            )
        if torch.cuda.is_available():
            model.to("cuda")
        longest = min(max_length, int(tokenizer.model_max_length))
        return cls(model, tokenizer, name, longest, batch_tokens)

    @classmethod
    def load(
        cls, name: str, max_length: int = 256, *, seed: int = 0, device: str = "auto"
    ) -> CrossEncoder:
        """Load to train, by packaged name, folder or hub name; a missing head is drawn by `seed`.

        Raises ConfigError where nothing of that name can be loaded, it gives several numbers, or
        it has fewer positions than `max_length`.
        """
        where = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        folder = find_folder(name)
        check_seal(folder)
        try:
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                tokenizer, model = _read(folder, num_labels=1, attn_implementation="eager")
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ConfigError(
                f"re-ranker {name!r}: {first_line(error)}; expected an encoder or a checkpoint "
                "with one score"
            ) from None
        limit = getattr(model.config, "max_position_embeddings", None)
        if limit and max_length > limit:
            raise ConfigError(
                f"retriever.rerank.max_length: got {max_length}, expected at most {limit} for "
                f"{name!r}"
            )
        return cls(model.to(where), tokenizer, name, max_length)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = next(iter(self.model.parameters())).device
        return device

    def tokens(self, pairs: Sequence[tuple[str, str]]) -> list[dict[str, list[int]]]:
        """Tokenise (query, passage) pairs, cut at `max_length`, not padded."""
        if not pairs:
            return []
        clean = [
            [text.encode("utf-8", "replace").decode() for text in column]
            for column in zip(*pairs, strict=True)
        ]
        found = self.tokenizer(*clean, truncation=True, max_length=self.max_length)
        return [{key: rows[i] for key, rows in found.items()} for i in range(len(pairs))]

    def forward(self, rows: Sequence[dict[str, list[int]]]) -> torch.Tensor:
        """Score one padded batch [n], keeping gradients if enabled."""
        padded = self.tokenizer.pad(list(rows), return_tensors="pt").to(self.device)
        logits: torch.Tensor = self.model(**padded).logits
        return logits[:, 0].float()

    def logits(self, rows: Sequence[dict[str, list[int]]]) -> torch.Tensor:
        """Score tokenised pairs [n] in batches of similar length, in their order."""
        groups = plan([len(row["input_ids"]) for row in rows], self.batch_tokens)
        parts = torch.cat([self.forward([rows[i] for i in group]) for group in groups])
        order = torch.tensor([i for group in groups for i in group], device=parts.device)
        return parts[torch.argsort(order)]

    def scores(
        self, pairs: Sequence[tuple[str, str]], *, precision: Precision = "fp32"
    ) -> list[float]:
        """Return the relevance of each (query, passage text: title and text, one line each)."""
        if not pairs:
            return []
        bf16, _ = resolve(precision, self.device)
        with torch.inference_mode(), autocast(bf16, self.device):
            found = self.logits(self.tokens(pairs))
        return [float(score) for score in found]

    def save(self, folder: Path | str, notes: Sequence[str] = (), weight: float = 1.0) -> None:
        """Write weights, tokenizer and model card; sentence-transformers and `load` read them.

        `weight` is the share of its scores beside the retriever's that did best on dev.
        """
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        self.tokenizer.model_max_length = self.max_length
        with quiet():
            self.model.save_pretrained(target)
            self.tokenizer.save_pretrained(target)
        for weights in target.glob("*.safetensors"):
            weights.chmod(0o644)  # written for its owner alone: a server could not read it
        lines = "".join(f"- {note}\n" for note in notes)
        card = CARD.format(length=self.max_length, base=Path(self.base).name, notes=lines)
        write_atomic(target / "README.md", card)
        about = About(self.max_length, Path(self.base).name, weight)
        write_atomic(target / ABOUT_FILE, msgspec.json.encode(about))
        seal(target)
