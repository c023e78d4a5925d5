"""A stub engine that takes LoRA adapters: what it is told to load it holds, and what is named in the file `--bad` it fails with 500.

Standard library only, started as a real child in the place of the llama.cpp server.
"""

from __future__ import annotations

import argparse
import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

HELD: dict[str, str] = {}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    model, bad = "", Path()

    def do_GET(self) -> None:
        if self.path == "/health":
            self.answer(200, {"status": "ok", "backend": "stub"})
        elif self.path == "/v1/models":
            base = {"id": self.model, "max_model_len": 2048, "capabilities": ["chat"]}
            held = [{"id": name, "parent": self.model, "root": root, "num_running": 0} for name, root in HELD.items()]
            self.answer(200, {"data": [base, *held]})
        else:
            self.answer(200, {})

    def do_POST(self) -> None:
        fields = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path == "/v1/load_lora_adapter":
            HELD[fields["lora_name"]] = fields["lora_path"]
            self.answer(200, {})
        elif self.path == "/v1/unload_lora_adapter":
            HELD.pop(fields["lora_name"], None)
            self.answer(200, {})
        elif fields["model"] != self.model and fields["model"] not in HELD:
            self.answer(
                404, {"error": {"message": f"no model {fields['model']}", "type": "x", "param": "model", "code": None}}
            )
        elif self.bad.exists() and self.bad.read_text() == fields["model"]:
            self.answer(500, {"error": {"message": "out of order", "type": "x", "param": None, "code": None}})
        else:
            message = {"role": "assistant", "content": fields["model"]}
            self.answer(200, {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

    def answer(self, status: int, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--served-model-name", default="stub")
    parser.add_argument("--bad", type=Path, required=True)
    args = parser.parse_known_args()[0]
    Handler.model, Handler.bad = args.served_model_name, args.bad
    server = ThreadingHTTPServer((args.host, args.port), Handler)
    print(f"listening on {args.port}, pid {os.getpid()}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
