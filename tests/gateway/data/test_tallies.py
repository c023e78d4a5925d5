"""What workers count of an alias's versions: the sheet by itself, and fed by real requests."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.accesslog import AccessLine
from gateway.data.tallies import TallySheet
from gateway.snapshot import Alias, Share, Tallies, Tally
from gateway.ttft import bucket_of
from tests.gateway.data.rig import Call, Rig, Script, StubEngine, echo


def line(status: int = 200, error: str = "", **rest: Any) -> AccessLine:
    told: dict[str, Any] = {"model": "s", "resolved": "s@1", "base": "m", "ttfb_ms": 40.0, **rest}
    return AccessLine(
        time=0.0, request_id="r", client="::1", method="POST", path="/v1/x", status=status, duration_ms=50.0, error=error,
        **told,
    )  # fmt: skip


def rows(*lines: AccessLine) -> dict[tuple[str, str], Tally]:
    sheet = TallySheet()
    sheet.add(lines)
    taken = sheet.take()
    assert sheet.take() is None
    return {(row.alias, row.version): row for row in taken.rows} if taken else {}


def test_requests_are_counted_by_alias_and_version() -> None:
    found = rows(line(), line(ttfb_ms=300.0), line(resolved="s@2"), line(model="t"))
    assert found["s", "s@1"] == Tally("s", "s@1", 2, 0, {bucket_of(40.0): 1, bucket_of(300.0): 1})
    assert {key: row.num_requests for key, row in found.items()} == {("s", "s@1"): 2, ("s", "s@2"): 1, ("t", "s@1"): 1}


def test_what_names_a_version_or_a_base_model_is_no_traffic_of_an_alias() -> None:
    assert (
        rows(line(model="s@1"), line(base="", model="m", resolved="m@1"), line(404, "model_not_found", base="")) == {}
    )


@pytest.mark.parametrize(
    ("status", "error", "is_its_fault"),
    [
        (500, "", True),
        (503, "", True),
        (502, "engine_reset", True),
        (502, "stream_failed", True),
        (503, "adapter_not_ready", True),
        (504, "idle_timeout", True),
        (400, "", False),
        (429, "", False),
        (499, "client_disconnected", False),
        (500, "internal_error", False),
        (413, "body_too_large", False),
    ],
)
def test_an_error_is_what_the_engine_did_wrong(status: int, error: str, is_its_fault: bool) -> None:
    (row,) = rows(line(status, error)).values()
    assert (row.num_requests, row.num_errors, row.ttfts) == (1, int(is_its_fault), {})


def test_that_no_engine_is_up_tells_nothing_of_a_version() -> None:
    assert rows(line(503, "no_engine_ready")) == {}


def failing(bad: str) -> Script:
    """Answers 500 to whoever asks for the version `bad`."""

    async def script(call: Call) -> None:
        is_bad = call.json()["model"] == bad
        await call.send_json(500 if is_bad else 200, {"error": {"message": "no"}} if is_bad else {"ok": 1})

    return script


async def test_real_requests_are_reported_to_control_and_only_once() -> None:
    rig = Rig()
    await rig.start(StubEngine(failing("s@2")), StubEngine(echo()))
    rig.hold("s@1", "m-0")
    rig.hold("s@2", "m-0")
    rig.aliases = (Alias("s", "m", (Share("s@1"),)), Alias("t", "m", (Share("s@2"),)))
    rig.push()
    for model, status in (("s", 200), ("s", 200), ("t", 500), ("s@1", 200), ("m", 200)):
        assert (await rig.ask({"model": model})).status_code == status
    rig.relay.flush()
    rig.relay.tick()
    rig.relay.flush()
    rig.relay.tick()
    (told,) = [report for report in rig.reports if isinstance(report, Tallies)]
    assert {(row.alias, row.version): (row.num_requests, row.num_errors) for row in told.rows} == {
        ("s", "s@1"): (2, 0),
        ("t", "s@2"): (1, 1),
    }
    assert sum(told.rows[0].ttfts.values()) == 2
    await rig.stop()
