"""What is asked, as options; shared with the comparison of peers."""

import argparse
from pathlib import Path
from typing import Any

import orjson

from benchmarks import arguments
from benchmarks.traffic.prompts import DEMO, demo_prompts, read_prompts
from benchmarks.workload import Endpoint, PromptForm, Workload, WorkloadError

_LENGTHS = "N|A-B|lognormal:MEAN,SIGMA"


def add_workload_options(parser: argparse.ArgumentParser) -> None:
    """Of every command that generates requests."""
    add = parser.add_argument
    toggle = argparse.BooleanOptionalAction
    add("--endpoint", choices=[each.value for each in Endpoint], default="chat", help="API (default chat)")
    add("--input-tokens", type=arguments.length, default="32", metavar=_LENGTHS, help="prompt length (default 32)")
    add("--output-tokens", type=arguments.length, default="128", metavar=_LENGTHS, help="answer length (default 128)")
    add("--prompt-form", choices=[each.value for each in PromptForm], default="words", help="ids: completions only")
    add("--vocab-size", type=arguments.whole(1), default=4096, help="for --prompt-form ids (default 4096)")
    add(
        "--prompts",
        type=Path,
        metavar="FILE|demo",
        help="prompts from a file: lines of text, or .jsonl with prompt or messages; demo: chats of the demo model's corpus",
    )
    add("--ignore-eos", action=toggle, default=True, help="ask for answers of full length (default on)")
    add("--min-tokens", action=toggle, default=False, help="ask for it by min_tokens too (default off)")
    add("--temperature", type=arguments.number(0), default=0.0, help="default 0")
    add("--body", default="{}", metavar="JSON", help="fields merged into every request")


def workload_of(options: argparse.Namespace, model: str, **more: Any) -> Workload:
    """From the parsed options, and further fields of the workload; raises WorkloadError."""
    try:
        extra = orjson.loads(options.body)
    except orjson.JSONDecodeError as exc:
        raise WorkloadError(f"--body is not JSON: {exc}") from exc
    if not isinstance(extra, dict):
        raise WorkloadError("--body must be a JSON object")
    fields: dict[str, Any] = {
        "endpoint": Endpoint(options.endpoint),
        "input_tokens": options.input_tokens,
        "output_tokens": options.output_tokens,
        "prompt_form": PromptForm(options.prompt_form),
        "vocab_size": options.vocab_size,
        "prompts": _prompts(options.prompts),
        "ignore_eos": options.ignore_eos,
        "min_tokens": options.min_tokens,
        "temperature": options.temperature,
    }
    return Workload(model=model, **{**fields, **more, "extra": {**more.get("extra", {}), **extra}})


def _prompts(path: Path | None) -> tuple[Any, ...]:
    if path is None:
        return ()
    return demo_prompts() if str(path) == DEMO and not path.exists() else read_prompts(path)
