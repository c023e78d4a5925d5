from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from backends.admin_client import AdminClient, ProofNegative
from backends.errors import AdminError


def client(answer: Callable[[httpx.Request], httpx.Response]) -> AdminClient:
    return AdminClient("http://admin", "token-1", httpx.MockTransport(answer))


def test_calls_carry_the_token_and_quote_ids() -> None:
    seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append((request.method, request.url.raw_path.decode(), request.headers["authorization"]))
        return httpx.Response(200, json={"data": [], "lines": ["a", "b"]})

    with client(answer) as admin:
        assert admin.engines() == []
        assert admin.logs("org/m 1-0", 7) == ["a", "b"]
        admin.restart("demo-0")
        admin.drain("demo-0")
        admin.sleep("demo-0", 2)
        admin.wake("demo-0")
    assert seen == [
        ("GET", "/admin/v1/engines", "Bearer token-1"),
        ("GET", "/admin/v1/engines/org%2Fm%201-0/logs?lines=7", "Bearer token-1"),
        ("POST", "/admin/v1/engines/demo-0/restart", "Bearer token-1"),
        ("POST", "/admin/v1/engines/demo-0/drain", "Bearer token-1"),
        ("POST", "/admin/v1/engines/demo-0/sleep?level=2", "Bearer token-1"),
        ("POST", "/admin/v1/engines/demo-0/wake", "Bearer token-1"),
    ]


def test_a_refusal_is_told_in_the_servers_words() -> None:
    body = {"error": {"message": "no engine 'x'", "type": "t", "param": None, "code": None}}
    with (
        client(lambda _: httpx.Response(404, json=body)) as admin,
        pytest.raises(AdminError, match="no engine 'x'") as caught,
    ):
        admin.restart("x")
    assert (caught.value.status, caught.value.exit_code) == (404, 2)


@pytest.mark.parametrize(("status", "exit_code"), [(400, 2), (409, 2), (401, 3), (403, 3), (500, 3), (503, 3)])
def test_what_was_wrong_with_the_call_is_the_callers(status: int, exit_code: int) -> None:
    with client(lambda _: httpx.Response(status, json={})) as admin, pytest.raises(AdminError) as caught:
        admin.models()
    assert caught.value.exit_code == exit_code


@pytest.mark.parametrize("reply", [httpx.Response(200, text="<html>"), httpx.Response(500, json=[1])])
def test_something_else_at_that_address_is_said_so(reply: httpx.Response) -> None:
    with client(lambda _: reply) as admin, pytest.raises(AdminError):
        admin.engines()


def test_nobody_there() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with client(refuse) as admin, pytest.raises(AdminError, match="cannot be reached: refused"):
        admin.models()


def test_verdicts_votes_and_watches() -> None:
    seen: list[Any] = []

    def answer(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content) if request.content else None
        seen.append((request.method, request.url.raw_path.decode(), body))
        return httpx.Response(200, json={"data": [{"digest": "d"}], "digest": "d"})

    with client(answer) as admin:
        assert admin.add_verdict({"format": "forgegate-verdict", "who": "앤"}) == "d"
        assert admin.verdicts() == admin.verdicts("support@1") == [{"digest": "d"}]
        admin.point("support", {"support@1": 1}, "ann", force="why", verdict="d", reason="canary")
        admin.watch("team/support", {"min_requests": 5}, "ann")
        admin.unwatch("support")
        admin.add_vote("s1", "support@2", "support@1", "p1", "tie", "ann")
        assert admin.votes(candidate="support@2", session="s 1") == [{"digest": "d"}]
    moved = {
        "shares": [{"adapter": "support@1", "weight": 1}],
        "who": "ann",
        "reason": "canary",
        "force": "why",
        "verdict": "d",
    }
    vote = {
        "session": "s1", "candidate": "support@2", "live": "support@1", "prompt_digest": "p1", "choice": "tie", "who": "ann",
    }  # fmt: skip
    assert seen == [
        ("POST", "/admin/v1/verdicts", {"format": "forgegate-verdict", "who": "앤"}),
        ("GET", "/admin/v1/verdicts", None),
        ("GET", "/admin/v1/verdicts?candidate=support%401", None),
        ("PUT", "/admin/v1/aliases/support", moved),
        ("POST", "/admin/v1/aliases/team%2Fsupport/watch", {"min_requests": 5, "who": "ann"}),
        ("POST", "/admin/v1/aliases/support/unwatch", None),
        ("POST", "/admin/v1/votes", vote),
        ("GET", "/admin/v1/votes?candidate=support%402&session=s+1", None),
    ]


def test_benchmarks() -> None:
    seen: list[Any] = []

    def answer(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content) if request.content else None
        seen.append((request.method, request.url.raw_path.decode(), body))
        if request.url.path.endswith("/gone/report"):
            return httpx.Response(404, json={"error": {"message": "its files are gone"}})
        if request.url.path.endswith("/report"):
            return httpx.Response(200, text="<!doctype html>")
        return httpx.Response(200, json={"data": [{"id": "1"}], "id": "1"})

    with client(answer) as admin:
        assert admin.start_benchmark({"model": "demo"})["id"] == "1"
        assert admin.benchmarks() == [{"id": "1"}]
        assert admin.benchmark("a b")["id"] == "1"
        assert admin.benchmark_report("1", "html") == b"<!doctype html>"
        assert admin.stop_benchmark("1")["id"] == "1"
        with pytest.raises(AdminError, match="its files are gone") as caught:
            admin.benchmark_report("gone", "json")
    assert caught.value.exit_code == 2
    assert seen == [
        ("POST", "/admin/v1/benchmarks", {"model": "demo"}),
        ("GET", "/admin/v1/benchmarks", None),
        ("GET", "/admin/v1/benchmarks/a%20b", None),
        ("GET", "/admin/v1/benchmarks/1/report?format=html", None),
        ("DELETE", "/admin/v1/benchmarks/1", None),
        ("GET", "/admin/v1/benchmarks/gone/report?format=json", None),
    ]


# Publish --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"w" * 600_000)
    return tmp_path


def lines(*events: dict[str, Any]) -> httpx.Response:
    return httpx.Response(200, text="".join(json.dumps(event) + "\n" for event in events))


def test_an_upload_has_its_length_and_is_followed_to_its_end(adapter: Path) -> None:
    seen: list[Any] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.extend([str(request.url), request.headers["content-length"], len(request.read())])
        assert "transfer-encoding" not in request.headers
        return lines({"event": "progress", "stage": "lint"}, {"event": "published", "version": "a@1"})

    events: list[Any] = []
    sent: list[tuple[int, int]] = []
    with client(answer) as admin:
        done = admin.publish(
            adapter, "a/b", model="demo", who="ann", is_candidate_only=True, on_event=events.append,
            on_sent=lambda *pair: sent.append(pair),
        )  # fmt: skip
    assert done["version"] == "a@1"
    assert events == [{"event": "progress", "stage": "lint"}]
    assert seen[0] == "http://admin/admin/v1/adapters?name=a%2Fb&model=demo&who=ann&candidate_only=true"
    assert int(seen[1]) == seen[2] == sent[-1][0] == sent[-1][1]
    assert len(sent) > 3


@pytest.mark.parametrize(
    ("status", "code", "exit_code"), [(400, "adapter_refused", 2), (409, "proof_failed", 1), (503, "x", 3)]
)
def test_a_publication_that_fails_is_told_in_the_servers_words(
    adapter: Path, status: int, code: str, exit_code: int
) -> None:
    event = {"event": "error", "status": status, "error": {"message": "why", "code": code}}
    with client(lambda _: lines(event)) as admin, pytest.raises(AdminError, match="why") as caught:
        admin.publish(adapter, "a")
    assert (caught.value.exit_code, isinstance(caught.value, ProofNegative)) == (exit_code, exit_code == 1)


def test_an_answer_without_its_end_is_no_success(adapter: Path) -> None:
    with (
        client(lambda _: lines({"event": "progress"})) as admin,
        pytest.raises(AdminError, match="ended its answer early"),
    ):
        admin.publish(adapter, "a")
    with (
        client(lambda _: httpx.Response(200, text="<html>\n")) as admin,
        pytest.raises(AdminError, match="does not answer as"),
    ):
        admin.publish(adapter, "a")
    refusal = httpx.Response(413, json={"error": {"message": "too large"}})
    with client(lambda _: refusal) as admin, pytest.raises(AdminError, match="too large"):
        admin.publish(adapter, "a")


CALLS: dict[str, Callable[[AdminClient, str], object]] = {
    "logs": lambda admin, name: admin.logs(name, 1),
    "restart": AdminClient.restart,
    "drain": AdminClient.drain,
    "sleep": lambda admin, name: admin.sleep(name, 1),
    "wake": AdminClient.wake,
    "tune": lambda admin, name: admin.tune(name, {}),
    "adapter": AdminClient.adapter,
    "change_adapter": lambda admin, name: admin.change_adapter(name, "pin"),
    "remove_adapter": AdminClient.remove_adapter,
    "point": lambda admin, name: admin.point(name, {"a@1": 1}),
    "rollback": AdminClient.rollback,
    "remove_alias": AdminClient.remove_alias,
    "watch": lambda admin, name: admin.watch(name, {}),
    "unwatch": AdminClient.unwatch,
    "benchmark": AdminClient.benchmark,
    "benchmark_report": lambda admin, name: admin.benchmark_report(name, "json"),
    "stop_benchmark": AdminClient.stop_benchmark,
}
"""All that have a name in their path."""


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", ["", ".", "..", "../aliases/support", "a/../../aliases/support"])
def test_a_name_leads_to_no_other_path(call: str, name: str) -> None:
    with (
        client(lambda request: pytest.fail(f"{request.method} {request.url}")) as admin,
        pytest.raises(AdminError) as caught,
    ):
        CALLS[call](admin, name)
    assert (str(caught.value), caught.value.exit_code) == (f"{name!r} names nothing here", 2)


@pytest.mark.parametrize("call", CALLS)
def test_a_name_is_one_segment(call: str) -> None:
    seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.raw_path.decode())
        return lines({"event": "tuned"}) if call == "tune" else httpx.Response(200, json={"lines": []})

    with client(answer) as admin:
        CALLS[call](admin, "a/b?c#d%2F..")
    assert seen[0].split("/")[4].partition("?")[0] == "a%2Fb%3Fc%23d%252F.."


def test_names_are_quoted_with_their_slashes() -> None:
    seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append((request.method, request.url.raw_path.decode(), request.read().decode()))
        return httpx.Response(200, json={"data": []})

    with client(answer) as admin:
        admin.point("team/a b", {"a@1": 9, "b@2": 1}, "ann", force="late")
        admin.rollback("x?", "ann")
        admin.change_adapter("a@1", "pin")
    body = {"shares": [{"adapter": "a@1", "weight": 9}, {"adapter": "b@2", "weight": 1}], "who": "ann", "force": "late"}
    assert [(method, path) for method, path, _ in seen] == [
        ("PUT", "/admin/v1/aliases/team%2Fa%20b"), ("POST", "/admin/v1/aliases/x%3F/rollback"), ("POST", "/admin/v1/adapters/a%401/pin"),
    ]  # fmt: skip
    assert json.loads(seen[0][2]) == body
