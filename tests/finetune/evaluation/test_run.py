"""Whole evaluations against scripted endpoints."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from finetune.errors import RecipeUnusable
from finetune.evaluation import result
from finetune.evaluation.compare import compared
from finetune.evaluation.greetings import GREETINGS
from finetune.evaluation.items import Item
from finetune.evaluation.judge import Judge
from finetune.evaluation.result import Evaluation
from finetune.evaluation.rows import Scoring, task_of_items
from finetune.evaluation.run import Endpoint, evaluate
from finetune.evaluation.session import ModelChanged
from finetune.evaluation.show import lines, markdown
from finetune.evaluation.suite import Suite
from finetune.parity.served import EndpointFailed, EndpointRefused
from tests.finetune.evaluation.server import Body, Said, Script, question, serving

NUM = 40
SUITE = Suite(
    task_of_items(
        "tickets",
        [
            Item(f"t{n}", f"c{n % 10}", json.dumps({"order": n}), ({"role": "user", "content": f"ticket {n}"},))
            for n in range(NUM)
        ],
        Scoring("json_fields"),
    ),
    (
        task_of_items(
            "sums",
            [Item(f"s{n}", f"s{n}", str(n + 1), ({"role": "user", "content": f"{n} + 1"},)) for n in range(NUM)],
            Scoring("exact"),
        ),
    ),
)


def right(body: Body) -> Said:
    """The tuned model knows tickets, and has forgotten a quarter of its sums; the base knows sums."""
    asked = question(body)
    number = asked.split()[1 if asked.startswith("ticket") else 0]
    if asked.startswith("ticket"):
        return Said(json.dumps({"order": int(number)})) if body["model"] == "tuned" else Said("Sorry?")
    if asked.endswith("+ 1"):
        has_forgotten = body["model"] == "tuned" and int(number) % 4 == 0
        return Said('{"order": 0}' if has_forgotten else str(int(number) + 1))
    return Said("Hello to you!")


def run(
    script: Script, models: Sequence[str] = ("demo", "tuned"), cache: Path | None = None, **more: object
) -> Evaluation:
    told: list[tuple[str, str, int, int]] = []
    with serving(script) as url:
        return evaluate(
            SUITE, Endpoint(url, "key", 4), models, 500, lambda *each: told.append(each), cache, **more  # type: ignore[arg-type]
        )  # fmt: skip


@pytest.fixture(scope="module")
def script() -> Script:
    return Script(right)


@pytest.fixture(scope="module")
def plain(script: Script) -> Evaluation:
    """Of both models."""
    return run(script)


def test_two_models_are_held_against_each_other_item_by_item(script: Script, plain: Evaluation) -> None:
    found = plain
    assert [(one.asked, one.resolved, one.base) for one in found.models] == [
        ("demo", "demo@0123456789ab", "demo@0123456789ab"),
        ("tuned", "tuned@ba9876543210", "demo@0123456789ab"),
    ]
    tickets = found.paired("tickets", "demo", "tuned@ba9876543210")
    assert (set(tickets.live), set(tickets.candidate), tickets.num_clusters) == ({0.0}, {1.0}, 10)
    sums = found.paired("sums", "demo", "tuned")
    assert (sums.difference, sums.num_items) == (-25.0, NUM)
    lost = [item for item, score in zip(found.scores["sums"].items, sums.candidate, strict=True) if not score]
    assert sorted(lost) == sorted(f"s{n}" for n in range(0, NUM, 4))
    assert found.metrics == {"tickets": {"json_fields": [0.0, 1.0]}, "sums": {"exact": [1.0, 0.75]}}
    rows = {row.name: row for row in compared(found, "tuned")}
    assert (rows["tickets"].words, rows["sums"].words) == ("better", "lost more than 3")
    assert rows["sums"].lower < -25 < rows["sums"].upper < -3
    assert all(body["temperature"] == 0 and body["seed"] == 0 for body in script.asked())


def test_what_else_changed_is_told() -> None:
    found = run(Script(right, logprob=lambda model, token: -2.0 if model == "demo" else -0.5))
    assert [(one["set"], one["feature"]) for one in found.drift["changes"]] == [
        ("task", "json"), ("task", "median_chars"), ("general", "json"),
    ]  # fmt: skip
    assert found.perplexity is not None
    assert found.perplexity["by_model"] == pytest.approx([math.exp(2.0), math.exp(0.5)])
    assert found.perplexity["num_items"] == NUM
    assert found.greetings["failed"] == []
    assert [row["num_styled"] for row in found.greetings["by_model"]] == [0, 0]
    for row in found.speed["by_model"]:
        assert row["ttft_ms"]["p50"] > 0
        assert row["tokens_per_s"] > 0
        assert row["num_new"] == row["num_answers"] == 2 * NUM


def test_greetings_in_the_style_of_the_task_fail() -> None:
    def styled(body: Body) -> Said:
        return Said('{"order": 0}') if body["model"] == "tuned" and question(body) in GREETINGS else right(body)

    found = run(Script(styled))
    assert found.greetings["failed"] == ["tuned"]
    assert found.greetings["by_model"][1]["num_styled"] == len(GREETINGS)
    assert found.greetings["by_model"][1]["styled"][0] == {
        "question": "Hello!", "answer": '{"order": 0}', "why": "it is JSON",
    }  # fmt: skip
    assert '  - Hello! -> {"order": 0} (it is JSON)' in markdown(found).splitlines()
    assert any("FAILS: tuned answers 24 of 24 greetings in the style of the task" in line for line in lines(found))


def test_answers_are_not_asked_for_twice_and_more_items_ask_for_the_rest(tmp_path: Path) -> None:
    script = Script(right)
    cache = tmp_path / "cache.jsonl"
    with serving(script) as url:
        few = evaluate(SUITE, Endpoint(url), ["demo", "tuned"], {"tickets": 10, "sums": 5}, lambda *_: None, cache)
        num = len(script.asked())
        again = evaluate(SUITE, Endpoint(url), ["demo", "tuned"], {"tickets": 10, "sums": 5}, lambda *_: None, cache)
        assert len(script.asked()) == num
        more = evaluate(SUITE, Endpoint(url), ["demo", "tuned"], {"tickets": 10, "sums": 20}, lambda *_: None, cache)
        assert len(script.asked()) == num + 2 * 15
    assert again.scores == few.scores
    assert more.scores["sums"].items[:5] == few.scores["sums"].items
    assert (len(more.scores["sums"].items), len(more.scores["tickets"].items)) == (20, 10)
    assert again.speed["by_model"][0]["tokens_per_s"] is None


def test_what_was_cut_off_goes_on(tmp_path: Path) -> None:
    cache = tmp_path / "cache.jsonl"
    left = [25]

    def dying(body: Body) -> Said:
        left[0] -= 1
        return right(body) if left[0] > 0 else Said("out of order", 500)

    with pytest.raises(EndpointRefused, match=r"demo refuses item t\d+: out of order"):
        run(Script(dying), cache=cache)
    script = Script(right)
    assert run(script, cache=cache).metrics["sums"]["exact"] == [1.0, 0.75]
    assert len(script.asked()) == 2 * (2 * NUM + len(GREETINGS)) - 24


def test_a_suite_without_general_skills() -> None:
    with serving(Script(right)) as url:
        found = evaluate(replace(SUITE, general=()), Endpoint(url), ["demo", "tuned"], 5, lambda *_: None)
    assert (found.general, set(found.scores), set(found.drift["sets"])) == ((), {"tickets"}, {"task", "greetings"})
    assert [row.name for row in compared(found, "tuned")] == ["tickets"]


def test_an_engine_that_takes_no_tools_is_told_what_it_needs() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    items = [Item("t", "t", "x", ({"role": "user", "content": "Call f"},), (tool,))]
    suite = replace(SUITE, task=task_of_items("calls", items, Scoring("exact")))
    script = Script(lambda body: Said("no tools here", 400) if "tools" in body else right(body))
    with (
        serving(script) as url,
        pytest.raises(EndpointRefused, match=r"refuses item t: no tools here; .*tool_call_parser: hermes"),
    ):
        evaluate(suite, Endpoint(url), ["demo"], 5, lambda *_: None)


def test_a_version_that_changes_under_way_ends_it() -> None:
    script = Script(right)

    def moving(body: Body) -> Said:
        if body["model"] == "tuned" and question(body) == "7 + 1":
            script.versions["tuned"] = "tuned@ffffffffffff"
        return right(body)

    script.answer = moving
    with pytest.raises(
        ModelChanged, match=r"tuned was tuned@ba9876543210 and is now answered by tuned@ffffffffffff.*NAME@DIGEST"
    ):
        run(script)


def test_where_versions_are_not_told_answers_are_asked_for_anew(tmp_path: Path) -> None:
    script = Script(right, tells_version=False)
    run(script, cache=tmp_path / "cache.jsonl")
    num = len(script.asked())
    found = run(script, cache=tmp_path / "cache.jsonl")
    assert len(script.asked()) == 2 * num
    assert [one.resolved for one in found.models] == ["demo", "tuned"]
    assert len(found.environment["notes"]) == 2
    assert found.environment["notes"][0].startswith("demo: the endpoint does not say which version answers")


def test_without_log_probabilities_there_is_no_perplexity() -> None:
    found = run(Script(right, scores=False))
    assert found.perplexity is None
    assert found.environment["notes"] == [
        note
        for note in found.environment["notes"]
        if note.startswith("no perplexity: ") and note.endswith("echo is not supported")
    ]
    assert len(found.environment["notes"]) == 2


def test_a_judge_is_asked_in_both_orders() -> None:
    def judging(body: Body) -> Said:
        text = question(body)
        first = text.split("<answer_1>\n")[1].split("\n</answer_1>")[0]
        return Said(f"Reason. [[{1 if first.startswith('{') else 2}]]")

    with serving(Script(judging, versions={"large": "large@1"}, parents={})) as judge_url:
        found = run(Script(right), judged_by=Judge(judge_url, "large", rubric="Be fair.", num_items=12))
    assert found.judge is not None
    assert found.judge["by_model"][0] is None
    told = found.judge["by_model"][1]
    assert (told["num_items"], told["wins"], told["win_rate"], told["inconsistent"]) == (12, 12, 1.0, 0)
    assert found.judge["resolved"] == "large@1"


def test_a_judge_that_prefers_a_place_decides_nothing() -> None:
    with serving(Script(lambda body: Said("[[1]]"), versions={"large": "large@1"}, parents={})) as judge_url:
        found = run(Script(right), judged_by=Judge(judge_url, "large", num_items=12))
    assert found.judge is not None
    told = found.judge["by_model"][1]
    assert (told["ties"], told["inconsistent"], told["win_rate"]) == (12, 12, 0.5)


def test_one_model_is_only_scored() -> None:
    found = run(Script(right), models=["demo"])
    assert [line.split() for line in lines(found)][:3] == [
        ["demo@0123456789ab"], ["tickets", "0.0", "%", "json_fields", "of", "40", "items"],
        ["sums", "100.0", "%", "exact", "of", "40", "items"],
    ]  # fmt: skip
    assert "| sums | exact | 40 | 100.0 % |" in markdown(found)


@pytest.mark.parametrize("models", [[], ["demo", "demo"]])
def test_models_are_different_ones(models: list[str]) -> None:
    with pytest.raises(RecipeUnusable, match="what is live first"):
        run(Script(right), models)


def test_a_model_that_is_not_served_is_named() -> None:
    with pytest.raises(RecipeUnusable, match="the model 'nobody' does not exist"):
        run(Script(right), ["demo", "nobody"])
    with pytest.raises(EndpointFailed, match="cannot be reached"):
        evaluate(SUITE, Endpoint("http://127.0.0.1:9"), ["demo"], 1, lambda *_: None)


# the files -------------------------------------------------------------------------------------------------------------


def test_what_is_written_is_read_again(tmp_path: Path, plain: Evaluation) -> None:
    found = plain
    path = result.write(found, tmp_path / "out")
    assert result.read(path) == result.read(tmp_path / "out") == replace(found, answers=list(found.answers))
    document = json.loads(path.read_text("utf-8"))
    assert document["suite"] == {
        "digest": SUITE.digest, "task": "tickets", "general": ["sums"], "max_drop": {"sums": 3.0}, "rule": "improve",
    }  # fmt: skip
    answers = [json.loads(line) for line in (tmp_path / "out" / "answers.jsonl").read_text("utf-8").splitlines()]
    assert len(answers) == 2 * NUM
    assert answers[0]["task"] == "tickets"
    assert [one["score"] for one in answers[0]["answers"]] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", "it is no evaluation"),
        ("[1]", "it is no evaluation"),
        ("{", "it is damaged"),
        ('{"format": "forgegate-evaluation", "format_version": 2}', "its format_version is 2; read is 1"),
        ('{"format": "forgegate-evaluation", "format_version": 1}', "it is damaged"),
    ],
)
def test_a_document_that_cannot_be_read(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "evaluation.json"
    path.write_text(text)
    with pytest.raises(RecipeUnusable, match=words):
        result.read(path)


def test_a_document_whose_lists_do_not_pair_is_damaged(tmp_path: Path, plain: Evaluation) -> None:
    path = result.write(plain, tmp_path)
    document = json.loads(path.read_text("utf-8"))
    document["scores"]["sums"]["by_model"][1].pop()
    path.write_text(json.dumps(document))
    with pytest.raises(RecipeUnusable, match="lists of sums are of different lengths"):
        result.read(path)


def test_the_table(plain: Evaluation) -> None:
    found = plain
    table = list(lines(found))
    assert table[0] == "tuned@ba9876543210 (candidate) against demo@0123456789ab (live)"
    assert table[2].split()[:9] == ["tickets", "json_fields", "40", "10", "0.0", "%", "100.0", "%", "+100.0"]
    assert table[3].split()[:2] == ["sums", "exact"]
    assert table[3].endswith("lost more than 3")
    text = markdown(found)
    assert "## tuned@ba9876543210 against demo@0123456789ab" in text
    assert "| sums | exact | 40 | 40 | 100.0 % | 75.0 % | -25.0 |" in text
    assert all(line.count("|") == 10 for line in text.splitlines() if line.startswith("|"))
