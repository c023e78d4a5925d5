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
    parser.add_argument("--deaf", action="store_true", help="ignore SIGTERM")
    return parser.parse_known_args()[0]


class Stub:
    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.start = asyncio.get_running_loop().time()
        self.num_running = 0
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
        elif path == "/v1/models":
            self.answer(writer, 200, {"data": [{"id": self.args.served_model_name, "max_model_len": 2048}]})
        elif path == "/metrics":
            self.answer(writer, 200, f"forgegate_engine_num_requests_running {self.num_running}\n")
        elif path == "/v1/chat/completions":
            await self.chat(json.loads(body), writer)
        else:
            self.answer(writer, 404, {"error": {"message": path, "type": "x", "param": None, "code": None}})
        await writer.drain()

    def answer(self, writer: asyncio.StreamWriter, status: int, content: object) -> None:
        body = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        writer.write(
            f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode()
            + body
        )

    async def chat(self, request: dict[str, object], writer: asyncio.StreamWriter) -> None:
        self.num_running += 1
        try:
            if request.get("stream"):
                await self.stream(writer)
            else:
                await asyncio.sleep(self.args.tokens * self.args.token_s)
                text = " ".join(f"t{n}" for n in range(self.args.tokens))
                self.answer(writer, 200, {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]})
        finally:
            self.num_running -= 1

    async def stream(self, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for number in range(self.args.tokens):
            delta = {"choices": [{"index": 0, "delta": {"content": f"t{number} "}}]}
            self.chunk(writer, f"data: {json.dumps(delta)}\n\n")
            await writer.drain()
            await asyncio.sleep(self.args.token_s)
        self.chunk(writer, "data: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")

    def chunk(self, writer: asyncio.StreamWriter, text: str) -> None:
        writer.write(f"{len(text.encode()):x}\r\n{text}\r\n".encode())


def apply_start_faults(args: argparse.Namespace) -> None:
    if args.refuse_once and not os.path.exists(args.refuse_once):
        open(args.refuse_once, "w").close()
        print(f"error: port {args.port} is already in use", file=sys.stderr)
        sys.exit(3)
    if args.refuse:
        print(f"error: {args.refuse}", file=sys.stderr)
        sys.exit(3)
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
