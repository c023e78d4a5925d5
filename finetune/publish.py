"""From an exported adapter to an alias that serves it: candidate with references, proof on the engines, parity, verdict, then the alias.

    upload --> proof (by the gateway, on each engine) --> parity (here, against the candidate)
           --> gate (here: candidate and what is live answer a suite) --> alias (by the gateway, with the verdict)

Each step can be done again: stopped anywhere, the same call goes on from what is there, and what is published already stays as it is.
"""

from __future__ import annotations

import getpass
import socket
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from backends.admin_client import AdminClient
from finetune.errors import RecipeUnusable, TrainError
from finetune.export import Exported
from finetune.export.source import ATTEMPTS
from finetune.jsonchild import Tell, silent
from finetune.live import live_of
from finetune.parity.heldout import HeldOut, of_file, of_run
from finetune.parity.measure import NUM_ROWS, Order, Verdict, measure
from finetune.parity.served import Endpoint
from finetune.parity.show import lines, outcome
from finetune.release import Plan, Release, Released
from finetune.running import Gateway, find

CANDIDATE = "candidate"
"""In place of how the gate marked the move: there was none."""


class ParityNegative(TrainError):
    """It was taken and proven, and does not answer as the reference does, or nobody can tell (exit code 3): it stays a candidate."""

    def __init__(self, version: str, verdict: Verdict) -> None:
        self.verdict, self.exit_code = verdict, verdict.exit_code
        super().__init__("\n".join([*lines(verdict), f"{version} stays a candidate, no alias was moved"]))


@dataclass(frozen=True, slots=True)
class Published:
    """What serves now, or is a candidate for it. `gate`: how the gateway marked the move."""

    alias: str
    version: str
    proof: str
    gate: str
    verdict: Verdict
    """Of parity."""
    notes: tuple[str, ...]
    is_new: bool
    """False: the gateway had the version already."""
    judged: Mapping[str, Any] | None = None
    """The verdict's document; None where nothing was to be decided."""

    def as_json(self) -> dict[str, Any]:
        return {"event": "published", **asdict(self)}

    @property
    def words(self) -> str:
        """One line."""
        again = "" if self.is_new else " (already there)"
        parity = f"parity {outcome(self.verdict)} on {self.verdict.num_cases} rows"
        if self.gate == CANDIDATE:
            return f"{self.version} is a candidate for {self.alias}: {self.proof}, {parity}{again}"
        gate = f", {self.gate}" if self.gate else ""
        return f"{self.alias} serves {self.version}: {self.proof}, {parity}{gate}{again}"


def publish(
    exported: Exported,
    name: str,
    url: str | None = None,
    token: str | None = None,
    tell: Tell = silent,
    *,
    plan: Plan,
    run: Path | None = None,
    data: Path | None = None,
    model: str = "",
    num_rows: int = NUM_ROWS,
) -> Published:
    """`url` and `token` of the gateway's admin API, by default of the one that runs here; rows for parity of `data`, else of `run`,
    else of the run in whose folder the export lies.

    Raises AdminError and its ProofNegative, ParityNegative, GateNegative, CanaryFailed, TrainError, DataError, NotAnAdapter.
    """
    gateway = find(url, token)
    held_out = _rows(exported, run, data)
    with AdminClient(gateway.admin_url, gateway.token) as client:
        done = client.publish(
            exported.folder, name, model=model, who=who(), is_candidate_only=True, on_event=_told_by(tell), on_sent=_sent_by(tell)
        )  # fmt: skip
        version = str(done["version"])
        verdict = _parity(gateway, version, Order(exported.base, exported.folder, held_out, num_rows), tell)
        if not verdict.is_passed:
            raise ParityNegative(version, verdict)
        released = Released(CANDIDATE)
        if not plan.is_candidate_only:
            released = Release(client, gateway, plan, who(), tell).go(live_of(client, name, version), version)
    notes = tuple(map(str, (*done["warnings"], *done["notes"], *released.notes)))
    return Published(
        name, version, str(done["proof"]), released.gate, verdict, notes, bool(done["is_new"]), released.document
    )  # fmt: skip


def who() -> str:
    """Recorded with the change."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # an id without a name, as in containers
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def _rows(exported: Exported, run: Path | None, data: Path | None) -> AbstractContextManager[HeldOut]:
    """Raises RecipeUnusable where there are none."""
    if data is not None:
        return of_file(data)
    found = run or exported.folder.parent
    if not (found / ATTEMPTS).is_dir():
        raise RecipeUnusable(f"{exported.folder} belongs to no run: name rows for parity")
    return of_run(found)


def _parity(gateway: Gateway, version: str, order: Order, tell: Tell) -> Verdict:
    with Endpoint(gateway.url, version, gateway.token) as endpoint:
        return measure(endpoint, order, tell)


def _told_by(tell: Tell) -> Callable[[Mapping[str, Any]], None]:
    def told(event: Mapping[str, Any]) -> None:
        done, total = int(event.get("done") or 0), int(event.get("total") or 0)
        tell(str(event.get("stage", "")), str(event.get("text", "")), done, total)

    return told


def _sent_by(tell: Tell) -> Callable[[int, int], None]:
    def sent(num_bytes: int, of_bytes: int) -> None:
        tell("upload", "sending the adapter", num_bytes, of_bytes)

    return sent
