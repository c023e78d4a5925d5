"""What an adapter must fit: the base model of a name that clients ask for, as its pools and running engines tell."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from backends.base import Backend, Identity
from backends.errors import ModelUnusable
from backends.llamacpp.header import read_header
from backends.llamacpp.launch import locate_model
from backends.modelfolder import chat_template, read_optional_json
from backends.vllm.options import Lora, Options
from gateway import errors
from gateway.config import Model, Pool

Pools = Sequence[tuple[Model, Pool, Backend]]


@dataclass(frozen=True, slots=True)
class BaseFacts:
    """Digests are `sha256:<hex>`. Without a folder no reference can be computed."""

    name: str
    source_digest: str
    template_digest: str
    folder: Path | None
    gguf: Path | None
    engines: tuple[str, ...]
    """Kinds of engines that serve adapters of it."""
    vllm: Lora | None = None
    """What all its vLLM engines take; None where it has none."""

    def to_json(self) -> bytes:
        """As `backends.adapter.ingest` reads it."""
        told: dict[str, Any] = {
            "name": self.name,
            "source_digest": self.source_digest,
            "template_digest": self.template_digest,
            "folder": str(self.folder) if self.folder else None,
            "gguf": str(self.gguf) if self.gguf else None,
        }
        if self.vllm is not None:
            told["vllm"] = {"max_rank": self.vllm.max_rank, "target_modules": self.vllm.target_modules}
        return json.dumps(told).encode()


@dataclass(frozen=True, slots=True)
class Bases:
    """The pools of this gateway, by model."""

    pools: Pools

    @property
    def names(self) -> list[str]:
        """Of all models, those that take no adapters too."""
        return list(dict.fromkeys(model.name for model, _, _ in self.pools))

    def model_of(self, asked: str) -> str:
        """The model that an adapter is for; where there is but one it need not be named. Raises BadRequest, ModelNotFound."""
        able = self._able()
        if not asked and len(able) == 1:
            return able[0]
        if asked in able:
            return asked
        if not able:
            raise errors.BadRequest(
                "no engine of this gateway serves adapters: those of kind remote do not; add a llamacpp pool, or a vllm pool with "
                "`lora: {}` among its options",
                param="model",
            )
        if not asked:
            raise errors.BadRequest(f"say which model the adapter is for: {', '.join(able)}", param="model")
        if asked in self.names:
            raise errors.BadRequest(
                f"no engine of {asked} serves adapters; models that do: {', '.join(able)}", param="model"
            )
        close = difflib.get_close_matches(asked, able, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise errors.ModelNotFound(
            f"no model {asked!r}; {hint}models that take adapters: {', '.join(able)}", param="model"
        )

    def engine_pool(self, model: str, kind: str) -> Pool:
        """The first pool of `kind`: its interpreter works on adapters, too."""
        return next(pool for pool in self._of(model) if pool.engine == kind)

    def facts(self, model: str, identities: Sequence[Identity]) -> BaseFacts:
        """Of `model`, whose engines told these identities. Blocks while it reads heads of files. Raises NoEngineReady, ModelUnusable."""
        known = sorted((item for item in identities if item.digest), key=lambda item: not item.is_source)
        if not known:
            raise errors.NoEngineReady(
                f"no engine of {model} has read its weights yet, so nothing can be held against them; see `forgegate engines list`",
                retry_after_s=5,
            )
        places = [locate_model(pool.model or "demo") for pool in self._of(model)]
        folder = next((path for path in places if path.is_dir()), None)
        gguf = next((path for path in places if not path.is_dir()), None)
        template = self._template(model, folder, gguf)
        return BaseFacts(
            name=model,
            source_digest=known[0].digest,
            template_digest=f"sha256:{hashlib.sha256(template.encode()).hexdigest()}",
            folder=folder,
            gguf=gguf,
            engines=tuple(dict.fromkeys(pool.engine for pool in self._of(model))),
            vllm=_common(pool for pool in self._of(model) if pool.engine == "vllm"),
        )

    def _template(self, model: str, folder: Path | None, gguf: Path | None) -> str:
        """Of all pools of the model: an adapter is trained for one."""
        chosen = [_chosen_template(pool) for pool in self._of(model)]
        templates = {text for text in chosen if text is not None}
        if None in chosen:
            templates.add(_template_of_folder(folder) if folder else _template_of_gguf(gguf) if gguf else "")
        if len(templates) > 1:
            raise ModelUnusable(
                f"the pools of {model} have different chat templates, and an adapter is made for one: give all of them the same "
                "`chat_template`, or none"
            )
        return templates.pop()

    def _able(self) -> list[str]:
        return list(dict.fromkeys(model.name for model, _, backend in self.pools if _is_able(backend)))

    def _of(self, name: str) -> list[Pool]:
        return [pool for model, pool, backend in self.pools if model.name == name and _is_able(backend)]


def _common(pools: Iterable[Pool]) -> Lora | None:
    """What engines of all these pools take."""
    found = [lora for pool in pools if (lora := Options.from_mapping(pool.options).lora)]
    if not found:
        return None
    targets = tuple(name for name in found[0].target_modules if all(name in lora.target_modules for lora in found))
    return replace(found[0], max_rank=min(lora.max_rank for lora in found), target_modules=targets)


def _is_able(backend: Backend) -> bool:
    return backend.adapters is not None and backend.num_adapter_slots > 0


def _chosen_template(pool: Pool) -> str | None:
    """What the pool's options put in place of the model's own; None where they do not. Raises ModelUnusable."""
    if named := pool.options.get("chat_template"):
        path = Path(named).expanduser()
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as exc:
            raise ModelUnusable(f"chat_template: {path} cannot be read: {exc}") from exc
    tokenizer = pool.options.get("tokenizer")
    return _template_of_folder(Path(tokenizer).expanduser()) if tokenizer else None


def _template_of_folder(folder: Path) -> str:
    return chat_template(folder, read_optional_json(folder / "tokenizer_config.json")) or ""


def _template_of_gguf(gguf: Path) -> str:
    """Raises ModelUnusable."""
    template: Any = read_header(gguf).metadata.get("tokenizer.chat_template", "")
    return template if isinstance(template, str) else ""
