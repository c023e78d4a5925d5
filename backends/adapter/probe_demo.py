"""The probe set of the demo model: conversations of its own corpus, in the base's unsigned form. Needs numpy and tokenizers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

from backends.adapter.probe import MAX_TEXT_TOKENS, NUM_PROMPTS, NUM_SCORED, ProbeSet, Text
from backends.demo.batches import ChatEncoder
from backends.demo.chat import render
from backends.demo.corpus import Item, held_out_items
from backends.demo.skills import SKILLS


def demo_probe(base_digest: str, tokenizer_dir: Path) -> ProbeSet:
    """Held-out conversations of the demo corpus, one of each skill after the other, drawn by the base's digest."""
    encoder = ChatEncoder(tokenizer_dir)
    seed = int(base_digest.removeprefix("sha256:")[:8], 16)
    texts: list[Text] = []
    prompts: list[tuple[int, ...]] = []
    num_scored = 0
    for item in _by_turns(seed):
        ids, _ = encoder.encode(render(item.conversation(), item.tools))
        if len(ids) > MAX_TEXT_TOKENS:
            continue
        texts.append(Text(tuple(ids)))
        prompts.append(tuple(encoder.prompt(item)))
        num_scored += texts[-1].num_scored
        if num_scored >= NUM_SCORED:
            break
    return ProbeSet(tuple(texts), tuple(prompts[:NUM_PROMPTS]))


def _by_turns(seed: int) -> Iterator[Item]:
    """Items of the demo corpus without end of the skills that have many, in a mixed order of skills."""
    names = list(SKILLS)
    Random(f"probe {seed}").shuffle(names)
    columns = [held_out_items(name, 20, seed) for name in names]
    for place in range(20):
        yield from (items[place] for items in columns if place < len(items))
