"""What transformers and PEFT say of texts: log-probabilities with an adapter, without it, and with it as a fault leaves it.

Everything is float32. Texts of similar length share a batch, padded on the right where a causal mask hides it, and a batch is no larger
than its logits may be.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor
from transformers import AutoModelForCausalLM, GenerationConfig
from transformers.utils import logging

from backends.adapter.probe import Text

Read = Callable[[Tensor, Tensor], Tensor]
"""Of logits [n, vocabulary] and the tokens [n] that followed: a number each [n]."""
MAX_LOGITS_BYTES = 256 * 1024 * 1024
_LAYER = re.compile(r"\.(?:layers|h|blocks)\.(\d+)\.")
_INTERLEAVED = frozenset(
    {"llama", "mistral", "mixtral", "granite", "granitemoe", "smollm3", "arcee", "arctic", "deepseek"}
)
"""Model types whose q and k llama.cpp keeps in another order of rows than transformers does."""

logging.disable_progress_bar()


class Plain:
    """A model. `device` as torch names it; None: the first card, else the CPU."""

    def __init__(self, folder: Path, device: str | None = None) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        # Reduced precision in matrix products would be as large as what a single layer changes.
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        plain: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
        self._model: Any = plain.to(self.device).eval()
        self._config = plain.config.get_text_config()

    @property
    def max_context(self) -> int:
        return int(getattr(self._config, "max_position_embeddings", 2048))

    @torch.no_grad()
    def scores(self, texts: Sequence[Text], tell: Callable[[int], None] = lambda _: None) -> list[float]:
        """Log-probabilities of the scored tokens, text by text; `tell` gets the number of tokens that each batch adds."""
        return self._read(texts, _log_probabilities, tell)

    @torch.no_grad()
    def margins(self, texts: Sequence[Text]) -> list[float]:
        """By how many nats the best token leads before the second best, wherever a token is scored."""
        return self._read(texts, _leads, lambda _: None)

    def _read(self, texts: Sequence[Text], read: Read, tell: Callable[[int], None]) -> list[float]:
        found: dict[int, list[float]] = {}
        for places in self._batches(texts):
            rows = self._score([texts[place] for place in places], read)
            found.update(zip(places, rows, strict=True))
            tell(sum(map(len, rows)))
        return [score for place in range(len(texts)) for score in found[place]]

    def _batches(self, texts: Sequence[Text]) -> Iterator[list[int]]:
        """Places of texts, the longest first, so that memory that does not suffice is noticed at once."""
        max_tokens = MAX_LOGITS_BYTES // (4 * int(self._config.vocab_size))
        batch: list[int] = []
        for place in sorted(range(len(texts)), key=lambda place: -len(texts[place].ids)):
            if batch and (len(batch) + 1) * len(texts[batch[0]].ids) > max_tokens:
                yield batch
                batch = []
            batch.append(place)
        if batch:
            yield batch

    def _score(self, texts: Sequence[Text], read: Read) -> list[list[float]]:
        width = max(len(text.ids) for text in texts)
        ids = torch.tensor([[*text.ids, *[0] * (width - len(text.ids))] for text in texts], device=self.device)
        visible = torch.tensor(
            [[1] * len(text.ids) + [0] * (width - len(text.ids)) for text in texts], device=self.device
        )
        logits: Tensor = self._model(input_ids=ids, attention_mask=visible, use_cache=False).logits
        rows = []
        for row, text in enumerate(texts):
            end = len(text.ids)
            own = logits[row, text.first - 1 : end - 1].float()
            rows.append(read(own, ids[row, text.first : end]).cpu().tolist())
        return rows

    @torch.no_grad()
    def greedy(self, prompt: Sequence[int], max_new: int) -> list[int]:
        """Its own answer, with the end token where it ends by itself."""
        stops = self._model.generation_config.eos_token_id
        plan = GenerationConfig(do_sample=False, max_new_tokens=max_new, eos_token_id=stops, pad_token_id=0)
        ids = torch.tensor([list(prompt)], device=self.device)
        made = self._model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=plan)
        return [int(token) for token in made[0, len(prompt) :]]

    @property
    def ends(self) -> frozenset[int]:
        """Tokens that end an answer."""
        told = self._model.generation_config.eos_token_id
        return frozenset([told] if isinstance(told, int) else told or [])

    @contextmanager
    def jittered(self, bits: Mapping[str, int], seed: int) -> Iterator[None]:
        """Within the block each of these matrices is as if it had been rounded once more, at random; `bits` of precision each."""
        generator = torch.Generator().manual_seed(seed)
        saved: list[tuple[Tensor, Tensor]] = []
        try:
            for name, precision in bits.items():
                weight = self._model.get_parameter(name)
                saved.append((weight, weight.data))
                step = torch.exp2(torch.frexp(weight.data).exponent.float() - precision)
                noise = torch.rand(weight.shape, generator=generator).to(self.device) - 0.5
                weight.data = weight.data + step * noise
            yield
        finally:
            for weight, data in saved:
                weight.data = data


class Reference(Plain):
    """A base with one adapter on it."""

    def __init__(self, base: Path, adapter: Path, device: str | None = None) -> None:
        super().__init__(base, device)
        with warnings.catch_warnings():
            # PEFT reads a property that transformers has deprecated since.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            self._model = PeftModel.from_pretrained(self._model, str(adapter)).to(self.device).eval()
        self._modules = {name: part for name, part in self._model.named_modules() if isinstance(part, LoraLayer)}
        self.layers = sorted({number for name in self._modules if (number := _layer_of(name)) is not None})
        """Numbers of the layers that the adapter changes."""

    @property
    def is_interleaved(self) -> bool:
        """Whether llama.cpp wants the rows of q and k in another order, so that they could be left in the wrong one."""
        names = (name.rpartition(".")[2] for name in self._modules)
        return self._config.model_type in _INTERLEAVED and any(name in ("q_proj", "k_proj") for name in names)

    @contextmanager
    def without_adapter(self) -> Iterator[None]:
        with self._model.disable_adapter():
            yield

    @contextmanager
    def scaled(self, factor: float) -> Iterator[None]:
        """The adapter's change of every weight times `factor`."""
        with self._changed(self._modules, lambda _, weight: weight * factor):
            yield

    @contextmanager
    def without_layer(self, number: int) -> Iterator[None]:
        """lora_B of this layer is zero."""
        names = [name for name in self._modules if _layer_of(name) == number]
        with self._changed(names, lambda _, weight: torch.zeros_like(weight)):
            yield

    @contextmanager
    def unpermuted(self) -> Iterator[None]:
        """What an engine serves that interleaves the rows of q and k, given lora_B of q and k in transformers' order."""
        heads = {"q_proj": self._config.num_attention_heads, "k_proj": self._config.num_key_value_heads}
        names = [name for name in self._modules if name.rpartition(".")[2] in heads]
        with self._changed(names, lambda name, weight: interleave_rows(weight, heads[name.rpartition(".")[2]])):
            yield

    @contextmanager
    def _changed(self, names: Any, change: Callable[[str, Tensor], Tensor]) -> Iterator[None]:
        """lora_B of these modules is changed within the block."""
        saved: list[tuple[Tensor, Tensor]] = []
        try:
            for name in names:
                for weight in _lora_b(self._modules[name]):
                    saved.append((weight, weight.data))
                    weight.data = change(name, weight.data)
            yield
        finally:
            for weight, data in saved:
                weight.data = data


def _log_probabilities(logits: Tensor, ids: Tensor) -> Tensor:
    return logits.gather(1, ids[:, None])[:, 0] - logits.logsumexp(1)


def _leads(logits: Tensor, _: Tensor) -> Tensor:
    best = logits.topk(2, dim=1).values
    return best[:, 0] - best[:, 1]


def _lora_b(module: LoraLayer) -> list[Tensor]:
    return [part.weight for part in module.lora_B.values()] + list(module.lora_embedding_B.values())


def _layer_of(name: str) -> int | None:
    match = _LAYER.search(name)
    return int(match[1]) if match else None


def interleave_rows(weight: Tensor, num_heads: int) -> Tensor:
    """The rows of a q or k projection as an engine takes them that reads pairs where they hold halves: the inverse of its reordering.

    The engine's order has row 2i + j of a head where transformers has row j * half + i. Rows [num_heads * head_dim, rank] that
    were not reordered are read as if they had been.
    """
    rows, rank = weight.shape
    pairs = weight.reshape(num_heads, rows // num_heads // 2, 2, rank)
    return pairs.swapaxes(1, 2).reshape(rows, rank).contiguous()
