"""A text encoder: tokens in, unit vectors out, with plain transformers and torch.

sentence-transformers checkpoints are read without that library, whose import alone takes
longer than encoding a small corpus.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from agentic_r.errors import ConfigError
from agentic_r.retriever.folder import write_folder
from agentic_r.retriever.loading import find_folder, quiet, read_model
from agentic_r.retriever.pooling import EncoderSettings, pool, read_settings
from agentic_r.retriever.precision import Precision, autocast, resolve
from agentic_r.retriever.sealed import check_seal, seal

Kind = Literal["query", "passage"]
Vectors = npt.NDArray[np.float32]

_DEFAULT_MAX_LENGTH = 512
_CHUNK = 32_768
_NARROWEST = 16


class Encoder:
    """Encodes queries and passages into unit rows.

    Two encoders with the same `fingerprint` give the same vectors on the same machine.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        settings: EncoderSettings,
        *,
        batch_tokens: int = 4096,
    ) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.settings = settings
        self.batch_tokens = batch_tokens
        self.max_length: int = settings.max_length or _longest(model, tokenizer)
        self._fingerprint: str | None = None
        _check_length(self)

    @classmethod
    def load(
        cls,
        name: str,
        max_length: int | None = None,
        *,
        batch_tokens: int = 4096,
        device: str = "auto",
        dtype: str = "auto",
        changes: Mapping[str, Any] | None = None,
    ) -> Encoder:
        """Load an encoder, or a LoRA adapter and its base, by packaged name, folder or hub name.

        `max_length` is in tokens, special ones included; None takes what the model's own files or
        its family say. `dtype` is that of the weights; "auto" is float32 on a CPU, else what the
        checkpoint says. `changes` are fields of `EncoderSettings` to have otherwise than its files
        say. Raises ConfigError where nothing of that name can be loaded or the model has fewer
        positions, and DataError where a file of a model that was saved here is damaged.
        """
        folder = find_folder(name)
        check_seal(folder)
        settings = msgspec.structs.replace(read_settings(folder, name), **(changes or {}))
        where = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        model, tokenizer = read_model(folder, name, _dtype(dtype, where))
        length = max_length or settings.max_length or _longest(model, tokenizer)
        settings = msgspec.structs.replace(settings, max_length=length)
        return cls(model.to(where), tokenizer, settings, batch_tokens=batch_tokens)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = next(iter(self.model.parameters())).device
        return device

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(self.model.config.hidden_size)

    @property
    def fingerprint(self) -> str:
        """Digest of weights, tokenizer, pooling, prefixes and lengths: 16 hexadecimal digits."""
        if self._fingerprint is None:
            digest = hashlib.sha256()
            digest.update(_settings_text(self.settings, self.max_length))
            digest.update(_tokenizer_text(self.tokenizer).encode())
            for name, tensor in sorted(self.model.state_dict().items()):
                digest.update(f"{name}:{tuple(tensor.shape)}:{tensor.dtype}".encode())
                plain = tensor.detach().cpu().contiguous()
                digest.update(plain.view(torch.uint8).numpy().data if plain.ndim else plain.numpy())
            self._fingerprint = digest.hexdigest()[:16]
        return self._fingerprint

    @property
    def passage_side(self) -> str:
        """The fingerprint of the encoder whose passages this one finds: most often its own."""
        return self.settings.trained_for or self.fingerprint

    @property
    def pad(self) -> int:
        """The token that fills short rows; it is masked."""
        return int(self.tokenizer.pad_token_id or 0)

    def copy(self) -> Encoder:
        """An encoder of its own with equal weights, for training."""
        return Encoder(
            copy.deepcopy(self.model),
            self.tokenizer,
            self.settings,
            batch_tokens=self.batch_tokens,
        )

    def save(self, folder: Path | str, notes: Sequence[str] = ()) -> None:
        """Write a sentence-transformers folder that `Encoder.load` reads back.

        `notes` go into its model card.
        """
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        with quiet():
            self.model.save_pretrained(target)
            self.tokenizer.save_pretrained(target)
        for weights in target.glob("*.safetensors"):
            weights.chmod(0o644)  # written for its owner alone: a server could not read it
        settings = msgspec.structs.replace(self.settings, max_length=self.max_length)
        write_folder(target, settings, self.dimension, notes)
        seal(target)

    def encode(
        self,
        texts: Sequence[str],
        kind: Kind,
        progress: str | None = None,
        *,
        precision: Precision = "fp32",
    ) -> Vectors:
        """Encode `texts` into float32 unit rows [n, d].

        Equal texts are encoded once. `progress` names a progress bar; None shows none. The
        default precision is exact; bf16 keeps the cosine with it above .999 but may swap
        near-ties.
        """
        unique = list(dict.fromkeys(texts))
        place = {text: row for row, text in enumerate(unique)}
        out = np.empty((len(unique), self.dimension), dtype=np.float32)
        bf16, _ = resolve(precision, self.device)
        with (
            torch.inference_mode(),
            autocast(bf16, self.device),
            _threads(1 if kind == "query" else torch.get_num_threads()),
            tqdm(
                total=len(unique), desc=progress, unit=f" {kind}", disable=progress is None
            ) as bar,
        ):
            for start in range(0, len(unique), _CHUNK):
                ids = self.tokens(unique[start : start + _CHUNK], kind)
                for rows in plan([len(x) for x in ids], self.batch_tokens):
                    vectors = self.forward([ids[row] for row in rows])
                    out[start + np.asarray(rows)] = vectors.cpu().numpy()
                    bar.update(len(rows))
        if len(unique) == len(texts):
            return out
        return out[[place[text] for text in texts]]

    def tokens(self, texts: Sequence[str], kind: Kind) -> list[list[int]]:
        """Tokenise with the prefix of `kind`, cut at `max_length`, not padded."""
        if not texts:
            return []
        settings = self.settings
        prefix = settings.query_prefix if kind == "query" else settings.passage_prefix
        longest = (settings.query_length if kind == "query" else None) or self.max_length
        # A lone surrogate, which JSON can carry, would be refused by the tokenizer.
        clean = [f"{prefix}{text}".encode("utf-8", "replace").decode() for text in texts]
        ids: list[list[int]] = self.tokenizer(
            clean,
            truncation=True,
            max_length=longest - settings.append_eos,
            return_attention_mask=False,
            return_token_type_ids=False,
        )["input_ids"]
        if settings.append_eos:
            return [[*row, self.tokenizer.eos_token_id] for row in ids]
        return ids

    def forward(self, ids: Sequence[Sequence[int]]) -> torch.Tensor:
        """Encode one batch of token lists into unit rows [n, d], keeping gradients if enabled."""
        tokens, mask = (torch.from_numpy(x).to(self.device) for x in padded(ids, self.pad))
        states = self.model(input_ids=tokens, attention_mask=mask).last_hidden_state
        return pool(states, mask, self.settings.pooling, self.settings.normalise)


def padded(
    ids: Sequence[Sequence[int]], pad: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return (tokens, mask), both [n, t], of token lists, padded on the right."""
    # CPU matrix products of fewer rows take another kernel and differ in the last bit; from
    # this width on a text has one vector, whatever it is batched with.
    longest = max(_NARROWEST, *(len(row) for row in ids))
    tokens = np.full((len(ids), longest), pad, np.int64)
    mask = np.zeros((len(ids), longest), np.int64)
    for at, row in enumerate(ids):
        tokens[at, : len(row)] = row
        mask[at, : len(row)] = 1
    return tokens, mask


@contextlib.contextmanager
def _threads(wanted: int) -> Iterator[None]:
    """Compute in so many threads of the processor.

    Several share a batch out by its shape and differ in the last bit. A query must have one
    vector, whatever it is batched with, or a resumed run could rank otherwise than the first
    did; passages are encoded in the same batches each time.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def plan(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Group rows of similar length so that a group's padded size stays within `budget` tokens.

    Longest first, so that memory runs out at once or never. A row longer than the budget is a
    group of its own.
    """
    groups: list[list[int]] = []
    widest = 0
    for row in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if not groups or (len(groups[-1]) + 1) * widest > budget:
            groups.append([])
            widest = lengths[row]
        groups[-1].append(row)
    return groups


def _positions(model: Any, tokenizer: Any) -> int:
    """Return the longest input that model and tokenizer allow, in tokens."""
    limits = [int(tokenizer.model_max_length)]
    if getattr(model.config, "max_position_embeddings", None):
        limits.append(int(model.config.max_position_embeddings))
    return min(limits)


def _longest(model: Any, tokenizer: Any) -> int:
    """Return the longest input of a model whose files do not say."""
    return min(_positions(model, tokenizer), _DEFAULT_MAX_LENGTH)


def _check_length(encoder: Encoder) -> None:
    most = _positions(encoder.model, encoder.tokenizer)
    lengths = {"max_length": encoder.max_length, "query_length": encoder.settings.query_length}
    for name, length in lengths.items():
        if length is not None and not 3 <= length <= most:
            raise ConfigError(
                f"retriever.{name}: got {length}, expected 3 to {most} "
                f"for the encoder {encoder.settings.base!r}"
            )


def _dtype(dtype: str, device: str) -> str:
    """Return the weights' number format: on a CPU float32 unless another is asked for."""
    return "float32" if dtype == "auto" and not device.startswith("cuda") else dtype


def _settings_text(settings: EncoderSettings, max_length: int) -> bytes:
    """Return what of the settings moves a vector; what is as it always was adds nothing."""
    plain = {
        "base": "",
        "max_length": max_length,
        "passage_prefix": settings.passage_prefix,
        "pooling": settings.pooling,
        "query_prefix": settings.query_prefix,
    }
    if not settings.normalise:
        plain["normalise"] = False
    if settings.append_eos:
        plain["append_eos"] = True
    if settings.query_length is not None:
        plain["query_length"] = settings.query_length
    if settings.trained_for:
        plain["trained_for"] = settings.trained_for
    return msgspec.json.encode(plain, order="sorted")


def _tokenizer_text(tokenizer: Any) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return repr(sorted(tokenizer.get_vocab().items()))
    # Padding and truncation are call state that the last call leaves behind.
    plain = copy.deepcopy(backend)
    plain.no_padding()
    plain.no_truncation()
    return str(plain.to_str())
