import hashlib
import json
import subprocess
import sys
from collections.abc import Iterable
from itertools import pairwise
from random import Random

import pytest

from backends.demo.corpus import MAX_HELD_OUT, Item, draw, held_out_items, num_clusters, training_items
from backends.demo.skills import SKILLS, is_held_out

# Of the first items of seed 7. A change here means a corpus that the committed weights were not trained on.
TRAINING_DIGEST = "9d6a812e1957d102"
HELD_OUT_DIGEST = "60fb4085dc8f21bb"


def digest(items: Iterable[Item]) -> str:
    total = hashlib.sha256()
    for item in items:
        record = [item.skill, item.cluster, item.conversation(), item.tools, item.check]
        total.update(json.dumps(record, ensure_ascii=False, sort_keys=True).encode())
    return total.hexdigest()[:16]


def test_the_same_seed_gives_the_same_items() -> None:
    assert digest(training_items(seed=7, count=3000)) == TRAINING_DIGEST
    assert digest(item for name in SKILLS for item in held_out_items(name, 50)) == HELD_OUT_DIGEST


def test_another_process_with_another_hash_seed_gives_the_same_items() -> None:
    code = (
        "from tests.backends.demo.test_corpus import digest; from backends.demo.corpus import training_items;"
        "print(digest(training_items(seed=7, count=300)))"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True
        ).stdout
        for seed in ("1", "2")
    }
    assert runs == {digest(training_items(seed=7, count=300)) + "\n"}


@pytest.mark.parametrize("name", sorted(SKILLS))
def test_no_training_item_is_held_out(name: str) -> None:
    skill, rng = SKILLS[name], Random(f"leak {name}")
    learnt = {repr((e.system, e.turns)) for e in (draw(skill, rng, held_out=False) for _ in range(4000))}
    for _ in range(1500):
        exchange = draw(skill, rng, held_out=True)
        assert is_held_out(name, exchange.key)
        assert repr((exchange.system, exchange.turns)) not in learnt


def test_no_held_out_question_appears_anywhere_in_training() -> None:
    """A wording that one skill holds out must not be taught by another, nor in a conversation's earlier turns."""
    taught = set()
    for item in training_items(seed=11, count=15_000):
        if item.messages[0]["role"] != "system" and not item.tools:
            turns = item.conversation()
            taught |= {(q["content"], a["content"]) for q, a in pairwise(turns) if q["role"] == "user"}
    for name in ("facts", "glossary", "support", "smalltalk", "arithmetic", "text_ops", "unknown", "translation"):
        shared = [i for i in held_out_items(name, 400) if (i.messages[-1]["content"], i.answer["content"]) in taught]
        assert not shared, (name, shared[0].messages[-1]["content"])


@pytest.mark.parametrize("name", sorted(SKILLS))
def test_held_out_items_differ_and_grow_by_prefix(name: str) -> None:
    items = held_out_items(name, 600)
    assert items[:100] == held_out_items(name, 100)
    assert len(items) == 600
    assert len({repr((i.messages, i.tools)) for i in items}) >= 595
    assert num_clusters(items) >= 15


def test_asking_for_too_many_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 4000"):
        held_out_items("facts", MAX_HELD_OUT + 1)


def test_every_skill_is_taught_in_both_languages_and_many_turns() -> None:
    seen: dict[str, set[bool]] = {}
    turns = []
    for item in training_items(seed=5, count=4000):
        is_korean = any("가" <= char <= "힣" for char in str(item.messages[-1]["content"]))
        seen.setdefault(item.skill, set()).add(is_korean)
        turns.append(sum(m["role"] == "assistant" for m in item.conversation()))
    assert all(seen[name] == {True, False} for name in SKILLS)
    assert max(turns) >= 4
    assert any(item.tools for item in training_items(seed=5, count=200))


def test_long_conversations_fill_the_context() -> None:
    lengths = [sum(map(len, item.texts())) for item in training_items(seed=1, count=50, is_long=True)]
    assert max(lengths) > 3000


def test_command_shows_samples() -> None:
    command = [sys.executable, "-m", "backends.demo.corpus", "--show", "2", "--skill", "facts", "--held-out"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert shown.count("--- facts / ") == 2
    assert shown.count("<|im_start|>assistant\n") >= 2
