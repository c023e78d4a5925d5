"""`forgegate data vary` against a server that says what a script tells it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from finetune import data
from finetune.evaluation.asking import Asker
from finetune.parity.served import EndpointFailed, EndpointRefused
from finetune.variants import command
from finetune.variants.command import Varied, identity, journal_of, read_seeds, vary
from finetune.variants.journal import Journal
from finetune.variants.making import Budget, Settings
from tests.finetune.variants.scripted import Script, Server, lines_of

SYSTEM = "Answer like a clerk of a furniture shop."
SEEDS = [
    ("When will the grey sofa that I ordered be delivered?", "It will be delivered within five working days."),
    ("My lamp arrived with a broken shade, what shall I do?", "Send us a picture and we replace the shade."),
    ("How can I pay for a table by monthly instalments?", "Choose instalments when you pay in the shop."),
]
PLACES = (
    "Berlin",
    "Madrid",
    "Oslo",
    "Lisbon",
    "Vienna",
    "Dublin",
    "Warsaw",
    "Prague",
    "Athens",
    "Helsinki",
    "Rome",
    "Paris",
)
VERBS = (
    "repair",
    "paint",
    "collect",
    "exchange",
    "insure",
    "polish",
    "measure",
    "dismantle",
    "store",
    "clean",
    "rent",
    "sell",
)
THINGS = (
    "wardrobes",
    "mirrors",
    "carpets",
    "desks",
    "shelves",
    "beds",
    "curtains",
    "chairs",
    "cupboards",
    "benches",
    "stools",
    "clocks",
)


def fresh(number: int) -> tuple[str, str]:
    """A pair that is like none of another number."""
    place, verb, thing = (words[number % 12] for words in (PLACES, VERBS, THINGS))
    forms = (
        f"Does anybody in {place} {verb} {thing} on weekends?", f"{thing.title()}: who would {verb} them near {place}?",
        f"I moved to {place} and want somebody to {verb} my {thing}.",
    )  # fmt: skip
    return forms[number // 12 % 3], f"Our workshop in {place} can {verb} your {thing} from Monday to Friday."


def write_seeds(path: Path, system: str = SYSTEM) -> Path:
    rows = [
        {
            "messages": [
                {"role": "system", "content": system},
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer},
            ]
        }
        for question, answer in SEEDS
    ]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def four(body: dict[str, Any], number: int) -> str:
    return lines_of(*(fresh(4 * number + place) for place in range(4)))


async def run(
    tmp_path: Path, server: Server, budget: Budget, settings: Settings | None = None, at_a_time: int = 1
) -> Varied:
    seeds, _ = read_seeds([write_seeds(tmp_path / "seeds.jsonl")], {})
    settings = settings or Settings("large")

    async def wait(seconds: float) -> None:
        return

    with Journal(journal_of(tmp_path / "out.jsonl"), identity(settings, seeds)) as journal:
        async with Asker("http://h", "k", at_a_time, transport=server.transport(), sleep=wait) as asker:
            return await vary(asker, seeds, settings, budget, journal, at_a_time, 0.7)


async def test_variants_come_with_the_system_prompt_of_their_seeds(tmp_path: Path) -> None:
    server = Server(four)
    found = await run(tmp_path, server, Budget(rows=6, requests=10))
    assert found.as_json() == {"seeds": 3, "rows": 6, "made": 8, "requests": 2, "tokens": 240, "left_out": {}}
    record = found.variants[0].record()
    assert record["messages"] == [
        {"role": "system", "content": SYSTEM}, {"role": "user", "content": fresh(0)[0]}, {"role": "assistant", "content": fresh(0)[1]},
    ]  # fmt: skip
    assert set(record["seeds"]) <= {1, 2, 3}
    body = server.bodies[0]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("large", 1.0, 1024)
    assert all(question in body["messages"][0]["content"] for question, _ in SEEDS)
    assert server.headers[0]["authorization"] == "Bearer k"
    assert server.headers[0]["x-forgegate-no-log"] == "1"


async def test_what_is_no_variant_is_left_out_for_a_reason(tmp_path: Path) -> None:
    def script(body: dict[str, Any], number: int) -> str:
        return "\n".join([
            lines_of(
                SEEDS[0], fresh(1), fresh(1), ("이 소파의 배송은 언제쯤 가능한지 알려 주세요.", "내일 도착합니다."),
                (fresh(2)[0], "네, 월요일에 배송해 드립니다."),
            ),
            '{"question": "no answer"}',
            lines_of((fresh(3)[0], "Call our workshop, its number is 010-1234-5678, until five in the evening.")),
        ])  # fmt: skip

    found = await run(tmp_path, Server(script), Budget(rows=9, requests=1))
    assert [variant.question for variant in found.variants] == [fresh(1)[0]]
    assert found.left_out == {"unusable": 1, "similar": 2, "language": 2, "personal_data": 1}
    assert found.num_made == 7


async def test_what_the_doctor_leaves_out_is_made_anew(tmp_path: Path) -> None:
    def script(body: dict[str, Any], number: int) -> str:
        question, answer = fresh(number)
        return lines_of((question, "Write to jane.doe@example.com, she knows all about it." if number == 1 else answer))

    found = await run(tmp_path, Server(script), Budget(rows=3, requests=9))
    assert len(found.variants) == 3
    assert found.num_requests == 4
    assert found.left_out == {"personal_data": 1}


@pytest.mark.parametrize(
    ("budget", "num_requests"), [(Budget(99, 3), 3), (Budget(99, 99, 300), 3), (Budget(99, 99, 240), 2)]
)
async def test_a_budget_ends_it(tmp_path: Path, budget: Budget, num_requests: int) -> None:
    found = await run(tmp_path, Server(four), budget)
    assert found.num_requests == num_requests
    assert found.num_tokens == 120 * num_requests


async def test_an_endpoint_that_does_not_count_is_estimated(tmp_path: Path) -> None:
    found = await run(tmp_path, Server(four, counts_tokens=False), Budget(99, 1))
    assert 300 < found.num_tokens < 900


async def test_answers_asked_apart_are_the_assistants_own(tmp_path: Path) -> None:
    def script(body: dict[str, Any], number: int) -> str:
        if body["messages"][0]["role"] == "user":
            return lines_of(*((fresh(place)[0], "") for place in range(2))).replace(', "answer": ""', "")
        return " Our workshop does that from Monday to Friday, please call before. "

    server = Server(script)
    found = await run(tmp_path, server, Budget(2, 5), Settings("large", answers="apart"))
    assert [body["temperature"] for body in server.bodies] == [1.0, 0.0, 0.0]
    assert server.bodies[1]["messages"] == [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": fresh(0)[0]},
    ]
    assert found.variants[0].answer == "Our workshop does that from Monday to Friday, please call before."
    assert (found.num_requests, found.num_tokens) == (1, 360)


async def test_an_endpoint_may_hold_the_model_to_a_schema(tmp_path: Path) -> None:
    def script(body: dict[str, Any], number: int) -> str:
        assert body["response_format"]["json_schema"]["strict"]
        return json.dumps(
            {"examples": [dict(zip(("question", "answer"), fresh(place), strict=True)) for place in range(2)]}
        )

    found = await run(tmp_path, Server(script), Budget(2, 1), Settings("large", has_schema=True))
    assert len(found.variants) == 2


async def test_requests_at_a_time_are_bounded(tmp_path: Path) -> None:
    server = Server(four, pause_s=0.01)
    found = await run(tmp_path, server, Budget(24, 99), at_a_time=3)
    assert server.most_running == 3
    assert len(found.variants) == 24


async def test_a_busy_endpoint_is_asked_again(tmp_path: Path) -> None:
    def script(body: dict[str, Any], number: int) -> str | httpx.Response:
        return four(body, number) if number % 2 else httpx.Response(429, headers={"retry-after": "1"})

    server = Server(script)
    assert len((await run(tmp_path, server, Budget(8, 9))).variants) == 8
    assert len(server.bodies) == 4


async def test_what_was_cut_off_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    def by_seed(body: dict[str, Any], number: int) -> str:
        return four(body, body["seed"])  # the number of the request, whenever it is asked

    elsewhere = tmp_path / "whole"
    elsewhere.mkdir()
    whole = await run(elsewhere, Server(by_seed), Budget(20, 99))

    def breaks(body: dict[str, Any], number: int) -> str | httpx.Response:
        return by_seed(body, number) if number < 2 else httpx.Response(500, json={"error": {"message": "gone"}})

    with pytest.raises(EndpointFailed, match="gone"):
        await run(tmp_path, Server(breaks), Budget(20, 99))
    rest = Server(by_seed)
    again = await run(tmp_path, rest, Budget(20, 99))
    assert again == whole
    assert len(rest.bodies) == whole.num_requests - 2
    idle = Server(by_seed)
    assert await run(tmp_path, idle, Budget(20, 99)) == whole
    assert idle.bodies == []
    more = await run(tmp_path, idle, Budget(24, 99))
    assert more.variants[:20] == whole.variants
    assert len(idle.bodies) == 1


async def test_a_refusal_is_said(tmp_path: Path) -> None:
    server = Server(lambda body, number: httpx.Response(404, json={"error": {"message": "there is no model large"}}))
    with pytest.raises(EndpointRefused, match="there is no model large"):
        await run(tmp_path, server, Budget(8, 9))
    assert len(server.bodies) == 1


# The command ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Callable[[Script], Server]:
    """What the command reaches in place of an endpoint."""

    def serve(script: Script) -> Server:
        server = Server(script)
        made = command.Asker
        monkeypatch.setattr(
            command, "Asker", lambda url, key, at_a_time: made(url, key, at_a_time, transport=server.transport())
        )
        return server

    return serve


def test_the_command(tmp_path: Path, served: Callable[[Script], Server], capsys: pytest.CaptureFixture[str]) -> None:
    served(four)
    seeds, out = write_seeds(tmp_path / "seeds.jsonl"), tmp_path / "out.jsonl"
    argv = ["vary", str(seeds), "--url", "http://h", "--model", "large", "--out", str(out), "--at-a-time", "1"]
    assert data.main([*argv, "--rows", "4"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said == [
        f"{out}: 4 rows after 3 seeds, of 4 made by 1 requests with 120 tokens", f"next: forgegate data review {out} --out kept.jsonl",
    ]  # fmt: skip
    assert len(out.read_text().splitlines()) == 4
    assert data.main([*argv, "--rows", "40", "--requests", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["requests"] == 2
    assert data.main([*argv, "--rows", "40", "--requests", "2"]) == 0
    assert "fewer than asked for: the budget is spent" in capsys.readouterr().out
    assert data.main([*argv, "--temperature", "0.5"]) == 2
    assert "is of another run (temperature was 1.0)" in capsys.readouterr().err


def test_replies_that_cannot_be_read_are_shown(
    tmp_path: Path, served: Callable[[Script], Server], capsys: pytest.CaptureFixture[str]
) -> None:
    served(lambda body, number: "I am a small model.")
    seeds, out = write_seeds(tmp_path / "seeds.jsonl"), tmp_path / "out.jsonl"
    assert (
        data.main(["vary", str(seeds), "--url", "http://h", "--model", "m", "--out", str(out), "--requests", "2"]) == 0
    )
    assert (
        f"nothing in the replies could be read; {out}.vary has how they began: try --schema" in capsys.readouterr().out
    )
    assert '"said": "I am a small model."' in journal_of(out).read_text()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--rows", "0"], "no whole number above 0"),
        (["--temperature", "3"], "is no number from 0 to 2"),
        (["--max-similar", "nan"], "is no number from 0 to 1"),
        (["--answers", "never"], "invalid choice"),
    ],
)
def test_usage_is_checked_first(tmp_path: Path, argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        data.main(["vary", "seeds.jsonl", "--model", "m", "--out", str(tmp_path / "o"), *argv])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_what_cannot_be_used_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seeds = write_seeds(tmp_path / "seeds.jsonl")
    for argv, said in (
        ([str(seeds), "--out", str(seeds)], "one of the files that are read"),
        ([str(tmp_path / "none"), "--out", str(tmp_path / "o")], "no such file"),
        ([str(seeds), "--out", str(tmp_path / "o")], "no forgegate is running"),
        ([str(seeds), "--out", str(tmp_path / "o"), "--url", "nowhere"], "nowhere is no address"),
    ):
        assert data.main(["vary", *argv, "--model", "m"]) == 2
        assert said in capsys.readouterr().err
