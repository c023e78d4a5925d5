"""The other side of the batch invariance benchmark, a process of its own: its prompts, and transformers' answers to them.

    python -m benchmarks.invariance_reference prompts --weights DIR --count 600 --out prompts.json
    python -m benchmarks.invariance_reference answers --weights DIR --prompts prompts.json --tokens 64 --out answers.json

Answers are greedy, in fp32, one prompt at a time with a KV cache; tokens that end an answer are not drawn.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backends.demo.corpus import Item

EXIT_ENVIRONMENT = 3
_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")
_PER_SKILL = 400
"""Held-out items to draw from; a skill may have fewer."""


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code; 3 where a package or a file is missing."""
    options = _parser().parse_args(argv)
    try:
        found = prompts(options) if options.command == "prompts" else answers(options)
        options.out.write_text(json.dumps(found, ensure_ascii=False), "utf-8")
    except (ImportError, OSError) as exc:
        sys.stderr.write(f"error: {exc}\n")
        return EXIT_ENVIRONMENT
    return 0


def prompts(options: argparse.Namespace) -> dict[str, Any]:
    """`count` different held-out prompts over all skills in chat form, seeded, as `invariance_record.read_prompts` reads them."""
    from backends.demo.batches import ChatEncoder
    from backends.demo.corpus import held_out_items
    from backends.demo.skills import SKILLS

    encoder = ChatEncoder(options.weights)
    rows: dict[tuple[int, ...], dict[str, Any]] = {}
    for item in (item for name in SKILLS for item in held_out_items(name, _PER_SKILL, options.seed)):
        ids = encoder.prompt(item)
        rows[tuple(ids)] = {"skill": item.skill, "ids": ids, "turn": len(_earlier_turn(encoder, item))}
    chosen = list(rows.values())
    if len(chosen) < options.count:
        raise OSError(f"the corpus has {len(chosen)} different prompts, {options.count} were asked for")
    Random(options.seed).shuffle(chosen)
    vocabulary, ends = Vocabulary.read(options.weights), end_ids(options.weights)
    return {
        "prompts": chosen[: options.count],
        "vocab_size": len(vocabulary.tokens),
        "end_tokens": {vocabulary.text(token): token for token in ends},
    }


def _earlier_turn(encoder: Any, item: Item) -> list[int]:
    """The ids that asked for the conversation's last answer so far, none where it begins here."""
    from backends.demo.chat import render

    answered = [at for at, message in enumerate(item.messages) if message["role"] == "assistant"]
    if not answered:
        return []
    ids: list[int] = encoder.encode(render(item.messages[: answered[-1]], item.tools, add_generation_prompt=True))[0]
    return ids


def answers(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Tokens and margins of the answer to each prompt, as `invariance_record.read_answers` reads them."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(options.threads)
    asked = json.loads(options.prompts.read_text("utf-8"))
    model = AutoModelForCausalLM.from_pretrained(options.weights, dtype=torch.float32).eval()
    vocabulary, ends = Vocabulary.read(options.weights), list(asked["end_tokens"].values())
    with torch.inference_mode():
        drawn = [_answer(model, row["ids"], options.tokens, ends) for row in asked["prompts"]]
    return [
        {"tokens": [vocabulary.text(token) for token in tokens], "margins": margins, "end": end}
        for tokens, margins, end in drawn
    ]


def _answer(model: Any, ids: list[int], num_tokens: int, ends: list[int]) -> tuple[list[int], list[float], int]:
    """Tokens, their margins, and how many of them come before the model would have ended."""
    import torch
    from transformers import DynamicCache

    tokens: list[int] = []
    margins: list[float] = []
    end, cache, step = num_tokens, DynamicCache(config=model.config), torch.tensor([ids])
    # transformers renamed the argument in 5.x; the old name warns there.
    name = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
    for at in range(num_tokens):
        logprobs = torch.log_softmax(model(input_ids=step, use_cache=True, **{name: cache}).logits[0, -1], dim=-1)
        if int(logprobs.argmax()) in ends:
            end = min(end, at)
        logprobs[ends] = -torch.inf
        best = torch.topk(logprobs, 2)
        tokens.append(int(best.indices[0]))
        margins.append(float(best.values[0] - best.values[1]))
        step = best.indices[:1][None]
    return tokens, margins, end


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The bytes of every token of a SentencePiece-style tokenizer.json, as the engine shows them."""

    tokens: dict[int, bytes]

    @classmethod
    def read(cls, weights: Path) -> Vocabulary:
        """Raises OSError when the folder has no tokenizer."""
        found = json.loads((weights / "tokenizer.json").read_text("utf-8"))
        tokens = {token: _bytes_of(text) for text, token in found["model"]["vocab"].items()}
        return cls(tokens | {added["id"]: added["content"].encode() for added in found["added_tokens"]})

    def text(self, token: int) -> str:
        """As the engine's log-probabilities name it: parts of characters read as U+FFFD."""
        return self.tokens[token].decode("utf-8", "replace")


def _bytes_of(text: str) -> bytes:
    byte = _BYTE_TOKEN.fullmatch(text)
    return bytes([int(byte[1], 16)]) if byte else text.replace("▁", " ").encode()


def end_ids(weights: Path) -> list[int]:
    """The tokens that llama.cpp takes for the end of an answer: the model's own, and `</s>` whatever it means."""
    own = json.loads((weights / "config.json").read_text("utf-8"))["eos_token_id"]
    texts = {text: token for token, text in Vocabulary.read(weights).tokens.items()}
    return sorted({*(own if isinstance(own, list) else [own]), *([texts[b"</s>"]] if b"</s>" in texts else [])})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.invariance_reference", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("prompts", "answers"):
        command = commands.add_parser(name)
        command.add_argument("--weights", type=Path, required=True, help="folder of safetensors with its tokenizer")
        command.add_argument("--out", type=Path, required=True, help="JSON file to write")
        if name == "prompts":
            command.add_argument("--count", type=int, required=True)
            command.add_argument("--seed", type=int, default=0)
        else:
            command.add_argument("--prompts", type=Path, required=True, help="what `prompts` wrote")
            command.add_argument("--tokens", type=int, required=True, help="of each answer")
            # The threads of a model this small wait for each other more than they compute.
            command.add_argument("--threads", type=int, default=1)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
