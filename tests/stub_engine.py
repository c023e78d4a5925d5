"""A stub engine that obeys the engine contract (health, models, chat completions as SSE, metrics, exit codes), with faults on order.

Standard library only, started as a real child: `python stub_engine.py [--fault ...] --host H --port P ...`. Flags of the
llama.cpp server that mean nothing here are ignored.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys

SLEEPER = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--served-model-name", default="stub")
    parser.add_argument("--tokens", type=int, default=5)
    parser.add_argument("--token-s", type=float, default=0.01)
    parser.add_argument("--start-s", type=float, default=0.0, help="503 for this long")
    parser.add_argument("--refuse", default="", help="exit 3 with this as the error line")
    parser.add_argument("--refuse-once", default="", help="as --refuse, unless this file exists (it is made)")
    parser.add_argument("--crash", default="", help="exit 1 at once, with this as the last line")
    parser.add_argument("--hang", default="", help="answer nothing while this file exists")
    parser.add_argument("--grandchild", default="", help="start one and write its pid to this file")
    parser.add_argument("--escape", action="store_true", help="the grandchild leaves the process group")
    parser.add_argument("--says", action="append", default=[], help="a line of output at the start; may be repeated")
    parser.add_argument("--no-sleep", default="", help="answer 500 with this to whoever tells it to sleep")
    parser.add_argument("--no-wake", default="", help="answer 500 with this to whoever wakes it")
    parser.add_argument("--deaf", action="store_true", help="ignore SIGTERM")
    return parser.parse_known_args()[0]


class Stub:
    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.start = asyncio.get_running_loop().time()
        self.num_running = 0
        self.is_asleep = False
        self.stopping = asyncio.Event()

    async def serve(self) -> None:
        server = await asyncio.start_server(self.connection, self.args.host, self.args.port)
        print(f"listening on {self.args.port}", flush=True)
        async with server:
            await self.stopping.wait()
            server.close()
            while self.num_running:
                await asyncio.sleep(0.01)
        print("finished all requests", flush=True)

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (head := await reader.readuntil(b"\r\n\r\n")) and not self.stopping.is_set():
                await self.request(head.decode("latin-1"), reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def request(self, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, path, _ = head.split("\r\n")[0].split(" ")
        headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        while self.args.hang and os.path.exists(self.args.hang):
            await asyncio.sleep(0.05)
        secret = os.environ.get("FORGEGATE_ENGINE_SECRET", "").lower()
        if path != "/health" and secret and headers.get("authorization") != f"bearer {secret}":
            self.answer(writer, 401, {"error": {"message": "no", "type": "auth", "param": None, "code": None}})
        elif path == "/health":
            is_up = asyncio.get_running_loop().time() - self.start >= self.args.start_s
            self.answer(writer, 200 if is_up else 503, {"status": "ok" if is_up else "loading", "backend": "stub"})
        elif path.startswith(("/sleep", "/wake_up")):
            self.turn(path, writer)
        elif self.is_asleep:
            self.answer(writer, 503, {"error": {"message": "asleep", "type": "x", "param": None, "code": None}})
        elif path == "/v1/models":
            listed = {"id": self.args.served_model_name, "max_model_len": 2048, "capabilities": ["chat"]}
            self.answer(writer, 200, {"data": [listed]})
        elif path == "/metrics":
            self.answer(writer, 200, f"forgegate_engine_num_requests_running {self.num_running}\n")
        elif path == "/v1/chat/completions":
            try:
                fields = json.loads(body)
            except ValueError:
                self.refuse(writer, 400, None, "the body is no JSON")
            else:
                await self.chat(fields, reader, writer)
        else:
            self.answer(writer, 404, {"error": {"message": path, "type": "x", "param": None, "code": None}})
        await writer.drain()

    def turn(self, path: str, writer: asyncio.StreamWriter) -> None:
        is_sleep = path.startswith("/sleep")
        refusal = self.args.no_sleep if is_sleep else self.args.no_wake
        if not refusal:
            assert not (is_sleep and self.num_running), "told to sleep with running requests"
            self.is_asleep = is_sleep
        print(f"{path}{f' refused: {refusal}' if refusal else ''}", flush=True)
        self.answer(writer, 500 if refusal else 200, refusal or "{}")

    def answer(self, writer: asyncio.StreamWriter, status: int, content: object) -> None:
        body = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        writer.write(
            f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode()
            + body
        )

    async def chat(
        self, request: dict[str, object], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if request.get("model") not in (None, self.args.served_model_name):
            self.refuse(writer, 404, "model", f"unknown model {request['model']!r}")
            return
        wanted = request.get("max_tokens", self.args.tokens)
        if not isinstance(wanted, int) or wanted < 1:
            self.refuse(writer, 400, "max_tokens", f"max_tokens: not a number of tokens: {wanted!r}")
            return
        num_tokens = wanted if request.get("ignore_eos") else min(wanted, self.args.tokens)
        reason = "length" if num_tokens == wanted and "max_tokens" in request else "stop"
        self.num_running += 1
        try:
            if request.get("stream"):
                await self.stream(writer, num_tokens, reason, request.get("stream_options"))
            else:
                for _ in range(num_tokens):
                    await asyncio.sleep(self.args.token_s)
                    if reader.at_eof():  # nobody waits for it any more
                        return
                message = {"role": "assistant", "content": "".join(f"t{number} " for number in range(num_tokens))}
                choice = {"index": 0, "message": message, "finish_reason": reason}
                self.answer(writer, 200, frame("chat.completion", [choice], usage(num_tokens)))
        finally:
            self.num_running -= 1

    async def stream(self, writer: asyncio.StreamWriter, num_tokens: int, reason: str, options: object) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for number in range(num_tokens):
            is_last = number == num_tokens - 1
            delta = {"content": f"t{number} "}
            self.event(writer, [{"index": 0, "delta": delta, "finish_reason": reason if is_last else None}])
            await writer.drain()
            await asyncio.sleep(self.args.token_s)
        if isinstance(options, dict) and options.get("include_usage"):
            self.event(writer, [], usage(num_tokens))
        self.chunk(writer, "data: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")

    def refuse(self, writer: asyncio.StreamWriter, status: int, param: str | None, message: str) -> None:
        error = {"message": message, "type": "invalid_request_error", "param": param, "code": None}
        self.answer(writer, status, {"error": error})

    def event(
        self, writer: asyncio.StreamWriter, choices: list[dict[str, object]], used: dict[str, int] | None = None
    ) -> None:
        self.chunk(writer, f"data: {json.dumps(frame('chat.completion.chunk', choices, used))}\n\n")

    def chunk(self, writer: asyncio.StreamWriter, text: str) -> None:
        writer.write(f"{len(text.encode()):x}\r\n{text}\r\n".encode())


def usage(num_tokens: int) -> dict[str, int]:
    return {"prompt_tokens": 1, "completion_tokens": num_tokens, "total_tokens": 1 + num_tokens}


def frame(kind: str, choices: list[dict[str, object]], used: dict[str, int] | None = None) -> dict[str, object]:
    answer: dict[str, object] = {"id": "stub-1", "object": kind, "created": 0, "model": "stub", "choices": choices}
    return answer | {"usage": used} if used else answer


def apply_start_faults(args: argparse.Namespace) -> None:
    if args.refuse_once and not os.path.exists(args.refuse_once):
        open(args.refuse_once, "w").close()
        print(f"error: port {args.port} is already in use", file=sys.stderr)
        sys.exit(3)
    if args.refuse:
        print(f"error: {args.refuse}", file=sys.stderr)
        sys.exit(3)
    for line in args.says:
        print(line, flush=True)
    if args.crash:
        print(f"something\n{args.crash}", file=sys.stderr)
        sys.exit(1)
    if args.grandchild:
        child = subprocess.Popen(SLEEPER, start_new_session=args.escape)
        with open(args.grandchild, "w") as file:
            file.write(str(child.pid))


async def main() -> None:
    args = parse()
    apply_start_faults(args)
    stub = Stub(args)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, (lambda: None) if args.deaf else stub.stopping.set)
    loop.add_signal_handler(signal.SIGINT, lambda: print("got SIGINT", flush=True))
    await stub.serve()


if __name__ == "__main__":
    asyncio.run(main())
