"""Middleware inside vLLM's API server: it keeps strangers out, and gives adapters a life that can be watched.

vllm ... --middleware forgegate_vllm_guard.Guard, with this file in a folder of PYTHONPATH under the name `forgegate_vllm_guard`

Every path needs the launch's secret, where `--api-key` guards /v1 only. vLLM's own unloading forgets a name and leaves the weights
where they are, and a name whose weights gave way to others is read from its folder again at its next request, unasked. So here:

    absent --load--> loading --> resident --unload--> leaving --last request ended--> freed in the workers, absent
                                    ^                    |
                                    +--load, nobody waits for the unloading any more

A name that leaves takes no new requests (404). No more names than the workers keep are ever there, so that none is read unasked.
/v1/models tells `num_running` and `is_leaving` of adapters. Standard library only; answers are passed on as they come, never kept.
"""

import asyncio
import hmac
import json
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

SECRET, MAX_ADAPTERS = "FORGEGATE_ENGINE_SECRET", "FORGEGATE_MAX_ADAPTERS"
"""Variables: the bearer token of every request; how many adapters the workers keep, 0 without LoRA."""
LOAD, UNLOAD, FORGET, MODELS = (
    "/v1/load_lora_adapter",
    "/v1/unload_lora_adapter",
    "/forgegate/forget_adapters",
    "/v1/models",
)
FOREIGN = "/adapters"
"""Other calls of vLLM that load and unload: they would know nothing of what is above."""
POLL_S = 0.005
"""How often the engine is looked at for requests whose clients went away, where no answer's end can be waited for."""


class Refused(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, message: str, code: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Disconnected(Exception):
    """The client went away before its request was whole."""


class Leaving:
    """An adapter that is freed once its last request has ended, unless it is taken back before."""

    def __init__(self, lora: Any) -> None:
        self.lora = lora
        self.num_waiting = 0
        """Who asked for it and waits; with the last one's going it is withdrawn."""
        self.is_final = False
        """It is being freed: too late to take it back."""
        self.task: asyncio.Task[None] | None = None


class Adapters:
    """Names and places, over vLLM's own table of names. Lives on the server's event loop, which alone changes it."""

    def __init__(self, max_adapters: int) -> None:
        self._max_adapters = max_adapters
        self._running: Counter[str] = Counter()
        """Requests by the model they name, known or not."""
        self._ended = asyncio.Event()
        """A request ended. Waited for in turns, each of which clears it first."""
        self._loading: Counter[str] = Counter()
        self._leaving: dict[str, Leaving] = {}

    def begin(self, name: str) -> None:
        """A request for `name` is passed on. `end` follows, however it goes."""
        self._running[name] += 1

    def end(self, name: str) -> None:
        self._running[name] -= 1
        if not self._running[name]:
            del self._running[name]
            self._ended.set()

    async def admit(self, state: Any, name: str, path: str) -> bool:
        """Whether vLLM must load it, and `loaded` follows; False where it is there, taken back perhaps. Raises Refused."""
        leaving = self._leaving.get(name)
        if leaving is not None and leaving.is_final and leaving.task is not None:
            await asyncio.wait({leaving.task})
            return await self.admit(state, name, path)
        known = leaving.lora if leaving is not None else _names(state).get(name)
        if known is None:
            self._take_place(state, name)
            return True
        if known.lora_path != path:
            raise Refused(
                400, f"the adapter {name!r} is there, from {known.lora_path}: no name is used twice", "name_taken"
            )
        if leaving is not None:
            self._withdraw(state, name)
        return False

    def loaded(self, name: str) -> None:
        """Well or not: vLLM's table says which."""
        self._loading[name] -= 1
        self._loading += Counter()  # without those at 0

    def _take_place(self, state: Any, name: str) -> None:
        if len({*_names(state), *self._leaving, *self._loading} - {name}) >= self._max_adapters:
            raise Refused(409, f"all {self._max_adapters} places for adapters are taken (max_cpu_loras)", "no_slot")
        self._loading[name] += 1

    async def unload(self, state: Any, name: str, gone: Callable[[], Awaitable[None]]) -> None:
        """Returns once it is freed. Withdrawn where `gone`, which waits for the client to go, is done before. Raises Refused."""
        leaving = self._leaving.get(name)
        if leaving is None:
            lora = _names(state).pop(name, None)
            if lora is None:
                raise Refused(404, f"the adapter {name!r} is not loaded", "model_not_found")
            leaving = self._leaving[name] = Leaving(lora)
            leaving.task = asyncio.create_task(self._free(state, name, leaving))
        assert leaving.task is not None
        leaving.num_waiting += 1
        client = asyncio.ensure_future(gone())
        try:
            await asyncio.wait({leaving.task, client}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            client.cancel()
            leaving.num_waiting -= 1
            if not leaving.num_waiting and not leaving.task.done() and not leaving.is_final:
                self._withdraw(state, name)
        if not leaving.task.done():
            return  # nobody reads the answer
        if leaving.task.cancelled():
            raise Refused(
                409, f"the adapter {name!r} was loaded again before it was gone: it stays", "unload_withdrawn"
            )
        leaving.task.result()

    async def forget(self, state: Any) -> None:
        """All of them, and their weights: a sleep may have spoiled these. Nothing may be running."""
        for name in list(self._leaving):
            self._withdraw(state, name)
        _names(state).clear()
        for lora_id in await state.engine_client.list_loras():
            await state.engine_client.remove_lora(lora_id)

    def tell(self, models: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """vLLM's list with what is known here."""
        told = [
            {**m, "num_running": self._running[m["id"]], "is_leaving": False} if m.get("parent") else m for m in models
        ]
        base = next((m["id"] for m in models if not m.get("parent")), "")
        told += [
            {"id": name, "object": "model", "created": 0, "owned_by": "vllm", "root": leaving.lora.lora_path, "parent": base,
             "num_running": self._running[name], "is_leaving": True}
            for name, leaving in self._leaving.items()
        ]  # fmt: skip
        return told

    async def _free(self, state: Any, name: str, leaving: Leaving) -> None:
        try:
            while self._running[name] or _is_in_engine(state, name):
                self._ended.clear()
                try:
                    await asyncio.wait_for(self._ended.wait(), None if self._running[name] else POLL_S)
                except asyncio.TimeoutError:  # noqa: UP041 - Python 3.10
                    continue
            leaving.is_final = True
            await state.engine_client.remove_lora(leaving.lora.lora_int_id)
        except Exception as exc:  # vLLM's own, whatever they are: whoever waits is told
            _names(state)[name] = leaving.lora
            raise Refused(500, f"the adapter {name!r} could not be freed: {exc}", "engine_error") from exc
        finally:
            if self._leaving.get(name) is leaving:
                del self._leaving[name]

    def _withdraw(self, state: Any, name: str) -> None:
        leaving = self._leaving.pop(name)
        _names(state)[name] = leaving.lora
        assert leaving.task is not None
        leaving.task.cancel()


class Guard:
    """The middleware. `scope["app"]` is vLLM's application, whose state holds its table of names and its engine."""

    def __init__(self, app: App) -> None:
        self._app = app
        secret = os.environ.get(SECRET, "")
        self._expected = b"Bearer " + secret.encode() if secret else b""
        self._max_adapters = int(os.environ.get(MAX_ADAPTERS, "0"))
        self._adapters = Adapters(self._max_adapters)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
        elif not self._is_ours(scope):
            await _turn_away(scope, send)
        elif scope["type"] == "websocket" or not self._max_adapters:
            await self._app(scope, receive, send)
        else:
            try:
                await self._route(scope, receive, send)
            except Disconnected:
                return
            except Refused as refused:
                await _refuse(send, refused)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, is_post = scope["path"], scope["method"] == "POST"
        if path == MODELS and scope["method"] == "GET":
            await self._list(scope, receive, send)
        elif is_post and path == LOAD:
            await self._load(scope, receive, send)
        elif is_post and path == UNLOAD:
            name = _text(_object(await _read(receive)), "lora_name")
            await self._adapters.unload(scope["app"].state, name, lambda: _disconnect(receive))
            await _answer(send, 200, {"status": "freed", "lora_name": name})
        elif is_post and path == FORGET:
            await self._adapters.forget(scope["app"].state)
            await _answer(send, 200, {"status": "forgotten"})
        elif path == FOREIGN or path.startswith(f"{FOREIGN}/"):
            raise Refused(400, f"adapters are loaded by {LOAD} and unloaded by {UNLOAD} here", "not_here")
        elif is_post:
            await self._count(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _is_ours(self, scope: Scope) -> bool:
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        return bool(self._expected) and hmac.compare_digest(given, self._expected)

    async def _count(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _read(receive)
        try:
            name = json.loads(body)["model"]
        except (ValueError, LookupError, TypeError, RecursionError):
            name = None  # vLLM says what is wrong with it
        if not isinstance(name, str):
            await self._app(scope, _again(body, receive), send)
            return
        self._adapters.begin(name)
        try:
            await self._app(scope, _again(body, receive), send)
        finally:
            self._adapters.end(name)

    async def _load(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _read(receive)
        asked = _object(body)
        if asked.get("load_inplace"):
            raise Refused(
                400, "load_inplace: a name is never reused for other weights; load them under another one", "in_place"
            )
        name = _text(asked, "lora_name")
        if not await self._adapters.admit(scope["app"].state, name, _text(asked, "lora_path")):
            await _answer(send, 200, {"status": "loaded", "lora_name": name})
            return
        try:
            await self._app(scope, _again(body, receive), send)
        finally:
            self._adapters.loaded(name)

    async def _list(self, scope: Scope, receive: Receive, send: Send) -> None:
        start: Message = {}
        pieces: list[bytes] = []

        async def keep(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            else:
                pieces.append(message.get("body", b""))

        await self._app(scope, receive, keep)
        body = b"".join(pieces)
        if start["status"] == 200:
            listed = json.loads(body)
            body = json.dumps({**listed, "data": self._adapters.tell(listed["data"])}).encode()
        headers = [item for item in start["headers"] if item[0].lower() != b"content-length"]
        await send({**start, "headers": [*headers, (b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})


def _names(state: Any) -> dict[str, Any]:
    """vLLM's own table: what is in it takes requests."""
    names: dict[str, Any] = state.openai_serving_models.lora_requests
    return names


def _is_in_engine(state: Any, name: str) -> bool:
    """Whether vLLM still has a request that uses it: a client that went away is aborted a little after its answer's end."""
    states = getattr(getattr(state.engine_client, "output_processor", None), "request_states", {})
    return any(getattr(request, "lora_name", None) == name for request in list(states.values()))


async def _read(receive: Receive) -> bytes:
    """The request's whole body, which vLLM, too, needs whole. Raises Disconnected."""
    pieces: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        pieces.append(message.get("body", b""))
        if not message.get("more_body", False):
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _again(body: bytes, receive: Receive) -> Receive:
    """The body as one message, then what comes after it."""
    left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Message:
        return left.pop() if left else await receive()

    return next_message


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _object(body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise Refused(400, "the body is not a JSON object", "bad_body")
    return content


def _text(asked: dict[str, Any], key: str) -> str:
    value = asked.get(key)
    if not isinstance(value, str) or not value:
        raise Refused(400, f"{key}: a text is needed", "bad_body")
    return value


async def _turn_away(scope: Scope, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": "unauthorized"})
    else:
        await _refuse(send, Refused(401, "this engine answers its gateway only", "unauthorized"))


async def _refuse(send: Send, refused: Refused) -> None:
    error = {"message": str(refused), "type": refused.code, "param": None, "code": refused.code}
    await _answer(send, refused.status, {"error": error})


async def _answer(send: Send, status: int, content: dict[str, Any]) -> None:
    body = json.dumps(content).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
