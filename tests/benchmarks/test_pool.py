import asyncio
from collections.abc import Callable

import pytest

from benchmarks.client import Client, Target
from benchmarks.http1 import Exchange
from benchmarks.mock_behaviour import Behaviour
from benchmarks.mock_server import MockEngine
from benchmarks.record import FailureKind
from benchmarks.traffic.cancellations import Cancel

BODY = b'{"model":"mock","messages":[{"content":"a"}],"stream":true,"max_tokens":2%b}'
PATH = "/v1/chat/completions"


class Ends:
    """Collects what ended, in order."""

    def __init__(self, num: int) -> None:
        self.exchanges: list[tuple[int, Exchange]] = []
        self._left = num
        self._done = asyncio.Event()

    def of(self, number: int) -> Callable[[Exchange], None]:
        def on_end(exchange: Exchange) -> None:
            self.exchanges.append((number, exchange))
            self._left -= 1
            if not self._left:
                self._done.set()

        return on_end

    async def all(self) -> list[tuple[int, Exchange]]:
        await asyncio.wait_for(self._done.wait(), 10)
        return self.exchanges


def client_of(engine: MockEngine, **options: object) -> Client:
    return Client(Target.from_url(engine.url), **{"timeout_s": 5, **options})  # type: ignore[arg-type]


async def test_what_waits_is_sent_in_its_order(engine: MockEngine):
    client, ends = client_of(engine, max_connections=1), Ends(5)
    for number in range(5):
        client.pool.submit(client.encode(PATH, BODY % b""), ends.of(number))
    assert [number for number, _ in await ends.all()] == [0, 1, 2, 3, 4]
    assert client.num_connects == engine.stats.num_connections == engine.stats.max_running == 1
    client.close()


async def test_a_connection_that_ends_makes_room_for_the_next(engine: MockEngine):
    client, ends = client_of(engine, max_connections=1, keep_alive=False), Ends(3)
    for number in range(3):
        client.pool.submit(client.encode(PATH, BODY % b""), ends.of(number))
    assert all(exchange.failure is None for _, exchange in await ends.all())
    assert (client.num_connects, engine.stats.max_running) == (3, 1)


async def test_nobody_there_ends_those_that_wait_too():
    async with MockEngine() as engine:
        url = engine.url
    client, ends = Client(Target.from_url(url), max_connections=1), Ends(3)
    for number in range(3):
        client.pool.submit(b"", ends.of(number))
    kinds = {exchange.failure.kind for _, exchange in await ends.all() if exchange.failure}
    assert kinds == {FailureKind.CONNECT}


async def test_each_request_has_its_own_deadline():
    """The second starts when the first one's time is half over, and must not end with it."""
    async with MockEngine(Behaviour(hang_rate=1)) as engine:
        client, ends = client_of(engine, timeout_s=0.2), Ends(2)
        client.pool.submit(client.encode(PATH, BODY % b""), ends.of(0))
        await asyncio.sleep(0.1)
        client.pool.submit(client.encode(PATH, BODY % b""), ends.of(1))
        for _, exchange in await ends.all():
            assert exchange.failure is not None
            assert exchange.failure.kind is FailureKind.TIMEOUT
            assert exchange.end_s - (exchange.sent_s or 0) >= 0.19


async def test_a_short_request_is_not_timed_out_by_a_long_one_before_it():
    async with MockEngine(Behaviour(ttft_ms=1, itl_ms=1)) as engine:
        client, ends = client_of(engine, timeout_s=0.15), Ends(2)
        client.pool.submit(client.encode(PATH, BODY % b',"mock":{"hang_rate":1}'), ends.of(0))
        client.pool.submit(client.encode(PATH, BODY % b""), ends.of(1))
        (first, answered), (second, hung) = await ends.all()
        assert (first, second) == (1, 0)
        assert answered.failure is None
        assert hung.failure is not None
        client.close()


@pytest.mark.parametrize("is_waiting", [True, False])
async def test_a_request_that_nobody_waits_for_any_more_is_dropped(is_waiting: bool):
    async with MockEngine(Behaviour(hang_rate=1)) as engine:
        client, ends = client_of(engine, max_connections=1, timeout_s=0.3), Ends(1)
        held = client.pool.submit(client.encode(PATH, BODY % b""), ends.of(0))
        late = client.pool.submit(client.encode(PATH, BODY % b""), ends.of(1))
        while not engine.stats.num_running:
            await asyncio.sleep(0.002)
        client.pool.drop(late if is_waiting else held)
        ((number, _),) = await ends.all()
        assert number == (0 if is_waiting else 1)
        assert engine.stats.num_requests == (1 if is_waiting else 2)


async def test_a_timed_cancellation_does_not_outlive_its_request(engine: MockEngine):
    client, ends = client_of(engine), Ends(2)
    client.pool.submit(client.encode(PATH, BODY % b""), ends.of(0), Cancel(after_s=0.1))
    await asyncio.sleep(0.05)
    client.pool.submit(client.encode(PATH, BODY % b',"mock":{"ttft_ms":150}'), ends.of(1))
    assert [(exchange.is_cancelled, exchange.failure) for _, exchange in await ends.all()] == [(False, None)] * 2
    assert client.num_connects == 1
    client.close()


async def test_connections_are_opened_ahead_as_far_as_the_limit_allows(engine: MockEngine):
    for limit, expected in ((None, 5), (3, 3)):
        client, before = client_of(engine, max_connections=limit), engine.stats.num_connections
        await client.pool.open(5)
        ends = Ends(3)
        for number in range(3):
            client.pool.submit(client.encode(PATH, BODY % b""), ends.of(number))
        await ends.all()
        assert client.num_connects == engine.stats.num_connections - before == expected
        client.close()
