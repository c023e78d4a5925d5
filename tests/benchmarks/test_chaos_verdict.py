"""The verdict on a request that ended under fire: strict, since the whole campaign rests on it."""

from __future__ import annotations

import random

import orjson
import pytest

from benchmarks.chaos_client import make_ask
from benchmarks.chaos_verdict import CHAT, COMPLETIONS, MESSAGES, RESPONSES, Api, Ending, judge
from benchmarks.http1 import Exchange
from benchmarks.record import Failure, FailureKind

CHUNK = b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\n'
LAST = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"length"}]}\n\n'
DONE = b"data: [DONE]\n\n"
ERROR = b'data: {"error":{"message":"m","type":"t","param":null,"code":"engine_reset"}}\n\n'
CUT = Failure(FailureKind.TRUNCATED, "connection closed within the answer")
RESET = Failure(FailureKind.RESET, "connection closed before the answer's headers")


def exchange(body: bytes, status: int | None = 200, failure: Failure | None = None) -> Exchange:
    exchange = Exchange()
    exchange.status, exchange.failure, exchange.is_complete = status, failure, failure is None
    exchange.pieces.append(body)
    return exchange


@pytest.mark.parametrize(
    ("body", "ending", "detail"),
    [
        (CHUNK + LAST + DONE, Ending.ANSWERED, ""),
        (CHUNK + ERROR, Ending.ERROR_EVENT, "engine_reset"),
        (LAST + ERROR, Ending.ERROR_EVENT, "engine_reset"),
        (CHUNK + DONE, Ending.VIOLATION, "a last event without a reason for the end"),
        (CHUNK + LAST, Ending.VIOLATION, "0 terminal events"),
        (b"", Ending.VIOLATION, "0 terminal events"),
        (LAST + DONE + ERROR, Ending.VIOLATION, "2 terminal events"),
        (LAST + DONE + DONE, Ending.VIOLATION, "2 terminal events"),
        (ERROR + CHUNK, Ending.VIOLATION, "something follows the terminal event"),
        (CHUNK + DONE[:-2], Ending.VIOLATION, "ends inside an event"),
        (b"data: 7\n\n", Ending.VIOLATION, "an event that is not a JSON object"),
        (b"data: {\n\n", Ending.VIOLATION, "an event that is not a JSON object"),
    ],
)
def test_streams(body: bytes, ending: Ending, detail: str) -> None:
    assert judge(CHAT, exchange(body), True, False) == (ending, detail)
    assert judge(CHAT, exchange(body), True, True) == (ending, detail)  # a killed worker excuses no strange end


def named(**fields: object) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (str(fields["type"]).encode(), orjson.dumps(fields))


DELTA = {MESSAGES: named(type="content_block_delta"), RESPONSES: named(type="response.output_text.delta", delta="a")}
REASON = named(type="message_delta", delta={"stop_reason": "end_turn"})
FAILED = named(type="error", error={"type": "api_error", "message": "m", "code": "engine_reset"})


@pytest.mark.parametrize(
    ("api", "last", "ending"),
    [
        (MESSAGES, REASON + named(type="message_stop"), Ending.ANSWERED),
        (MESSAGES, named(type="message_stop"), Ending.VIOLATION),
        (MESSAGES, REASON, Ending.VIOLATION),
        (MESSAGES, FAILED, Ending.ERROR_EVENT),
        (MESSAGES, REASON + named(type="message_stop") + FAILED, Ending.VIOLATION),
        (RESPONSES, named(type="response.completed", response={"status": "completed", "error": None}), Ending.ANSWERED),
        (RESPONSES, named(type="response.incomplete", response={"status": "incomplete"}), Ending.ANSWERED),
        (RESPONSES, named(type="response.completed", response={"status": "in_progress"}), Ending.VIOLATION),
        (RESPONSES, FAILED, Ending.ERROR_EVENT),
        (RESPONSES, b"", Ending.VIOLATION),
        (RESPONSES, b"data: [DONE]\n\n", Ending.VIOLATION),
    ],
)
def test_streams_of_named_events(api: Api, last: bytes, ending: Ending) -> None:
    assert judge(api, exchange(DELTA[api] * 2 + last), True, False)[0] is ending


@pytest.mark.parametrize(
    ("api", "body", "ending"),
    [
        (MESSAGES, {"stop_reason": "end_turn"}, Ending.ANSWERED),
        (MESSAGES, {"stop_reason": None}, Ending.VIOLATION),
        (RESPONSES, {"status": "incomplete"}, Ending.ANSWERED),
        (RESPONSES, {"status": "in_progress"}, Ending.VIOLATION),
        (COMPLETIONS, {"choices": [{"finish_reason": "length"}]}, Ending.ANSWERED),
    ],
)
def test_whole_answers_of_every_api(api: Api, body: object, ending: Ending) -> None:
    assert judge(api, exchange(orjson.dumps(body)), False, False)[0] is ending


@pytest.mark.parametrize(
    ("body", "ending"),
    [
        ({"choices": [{"finish_reason": "stop"}]}, Ending.ANSWERED),
        ({"choices": [{"finish_reason": None}]}, Ending.VIOLATION),
        ({"choices": []}, Ending.VIOLATION),
        ([], Ending.VIOLATION),
    ],
)
def test_whole_answers(body: object, ending: Ending) -> None:
    assert judge(CHAT, exchange(orjson.dumps(body)), False, False)[0] is ending


@pytest.mark.parametrize("is_stream", [True, False])
def test_http_errors_need_their_envelope(is_stream: bool) -> None:
    envelope = ERROR.removeprefix(b"data: ")
    assert judge(CHAT, exchange(envelope, 502), is_stream, False) == (Ending.HTTP_ERROR, "502 engine_reset")
    for body in (b"", b"Bad Gateway", b'{"error":{"message":"m"}}', b'{"error":"m"}'):
        assert judge(CHAT, exchange(body, 502), is_stream, False)[0] is Ending.VIOLATION


@pytest.mark.parametrize("failure", [CUT, RESET])
def test_a_cut_is_excused_by_the_death_of_the_worker_only(failure: Failure) -> None:
    cut = exchange(CHUNK, 200 if failure is CUT else None, failure)
    assert judge(CHAT, cut, True, True) == (Ending.CUT, failure.kind.value)
    ending, detail = judge(CHAT, cut, True, False)
    assert ending is Ending.VIOLATION
    assert "although its worker lived" in detail


def test_what_was_whole_before_the_cut_is_no_cut() -> None:
    assert judge(CHAT, exchange(CHUNK + LAST + DONE, failure=CUT), True, True) == (Ending.ANSWERED, "")
    assert judge(CHAT, exchange(CHUNK + ERROR, failure=CUT), True, True) == (Ending.ERROR_EVENT, "engine_reset")
    assert judge(CHAT, exchange(b'{"choices":', failure=CUT), False, True)[0] is Ending.CUT


@pytest.mark.parametrize("kind", [FailureKind.TIMEOUT, FailureKind.CONNECT, FailureKind.BAD_RESPONSE])
def test_nothing_excuses_a_hang_a_refusal_or_nonsense(kind: FailureKind) -> None:
    assert judge(CHAT, exchange(b"", None, Failure(kind, "x")), True, True)[0] is Ending.VIOLATION


def test_asks_cover_every_kind_and_repeat_with_their_seed() -> None:
    def kinds(seed: int) -> list[tuple[str, bool]]:
        dice = random.Random(seed)
        return [(ask.kind, ask.cancel_after_s is None) for ask in (make_ask(dice, "demo") for _ in range(400))]

    assert kinds(1) == kinds(1) != kinds(2)
    assert len(set(kinds(1))) == 16  # four APIs, streamed and whole, cancelled and not
