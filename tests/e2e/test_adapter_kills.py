"""The gateway killed at every failpoint: what the next one finds is the state before or after, never between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from backends.errors import AdminError
from gateway.control.failpoints import POINTS, VARIABLE
from tests.e2e.adapter_kills import KINDS, main
from tests.e2e.adapter_stage import Gateway, Stage, State
from tests.processes import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.engine]

AT_START = {"reconcile.listed", "reconcile.loaded", "reconcile.proven"}
"""An engine that comes up passes them, so the gateway does not live to say that it is ready."""


class Theatre(Stage):
    """Where gateways die at a point that was named before."""

    def killed_at(self, point: str, check: Callable[[State], object], work: Callable[[Gateway], object]) -> None:
        """A gateway that finds what `check` expects, and dies at `point` in `work`, or before it is ready."""
        with self.start(point) as gateway:
            if point not in AT_START:
                gateway.wait_ready()
                check(self.examined(gateway))
                with pytest.raises(AdminError) as caught:
                    work(gateway)
                assert caught.value.status == 0, caught.value
            assert gateway.wait(60.0) == -signal.SIGKILL, f"it did not pass {point}"


def point(gateway: Gateway, *versions: str) -> None:
    gateway.admin_api.point("support", dict.fromkeys(versions, 1))


def nothing(_: Gateway) -> None:
    """The start is enough."""


def serves(*versions: str) -> Callable[[State], None]:
    def check(state: State) -> None:
        assert state.aliases["support"] == tuple((version, 1) for version in versions)

    return check


def has_tiger(is_known: bool) -> Callable[[State], None]:
    def check(state: State) -> None:
        assert any(name.startswith("tiger@") for name in state.versions) is is_known

    return check


@pytest.mark.timeout(400)
def test_killed_at_every_failpoint_the_state_is_the_old_or_the_new_one(tmp_path: Path) -> None:
    stage = Theatre(tmp_path, num_slots=2)
    with stage.start() as gateway:
        gateway.wait_ready()
        for adapter in ("tiger", "host", "pilot"):
            event = gateway.publish(adapter, adapter)
            stage.digests[adapter] = event["digest"]
        a, b, c = (f"{adapter}@{stage.digests[adapter][:12]}" for adapter in ("host", "pilot", "tiger"))
        gateway.admin_api.remove_adapter(c)
        point(gateway, a)
    publish: Callable[[Gateway], object] = lambda gateway: gateway.publish("tiger", "tiger")  # noqa: E731
    steps: list[tuple[str, Callable[[Gateway], object], Callable[[State], object]]] = [
        ("alias.moving", lambda gateway: point(gateway, b), serves(a)),
        ("alias.moved", lambda gateway: point(gateway, b), serves(b)),
        ("alias.told", lambda gateway: point(gateway, a, b), serves(a, b)),
        ("alias.moving", lambda gateway: gateway.admin_api.rollback("support"), serves(a, b)),
        ("alias.moved", lambda gateway: gateway.admin_api.rollback("support"), serves(b)),
        *((name, nothing, serves(b)) for name in sorted(AT_START)),
        ("publish.stored", publish, has_tiger(False)),
        ("publish.recording", publish, has_tiger(False)),
        ("publish.recorded", publish, has_tiger(True)),
        ("reconcile.evicted", publish, has_tiger(True)),
        ("publish.proven", publish, has_tiger(True)),
        ("remove.recorded", lambda gateway: gateway.admin_api.remove_adapter(c), has_tiger(False)),
    ]
    assert {name for name, _, _ in steps} == set(POINTS)
    check: Callable[[State], object] = serves(a)
    for name, work, after in steps:
        stage.killed_at(name, check, work)
        check = after
    with stage.start() as gateway:
        gateway.wait_ready()
        check(stage.examined(gateway))
        publish(gateway)  # whatever lay about is no hindrance
        point(gateway, c)
        serves(c)(stage.examined(gateway))


@pytest.mark.timeout(120)
def test_killed_at_random_moments_the_state_is_the_old_or_the_new_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "kills.json"
    assert main(["--kills", "3", "--seed", "1", "--out", str(out)]) == 0, capsys.readouterr().out
    result = json.loads(out.read_bytes())
    assert (result["num_kills"], result["num_violations"], len(result["kills"])) == (3, 0, 3)
    assert set(result["num_whole"]) == set(KINDS)
    assert (
        out.with_suffix(".md").read_text().startswith("3 kills of control inside commands on adapters, 0 violations.")
    )


def test_a_failpoint_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "serve"], cwd=ROOT, capture_output=True, text=True, timeout=30,
        env={**os.environ, "FORGEGATE_HOME": str(tmp_path), VARIABLE: "nowhere"},
    )  # fmt: skip
    assert done.returncode == 2
    assert "no such failpoint" in done.stderr
