"""Blocks of README.md that are made, not written: `python -m tests.readme --write` makes them anew.

<!-- output of: forgegate --help -->      what the command prints, in a code block
<!-- from: FILE.md -->                    the file
<!-- table of: A.json B.json -->          the results of `forgegate bench run`
<!-- claims of: A.json B.json -->         what `python -m benchmarks.claims` has shown
<!-- end -->
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.claims import page

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
_BLOCK = re.compile(r"(<!-- (output of|from|table of|claims of): (.+?) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def rendered(text: str) -> str:
    """The document with every block made anew."""
    return _BLOCK.sub(lambda match: match[1] + _MAKERS[match[2]](match[3]) + match[5], text)


def num_blocks(text: str) -> int:
    return len(_BLOCK.findall(text))


def _output(command: str) -> str:
    program, *arguments = command.split()
    assert program == "forgegate"
    done = subprocess.run(
        [sys.executable, "-m", "gateway", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return f"```\n{done.stdout.rstrip()}\n```\n"


def _file(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8").strip() + "\n"


def _table(paths: str) -> str:
    lines = [
        "| model | streams | output tok/s | ttft p50 ms | tpot p50 ms | answered |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for path in paths.split():
        result = json.loads((ROOT / path).read_text(encoding="utf-8"))
        lines += [_row(Path(path).stem.removeprefix("h100-"), level) for level in result["levels"]]
    return "\n".join(lines) + "\n"


def _row(model: str, level: dict[str, Any]) -> str:
    pooled = level["pooled"]
    ttft, tpot = pooled["ttft_s"]["p50"] * 1e3, pooled["tpot_s"]["p50"] * 1e3
    answered = f"{pooled['num_ok']}/{pooled['num_requests']}"
    return f"| {model} | {level['concurrency']} | {pooled['output_tps']:,.0f} | {ttft:.1f} | {tpot:.2f} | {answered} |"


def _claims(paths: str) -> str:
    results = [json.loads((ROOT / path).read_text(encoding="utf-8")) for path in paths.split()]
    return "\n".join(page.summary(results)) + "\n"


_MAKERS: dict[str, Callable[[str], str]] = {
    "output of": _output,
    "from": _file,
    "table of": _table,
    "claims of": _claims,
}

if __name__ == "__main__":
    text = rendered(README.read_text(encoding="utf-8"))
    if "--write" in sys.argv:
        README.write_text(text, encoding="utf-8")
    else:
        print(text)
