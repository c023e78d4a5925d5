"""The error tree, its rendering, and its classification."""

from __future__ import annotations

import httptools
import orjson
import pytest

from backends import dialects
from backends.dialects import Dialect
from gateway import errors, failures
from gateway.errors import GatewayError
from gateway.failures import Fault


def concrete() -> list[type[GatewayError]]:
    found, pending = [], [GatewayError]
    while pending:
        kind = pending.pop()
        found.append(kind)
        pending += kind.__subclasses__()
    bases = {GatewayError, errors.RequestError, errors.EngineError}
    return [kind for kind in found if kind not in bases and kind.__module__ == "gateway.errors"]


def test_the_table_is_complete() -> None:
    assert set(failures.BY_ERROR) == set(concrete())


def test_a_code_tells_the_class_whose_fault_it_is() -> None:
    assert len({kind.code for kind in concrete()}) == len(concrete())
    for kind in concrete():
        assert failures.is_engines(kind.status, kind.code) is (failures.BY_ERROR[kind].fault is Fault.ENGINE)
    assert not failures.is_engines(500, "a code of an engine's own")
    assert [failures.is_engines(status, "") for status in (200, 404, 429, 500, 503)] == [
        False,
        False,
        False,
        True,
        True,
    ]


def test_the_tree_in_the_docstring_is_complete() -> None:
    assert errors.__doc__ is not None
    missing = [kind.__name__ for kind in concrete() if kind.__name__ not in errors.__doc__]
    assert not missing


@pytest.mark.parametrize("kind", concrete())
def test_classes_agree_with_statuses(kind: type[GatewayError]) -> None:
    failure = failures.BY_ERROR[kind]
    fault = {4: Fault.CLIENT, 5: Fault.ENGINE}[kind.status // 100]
    assert failure.fault is (Fault.GATEWAY if kind in (errors.InternalError, errors.ControlUnreachable) else fault)
    if failure.can_retry:  # never after a time-out, never a client's mistake
        assert kind.status == 502 or kind is errors.AdapterAbsent
    if failure.fault is Fault.CLIENT:
        assert not failure.tells_control


def test_statuses_of_engines_pass_without_retry() -> None:
    assert failures.of_status(200) is None
    for status, fault in ((400, Fault.CLIENT), (429, Fault.CLIENT), (500, Fault.ENGINE), (503, Fault.ENGINE)):
        failure = failures.of_status(status)
        assert failure is not None
        assert failure.fault is fault
        assert not failure.can_retry


@pytest.mark.parametrize("kind", concrete())
@pytest.mark.parametrize("dialect", Dialect)
@pytest.mark.parametrize("is_keep_alive", [True, False])
def test_rendered_errors_are_valid_http(kind: type[GatewayError], dialect: Dialect, is_keep_alive: bool) -> None:
    error = kind('what "went" wrong: é', param="model", retry_after_s=3)
    seen: dict[str, str] = {}
    bodies: list[bytes] = []

    class Events:
        def on_header(self, name: bytes, value: bytes) -> None:
            seen[name.decode()] = value.decode()

        def on_body(self, body: bytes) -> None:
            bodies.append(body)

    parser = httptools.HttpResponseParser(Events())
    parser.feed_data(errors.render(error, dialect, "r", is_keep_alive=is_keep_alive, extra={"x-more": "1"}))
    assert parser.get_status_code() == kind.status
    assert (seen["retry-after"], seen["x-request-id"], seen["x-more"]) == ("3", "r", "1")
    assert seen.get("request-id") == ("r" if dialect is Dialect.MESSAGES else None)
    assert ("connection" in seen) is not is_keep_alive
    fields = {
        "message": error.message, "type": dialects.error_type(dialect, kind.status), "param": "model", "code": kind.code,
    }  # fmt: skip
    assert orjson.loads(b"".join(bodies))["error"] == fields
    event = errors.sse_event(error, dialect, "r")
    assert orjson.loads(event.partition(b"data: ")[2])["error"] == fields
