"""An engine that speculates, as a real child: how long a step takes and what it gives follows from depth and batch size.

As a script it serves /health, /metrics with vLLM's names, and /v1/completions; as a module it has the backend that starts it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

STEP_S = 0.01
YIELD = 0.9
"""Accepted tokens for each of a draft."""
COST = 0.4
"""What a draft token adds to a step, for each stream: depth 2 wins at 1 stream and loses at 4."""


def cost(depth: int, num_streams: int) -> float:
    return 1 + COST * depth * num_streams


class Engine:
    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.num_running = self.num_drafts = self.num_draft_tokens = 0
        self.num_accepted = 0.0

    def depth(self) -> int:
        for _, last, depth in json.loads(self.args.rows):
            if self.num_running <= last:
                return int(depth)
        return int(self.args.depth)

    async def complete(self, num_tokens: int) -> None:
        left = float(num_tokens)
        self.num_running += 1
        await asyncio.sleep(0.002)  # those that come together are one batch
        while left > 0:
            depth = self.depth()
            await asyncio.sleep(STEP_S * cost(depth, self.num_running))
            accepted = min(YIELD * depth, max(0.0, left - 1))
            left -= 1 + accepted
            self.num_drafts += bool(depth)
            self.num_draft_tokens += depth
            self.num_accepted += accepted
        self.num_running -= 1

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        path = head.split(" ")[1]
        headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        status, answer = 200, "{}"
        if path == "/metrics":
            answer = (
                f"vllm:num_requests_running {self.num_running}\nvllm:spec_decode_num_drafts_total {self.num_drafts}\n"
                f"vllm:spec_decode_num_draft_tokens_total {self.num_draft_tokens}\n"
                f"vllm:spec_decode_num_accepted_tokens_total {self.num_accepted}\n"
            )
        elif path == "/v1/completions":
            asked = json.loads(body)
            if asked["prompt"] == "die" or self.args.depth == self.args.dies_at:
                sys.exit(9)
            if asked["prompt"] == "refuse":
                status, answer = 400, json.dumps({"error": {"message": "the prompt is too long"}})
            else:
                await self.complete(asked["max_tokens"])
                answer = json.dumps({"usage": {"completion_tokens": asked["max_tokens"]}})
        writer.write(
            f"HTTP/1.1 {status} X\r\ncontent-length: {len(answer)}\r\nconnection: close\r\n\r\n{answer}".encode()
        )
        await writer.drain()
        writer.close()


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    parser.add_argument("--depth", type=int)
    parser.add_argument("--rows", default="[]")
    parser.add_argument("--dies-at", type=int, default=-1)
    args = parser.parse_args()
    if args.depth == args.dies_at - 100:
        sys.exit("there is no such depth")
    server = await asyncio.start_server(Engine(args).connection, "127.0.0.1", args.port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
else:
    from backends.base import (
        LOOPBACK,
        Address,
        BackendDefaults,
        Facts,
        Fetch,
        Identity,
        LaunchSpec,
        Load,
        Reply,
        Tell,
        untold,
    )
    from backends.process import Launcher
    from backends.restart import RestartPolicy
    from backends.status import Timing
    from backends.vllm.load import load_of
    from backends.vllm.options import Options
    from backends.vllm.speculation import Setting
    from backends.vllm.tuned import Tuned, setting_of
    from backends.vllm.versions import TABLES

    class Speculating(BackendDefaults):
        """Each start is noted in `started`, by what it was started with."""

        kind = "vllm"
        title = "vLLM"
        ready_path = "/health"
        capabilities: tuple[str, ...] = ("completions",)
        policy = RestartPolicy()
        timing = Timing(start_poll_s=0.01, stop_grace_s=1.0)

        def __init__(
            self, options: Options, folder: Path, started: list[Setting] | None = None, flags: Sequence[str] = ()
        ) -> None:
            self.started = [] if started is None else started
            self.flags = flags
            self.speculation = Tuned(
                options, folder, lambda other: Speculating(other, folder, self.started, self.flags)
            )

        def check(self, tell: Tell = untold) -> str:
            return ""

        def plan(self, taken: Any) -> None:
            return None

        async def prepare(self, launcher: Launcher, tell: Tell) -> Identity:
            self.speculation.settle("sha256:target", "", "0.32.0 on cpu")
            return Identity("sha256:target", is_source=True)

        def launch(self, port: int) -> LaunchSpec:
            setting = setting_of(self.speculation.options)
            self.started.append(setting)
            given = ("--port", str(port), "--depth", str(setting.depth), "--rows", json.dumps(setting.schedule))
            return LaunchSpec((sys.executable, "-S", __file__, *given, *self.flags))

        def address(self, port: int) -> Address:
            return Address(LOOPBACK, port)

        def secret_for(self, launch_secret: str) -> str:
            return launch_secret

        def refusal(self, reply: Reply) -> str:
            return ""

        async def inspect(self, fetch: Fetch) -> Facts:
            return Facts("vLLM 0.32", model="demo")

        async def load(self, fetch: Fetch) -> Load | None:
            return load_of((await fetch("/metrics")).text, TABLES[-1].metrics)
