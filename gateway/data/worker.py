"""A data worker's process: it owns its sockets and nothing else.

    python -m gateway.data.worker --listen-fd F --channel-fd C --counters-fd M --column K
                                  --num-engine-slots S --num-workers W

Control starts it with the three descriptors inherited. It takes connections from its first snapshot on. It ends in one of
three ways: drained (a `Drain` message or SIGTERM), exit 0; control is gone (the channel closed), at once, exit 1; or by a
signal. SIGINT is ignored: Ctrl-C reaches the whole group, and control is the one to drain us.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import random
import secrets
import signal
import socket
import sys
import time
from dataclasses import dataclass

import msgspec
import uvloop

from gateway import metrics
from gateway.accesslog import AccessLog
from gateway.channel import Channel, ChannelError, worker_end
from gateway.config import Conversations
from gateway.counters import Counters
from gateway.data import app
from gateway.data.acceptor import Acceptor
from gateway.data.cold import ColdStage
from gateway.data.conversations import ConversationLog
from gateway.data.protocol import ClientConnection
from gateway.data.relay import Relay
from gateway.data.upstream import Pool
from gateway.errors import NoEngineReady
from gateway.routing import policies
from gateway.snapshot import Ack, Drain, Ping, Pong, Ready, Snapshot, ToControl, ToWorker

TICK_S = 0.1
"""Grain of all deadlines."""
FLUSH_EVERY_TICKS = 5
BACKLOG = 4096
TERM_GRACE_S = 10.0
"""Grace of a SIGTERM, which names none."""
LAST_WORDS_S = 0.5
"""For the answers of what did not finish within its grace to leave."""
POLICY = "least_load"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Inheritance:
    """What control hands down, by command line."""

    listen_fd: int
    channel_fd: int
    counters_fd: int
    column: int
    num_engine_slots: int
    num_workers: int


class Worker:
    """The running worker: server, clock, and the conversation with control."""

    def __init__(
        self, relay: Relay, channel: Channel[ToControl, ToWorker], listener: socket.socket, num_workers: int
    ) -> None:
        self._relay = relay
        self._channel = channel
        self._listener = listener
        self._num_workers = num_workers
        self._cold = ColdStage(app.build(relay))
        self._entrance: Acceptor | asyncio.Server | None = None
        self._drain_within_s: asyncio.Future[float] = relay.loop.create_future()
        self._drained: asyncio.Future[None] = relay.loop.create_future()

    async def run(self) -> int:
        """Serve until drained or orphaned; returns the exit code."""
        loop = self._relay.loop
        loop.add_signal_handler(signal.SIGTERM, self._ask_drain, TERM_GRACE_S)
        loop.add_signal_handler(signal.SIGINT, lambda: None)
        clock = loop.create_task(self._keep_time())
        orphaned = loop.create_task(self._converse())
        await asyncio.wait((orphaned, self._drain_within_s, clock), return_when=asyncio.FIRST_COMPLETED)
        for task in (orphaned, clock):
            if task.done():
                task.result()  # raises what ended it
        if not self._drain_within_s.done():
            return 1
        if self._entrance is not None:
            self._entrance.close()
        self._relay.counters.set_accepting(False)
        await self._drain(self._drain_within_s.result(), orphaned)
        clock.cancel()
        return 0

    async def _converse(self) -> None:
        """Obey control until it closes the channel."""
        await self._channel.send(Ready(os.getpid()))
        while (message := await self._channel.receive()) is not None:
            if isinstance(message, Snapshot):
                self._relay.swap(message)
                if self._entrance is None and not self._drain_within_s.done():
                    self._entrance = await self._open()
                await self._channel.send(Ack(message.version))
            elif isinstance(message, Ping):
                await self._channel.send(Pong())
            elif isinstance(message, Drain):
                self._ask_drain(message.grace_s)

    async def _open(self) -> Acceptor | asyncio.Server:
        """Take connections. One worker has nobody to share them with, and leaves accepting to the loop, which does it faster."""
        loop, listener = self._relay.loop, self._listener
        self._relay.counters.set_accepting(True)
        if self._num_workers == 1:
            return await loop.create_server(self._connection, sock=listener, backlog=BACKLOG)
        acceptor = Acceptor(loop, listener, self._relay.counters, self._connection)
        acceptor.start()
        return acceptor

    def _connection(self) -> ClientConnection:
        return ClientConnection(self._relay, self._cold)

    async def _keep_time(self) -> None:
        ticks = 0
        while True:
            await asyncio.sleep(TICK_S)
            self._relay.tick()
            if self._relay.is_draining and not self._relay.connections and not self._drained.done():
                self._drained.set_result(None)
            ticks += 1
            if ticks % FLUSH_EVERY_TICKS == 0:
                self._relay.flush()

    def _ask_drain(self, grace_s: float) -> None:
        if not self._drain_within_s.done():
            self._drain_within_s.set_result(grace_s)

    async def _drain(self, grace_s: float, orphaned: asyncio.Task[None]) -> None:
        """Wait until every connection is done: idle ones close with the next tick, busy ones after their answer."""
        self._relay.is_draining = True
        await asyncio.wait((self._drained, orphaned), timeout=grace_s, return_when=asyncio.FIRST_COMPLETED)
        if self._relay.exchanges and not orphaned.done():
            self._relay.abandon(NoEngineReady("the gateway is shutting down", retry_after_s=1))
            await asyncio.wait((self._drained, orphaned), timeout=LAST_WORDS_S, return_when=asyncio.FIRST_COMPLETED)


def build_relay(inherited: Inheritance, channel: Channel[ToControl, ToWorker]) -> Relay:
    """Put the parts of a worker together, with real clock and randomness."""
    loop = asyncio.get_running_loop()
    counters = Counters.attach(
        inherited.counters_fd, inherited.num_engine_slots, inherited.num_workers, inherited.column
    )
    return Relay(
        loop=loop,
        clock=time.monotonic,
        counters=counters,
        policy=policies.build(POLICY, random.randrange),
        metrics=metrics.Metrics(),
        access_log=AccessLog.open(os.environ.get("FORGEGATE_ACCESS_LOG", "")),
        pool=Pool(loop, time.monotonic),
        report=channel.post,
        id_prefix=f"req-{secrets.token_hex(6)}-",
        conversations=open_conversations(os.environ.get("FORGEGATE_CONVERSATIONS", "")),
    )


def open_conversations(rules: str) -> ConversationLog | None:
    """By what control says (`gateway.control.recording`); None where it says nothing."""
    if not rules:
        return None
    opened = ConversationLog(msgspec.json.decode(rules, type=Conversations), random.random)
    opened.start()
    return opened


async def serve(inherited: Inheritance) -> int:
    """Run one worker to its end; returns the exit code."""
    channel = await worker_end(socket.socket(fileno=inherited.channel_fd))
    relay = build_relay(inherited, channel)
    gc.collect()
    gc.freeze()  # what start-up made stays: no collection needs to look at it again
    try:
        listener = socket.socket(fileno=inherited.listen_fd)
        return await Worker(relay, channel, listener, inherited.num_workers).run()
    except ChannelError as exc:
        log.error("control and worker disagree: %s", exc)
        return 1
    finally:
        if relay.conversations is not None:
            relay.conversations.close()
        relay.flush()


def main(argv: list[str] | None = None) -> int:
    """Parse the command line, run, return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m gateway.data.worker", description="Started by control only.")
    for name in ("listen-fd", "channel-fd", "counters-fd", "column", "num-engine-slots", "num-workers"):
        parser.add_argument(f"--{name}", type=int, required=True)
    inherited = Inheritance(**vars(parser.parse_args(argv)))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s worker[%(process)d] %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    metrics.continue_files_of(inherited.column)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(serve(inherited))


if __name__ == "__main__":
    sys.exit(main())
