"""How long a claim waits, and in which words it is refused."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from gateway.data.claim import AdapterClaim, EngineClaim
from gateway.data.snapshot import Index, ModelRoute
from gateway.data.waitline import WaitLine
from gateway.errors import AdapterNotReady, GatewayError, NoEngineReady
from gateway.snapshot import Adapter, Engine, Model, Snapshot


class Deaf:
    def wait_answered(self, route: ModelRoute) -> None: ...

    def wait_refused(self, error: GatewayError) -> None: ...

    def wait_continues(self, route: ModelRoute) -> None: ...


def index_of(*states: str, is_on_demand: bool = True, limit: int = 9, failed_starts: Sequence[int] = (0, 0)) -> Index:
    """`paused`: stopped, since its start failed; `held`: stopped, since somebody drained it."""
    engines = tuple(
        Engine(
            f"m-{n}",
            n,
            "vllm",
            "stopped" if state in ("paused", "held") else state,
            "h",
            1,
            is_on_demand=is_on_demand and state != "held",
            is_paused=state == "paused",
            detail=f"{state} it is",
            retry_after_s=1 if state in ("failed", "held") else 40 + n,
            num_failed_starts=failed_starts[n],
        )
        for n, state in enumerate(states)
    )
    adapter = Adapter("a@1", "m", retry_after_s=3)
    return Index(
        Snapshot(
            1, (Model("m", "m", engines),), (adapter,), engine_wait_s=300, adapter_wait_s=60, max_engine_waiting=limit
        )
    )


def line() -> WaitLine:
    return WaitLine(lambda _: None)


def test_an_engine_is_awaited_for_one_time_in_all() -> None:
    claim = EngineClaim("m", line(), Deaf())
    index = index_of("stopped")
    assert claim.wait_ms is None
    assert claim.header_line() == b""
    assert claim.enter(index, (), 1000.0) == 1300.0
    claim.leave(1100.0)
    assert claim.enter(index, (), 2000.0) == 2200.0
    claim.leave(2000.5)
    claim.leave(3000.0)
    assert (claim.wait_ms, claim.header_line()) == (100500.0, b"x-forgegate-engine-wait-ms: 100500\r\n")


def test_an_adapter_is_awaited_longer_where_an_engine_has_to_start_first() -> None:
    assert AdapterClaim("a@1", line(), Deaf()).enter(index_of("ready", "stopped"), (), 0.0) == 60.0
    claim = AdapterClaim("a@1", line(), Deaf())
    assert claim.enter(index_of("stopped"), (), 0.0) == 360.0
    claim.leave(100.0)
    # The engine that it had waited for has lost the adapter: what is left of the time still counts.
    assert claim.enter(index_of("ready"), (), 100.0) == 360.0
    assert "not loaded within 360 s" in claim.too_late(index_of("ready")).message
    claim.leave(100.0)


@pytest.mark.parametrize("state", ["stopped", "asleep", "starting", "backoff", "draining"])
def test_an_engine_that_may_come_is_awaited(state: str) -> None:
    assert EngineClaim("m", line(), Deaf()).refusal(index_of(state)) is None
    assert EngineClaim("m", line(), Deaf()).refusal(index_of("failed", state)) is None


def test_what_will_not_come_is_refused_with_its_reason() -> None:
    for index, retry_after_s in (
        (index_of("failed"), 1),
        (index_of("stopped", is_on_demand=False), 40),
        (index_of("starting", is_on_demand=False), 40),
    ):
        error = EngineClaim("m", line(), Deaf()).refusal(index)
        assert type(error) is NoEngineReady
        assert "it is" in error.message
        assert error.retry_after_s == retry_after_s


@pytest.mark.parametrize(
    ("index", "is_refused"),
    [
        (index_of("failed"), True),
        (index_of("stopped", "failed", is_on_demand=False), True),
        (index_of("backoff", is_on_demand=False), False),
        (index_of("stopped"), False),
        (index_of("failed", "ready"), False),
    ],
)
def test_an_adapter_in_line_is_refused_once_no_engine_of_its_model_will_be_up(index: Index, is_refused: bool) -> None:
    error = AdapterClaim("a@1", line(), Deaf()).refusal(index)
    assert (error is not None) is is_refused
    assert error is None or "failed it is" in error.message


@pytest.mark.parametrize("kind", [EngineClaim, AdapterClaim])
def test_no_request_waits_for_an_engine_that_pauses(kind: type[EngineClaim] | type[AdapterClaim]) -> None:
    claim = kind("m" if kind is EngineClaim else "a@1", line(), Deaf())
    for states, retry_after_s in (
        (("paused",), 40),
        (("failed", "paused"), 41),
        (("held", "paused"), 41),
        (("paused", "failed"), 40),
        (("paused", "paused"), 40),
    ):
        error = claim.refusal(index_of(*states))
        assert type(error) is NoEngineReady
        assert "paused it is" in error.message
        assert error.retry_after_s == retry_after_s, "one that does not come back says nothing of when"
    assert claim.refusal(index_of("paused", "stopped")) is None, "the other one is started"
    assert claim.refusal(index_of("paused", "starting")) is None


def test_a_model_whose_engine_pauses_is_no_reason_to_send_the_gateway_no_requests() -> None:
    assert index_of("paused").unready_reasons() == []
    assert len(index_of("failed").unready_reasons()) == 1


def test_too_late_and_no_place_name_the_engines_states() -> None:
    claim, index = EngineClaim("m", line(), Deaf()), index_of("starting", limit=2)
    claim.enter(index, (), 0.0)
    late = claim.too_late(index)
    assert late.message == "no engine of model 'm' is ready (m-0: starting it is), nor was one within 300 s"
    assert late.retry_after_s == 40
    both = claim.too_late(index_of("failed", "starting"))
    assert both.retry_after_s == 41
    full = claim.no_place(2, index)
    assert (
        full.message == "no engine of model 'm' is ready (m-0: starting it is), and 2 requests wait for engines already"
    )
    assert not isinstance(full, AdapterNotReady)
    claim.leave(1.0)


@pytest.mark.parametrize("kind", [EngineClaim, AdapterClaim])
def test_who_waits_is_told_of_a_start_that_failed_meanwhile(kind: type[EngineClaim] | type[AdapterClaim]) -> None:
    claim = kind("m" if kind is EngineClaim else "a@1", line(), Deaf())
    claim.enter(index_of("stopped", failed_starts=[3]), (), 0.0)  # what failed before does not keep it from trying
    assert claim.refusal(index_of("starting", failed_starts=[3])) is None
    error = claim.refusal(index_of("stopped", failed_starts=[4]))
    assert type(error) is NoEngineReady
    assert "stopped it is" in error.message
    assert claim.refusal(index_of("starting", failed_starts=[4])) is None, "another one is on its way"
    assert claim.refusal(index_of("ready", failed_starts=[4])) is None
    claim.leave(1.0)
    claim.enter(index_of("stopped", failed_starts=[4]), (), 2.0)
    assert claim.refusal(index_of("stopped", failed_starts=[4])) is None
    claim.leave(3.0)


def test_who_waits_is_told_once_no_other_engine_is_left_to_try() -> None:
    claim = EngineClaim("m", line(), Deaf())
    claim.enter(index_of("stopped", "stopped", failed_starts=[3, 5]), (), 0.0)
    assert claim.refusal(index_of("stopped", "stopped", failed_starts=[4, 5])) is None
    assert claim.refusal(index_of("failed", "stopped", failed_starts=[4, 5])) is None
    assert claim.refusal(index_of("stopped", "backoff", failed_starts=[4, 5])) is None, "it tries again by itself"
    for states in (("stopped", "stopped"), ("failed", "stopped"), ("stopped", "failed")):
        assert type(claim.refusal(index_of(*states, failed_starts=[4, 6]))) is NoEngineReady
    claim.leave(1.0)
