"""What a user and a client see while an engine starts: its states and what they say, and what requests are answered meanwhile."""

import asyncio
import statistics
from dataclasses import dataclass, field
from typing import Any

import orjson

from benchmarks import transcript
from benchmarks.chaos_gateway import Gateway, GatewayError
from benchmarks.chaos_verdict import CHAT
from benchmarks.client import Client

LOOK_S = 0.1
ASK_S = 2.0


@dataclass(slots=True)
class Start:
    """Seconds count from when it was first looked at."""

    seen: list[tuple[float, str, str]] = field(default_factory=list)
    """When, state, detail; one for each change."""
    answers: list[tuple[float, int, float | None, str]] = field(default_factory=list)
    """When, status, `retry-after`, message."""
    ready_s: float | None = None
    pid: int | None = None

    @property
    def retry_errors_s(self) -> list[float]:
        """`retry-after` less what was left until the engine was ready: positive where clients are kept waiting for nothing."""
        ready_s = self.ready_s or 0.0
        return [
            when + after - ready_s for when, status, after, _ in self.answers if status == 503 and after is not None
        ]

    def as_dict(self) -> dict[str, Any]:
        """For the result file; of answers that say the same, the first."""
        errors = self.retry_errors_s
        told = [entry for before, entry in zip([None, *self.answers], self.answers, strict=False)
                if before is None or (before[1], before[3]) != (entry[1], entry[3])]  # fmt: skip
        return {
            "ready_s": self.ready_s,
            "seen": [{"at_s": round(at_s, 2), "state": state, "detail": detail} for at_s, state, detail in self.seen],
            "num_answers": len(self.answers),
            "answers": [
                {"at_s": round(at_s, 2), "status": status, "retry_after_s": after, "message": message}
                for at_s, status, after, message in told
            ],
            "retry_after_error_s": {"median": statistics.median(errors), "min": min(errors), "max": max(errors)} if errors else None,
        }  # fmt: skip


async def watch(gateway: Gateway, engine_id: str, model: str, timeout_s: float, *, ask: bool = True) -> Start:
    """Until it is ready, or has failed. `ask`: send requests meanwhile. Raises GatewayError."""
    clock = asyncio.get_running_loop().time
    begin_s = clock()
    start = Start()
    asking = asyncio.create_task(_ask(gateway, model, start, begin_s)) if ask else None
    try:
        while clock() - begin_s < timeout_s:
            engine = await engine_of(gateway, engine_id)
            now = (engine["state"], engine["detail"])
            if not start.seen or start.seen[-1][1:] != now:
                start.seen.append((clock() - begin_s, *now))
            start.pid = engine["pid"] or start.pid
            if engine["state"] == "ready":
                start.ready_s = round(clock() - begin_s, 2)
                return start
            if engine["state"] == "failed":
                return start
            await asyncio.sleep(LOOK_S)
    finally:
        if asking is not None:
            asking.cancel()
            await asyncio.wait({asking})
    raise GatewayError(f"{engine_id} was not ready within {timeout_s:g} s; it said: {start.seen[-1][2]}")


async def engine_of(gateway: Gateway, engine_id: str) -> dict[str, Any]:
    """As the admin API shows it. Raises GatewayError."""
    found = next((engine for engine in await gateway.engines() if engine["id"] == engine_id), None)
    if found is None:
        raise GatewayError(f"there is no engine {engine_id}")
    return found


async def _ask(gateway: Gateway, model: str, start: Start, begin_s: float) -> None:
    client = Client(gateway.target, keep_alive=False, timeout_s=60)
    clock = asyncio.get_running_loop().time
    body = orjson.dumps({"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1})
    while True:
        sent_s = clock() - begin_s
        exchange = await client.post(CHAT.path, body)
        after = exchange.headers.get(b"retry-after")
        message = "" if exchange.status == 200 else transcript.error_message(exchange.body)
        start.answers.append((sent_s, exchange.status or 0, None if after is None else float(after), message))
        await asyncio.sleep(ASK_S)
