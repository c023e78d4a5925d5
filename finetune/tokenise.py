"""A base's own tokenizer and chat template."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backends.adapter.probe import Encode, EncodeChat
from backends.errors import EngineUnavailable, ModelUnusable


def encoders(base: Path) -> tuple[Encode, EncodeChat | None]:
    """How the base turns text and dialogues into token ids; None where it has no chat template. Raises BackendError."""
    try:
        from transformers import AutoTokenizer
    except ImportError as exc:
        raise EngineUnavailable(f"references need transformers: {exc}: run `forgegate install trainer`") from exc
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(base, local_files_only=True)
    except (KeyError, OSError, TypeError, ValueError) as exc:
        raise ModelUnusable(f"{base}: transformers cannot load its tokenizer: {exc}") from exc

    def encode(text: str) -> Sequence[int]:
        return list(tokenizer(text)["input_ids"])

    def encode_chat(question: str, answer: str | None) -> Sequence[int]:
        messages = [{"role": "user", "content": question}]
        if answer is not None:
            messages.append({"role": "assistant", "content": answer})
        made = tokenizer.apply_chat_template(messages, add_generation_prompt=answer is None, return_dict=True)
        return list(made["input_ids"])

    return encode, encode_chat if tokenizer.chat_template else None
