"""`forgegate chat`: talk to a model in the terminal."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import httpx
from rich.console import Console

from gateway.exits import DONE, CommandError, UsageError
from gateway.home import Home

EXAMPLE = """examples:
  forgegate chat
  forgegate chat --model demo --system "Answer in Korean."
  echo "What is a KV cache?" | forgegate chat

in the chat: /reset forgets, /system TEXT sets the system prompt, /exit leaves; Ctrl-C stops an answer.
Piped input is one message; only the answer is printed.
"""
DEFAULT_URL = "http://127.0.0.1:8080"
KEY_VARIABLE = "FORGEGATE_API_KEY"
TIMEOUT = httpx.Timeout(10.0, read=600.0)


class ChatError(CommandError):
    """The endpoint cannot be reached, or answered with an error."""


class Chat:
    """One conversation. The history holds only what was said, partly stopped answers included."""

    def __init__(self, client: httpx.Client, model: str, system: str = "") -> None:
        self.model = model
        self.system = system
        self.messages: list[dict[str, str]] = []
        self._client = client

    def ask(self, text: str) -> Iterator[str]:
        """Yield the answer piece by piece. Raises ChatError; the turn is then forgotten."""
        self.messages.append({"role": "user", "content": text})
        answer: list[str] = []
        try:
            for piece in self._stream():
                answer.append(piece)
                yield piece
        except ChatError:
            self.messages.pop()
            raise
        except (KeyboardInterrupt, GeneratorExit):
            self._remember(answer)
            raise
        self._remember(answer)

    def reset(self) -> None:
        self.messages.clear()

    def _remember(self, answer: list[str]) -> None:
        self.messages.append({"role": "assistant", "content": "".join(answer)})

    def _stream(self) -> Iterator[str]:
        system = [{"role": "system", "content": self.system}] if self.system else []
        body = {"model": self.model, "stream": True, "messages": [*system, *self.messages]}
        try:
            with self._client.stream("POST", "/v1/chat/completions", json=body) as reply:
                if reply.is_error:
                    reply.read()
                    raise ChatError(error_text(reply))
                yield from _pieces(reply.iter_lines())
        except httpx.HTTPError as exc:
            raise ChatError(f"{self._client.base_url}: {str(exc) or type(exc).__name__}") from exc


def _pieces(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        data = line.removeprefix("data:").strip()
        if not line.startswith("data:") or not data:
            continue
        if data == "[DONE]":
            return
        try:
            event = json.loads(data)
        except ValueError as exc:
            raise ChatError(f"the answer holds an event that is not JSON: {data[:80]}") from exc
        if "error" in event:
            raise ChatError(str(event["error"].get("message", event["error"])))
        for choice in event.get("choices", ()):
            if piece := choice.get("delta", {}).get("content"):
                yield piece
    raise ChatError("the answer ended before it was complete")


def main(argv: Sequence[str]) -> int:
    args = parser().parse_args(argv)
    running = Home.from_env().running()
    url = (args.url or (running.url if running else DEFAULT_URL)).rstrip("/").removesuffix("/v1")
    key = os.environ.get(KEY_VARIABLE, "")
    question = "" if sys.stdin.isatty() else _piped(sys.stdin.buffer.read())
    headers = {"authorization": f"Bearer {key}"} if key else {}
    with httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT, trust_env=False) as client:
        chat = Chat(client, first_model(client) if args.model is None else args.model, args.system)
        if question:
            for piece in chat.ask(question):
                print(piece, end="", flush=True)
            print()
            return DONE
        _prepare_line_editing()
        return talk(chat, Console(highlight=False), input)


def _piped(data: bytes) -> str:
    """The question on standard input. Raises UsageError when there is none, or it is no text."""
    try:
        question = data.decode("utf-8").strip()
    except UnicodeDecodeError as exc:
        raise UsageError(f"standard input is not UTF-8 text ({exc.reason} at byte {exc.start})") from exc
    if not question:
        raise UsageError("nothing on standard input to ask")
    return question


def talk(chat: Chat, console: Console, read: Callable[[str], str]) -> int:
    """The dialogue: until /exit or end of input."""
    console.print(f"model [bold]{chat.model}[/]; /reset, /system TEXT, /exit; Ctrl-C stops an answer")
    while True:
        try:
            line = read("> ").strip()
        except EOFError:
            console.print()
            return DONE
        except KeyboardInterrupt:
            console.print("\n(/exit leaves)")
            continue
        if line == "/exit":
            return DONE
        if line.startswith("/"):
            console.print(_command(chat, line), markup=False)
        elif line:
            _answer(chat, line, console)


def first_model(client: httpx.Client) -> str:
    """The first model that the endpoint lists. Raises ChatError."""
    try:
        reply = client.get("/v1/models")
        if reply.is_error:
            raise ChatError(error_text(reply))
        models = reply.json()["data"]
    except httpx.HTTPError as exc:
        raise ChatError(f"no gateway answers at {client.base_url} ({exc}); start one with `forgegate serve`") from exc
    except (ValueError, KeyError, TypeError) as exc:
        raise ChatError(f"{client.base_url} is not an OpenAI-compatible endpoint") from exc
    if not models:
        raise ChatError(f"{client.base_url} serves no model")
    return str(models[0]["id"])


def error_text(reply: httpx.Response) -> str:
    """The message of an error answer, with its status."""
    try:
        content: Any = reply.json()
        message = content["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = reply.text[:200].strip() or reply.reason_phrase
    return f"{message} ({reply.status_code})"


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "forgegate chat", description="Talk to a model in the terminal.",
        epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.epilog = f"{EXAMPLE}\nenvironment:\n  {KEY_VARIABLE}    API key, where the endpoint asks for one\n"
    parser.add_argument("--url", help=f"endpoint (default: the gateway running here, else {DEFAULT_URL})")
    parser.add_argument("--model", help="model to talk to (default: the first one listed)")
    parser.add_argument("--system", default="", metavar="TEXT", help="system prompt")
    return parser


def _command(chat: Chat, line: str) -> str:
    name, _, text = line.partition(" ")
    if name == "/reset":
        chat.reset()
        return "(forgotten)"
    if name == "/system":
        chat.system = text.strip()
        return f"(system prompt: {chat.system or 'none'})"
    return f"unknown command {name}; there are /reset, /system TEXT, /exit"


def _answer(chat: Chat, line: str, console: Console) -> None:
    try:
        for piece in chat.ask(line):
            console.print(piece, end="", markup=False, soft_wrap=True)
        console.print()
    except KeyboardInterrupt:
        console.print(" (stopped)", style="dim")
    except ChatError as exc:
        console.print(f"error: {exc}", style="red", markup=False)


def _prepare_line_editing() -> None:
    try:
        import readline  # noqa: F401 - importing it gives input() history and editing
    except ImportError:
        return  # Python built without it: plain input
