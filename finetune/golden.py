"""Compute the reference of an adapter: python -m finetune.golden --base MODEL_FOLDER --adapter ADAPTER_FOLDER --out FILE [--probe FILE]

Log-probabilities of every probe token with transformers and PEFT, in float32: by the base, with the adapter, and with the adapter as
each fault leaves it that an engine could have. Standard output has JSON lines: {"event": "progress", "stage", "text", "done", "total"}, at
the end one of
    {"event": "stored", "file", "num_tokens", "decoys", "seconds"}    exit code 0
    {"event": "refused", "message"}                                   2, the base or the adapter cannot be used
    {"event": "failed", "message"}                                    3, the environment cannot do it
The file is whole or absent, also after SIGTERM.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from backends import artifacts
from backends.adapter.golden import Golden, to_bytes
from backends.adapter.manifest import read_manifest
from backends.adapter.probe import ProbeSet, Text, foreign_probe, read_probe
from backends.adapter.probe_demo import demo_probe
from backends.adapter.upload import CONFIG, WEIGHTS
from backends.demo import TARGET_DIR
from backends.errors import BackendError, EngineUnavailable, ModelUnusable
from finetune.recipe.folders import digest_cache

if TYPE_CHECKING:
    from finetune.reference import Reference

MAX_ANSWER_TOKENS = 32
Tell = Callable[[str, str, int, int], None]
"""Stage, words, done, total."""


def make_golden(
    reference: Reference, probe: ProbeSet, base_digest: str, adapter_digest: str, tell: Tell = lambda *_: None
) -> Golden:
    """The reference scores of the probe set and of the adapter's own answers to its prompts."""
    answers = list(_answers(reference, probe))
    texts = [_cut(text, reference.max_context) for text in (*probe.texts, *answers)]
    runs: list[tuple[str, AbstractContextManager[None]]] = [
        ("base", reference.without_adapter()), ("adapter", nullcontext()), *_faults(reference),
    ]  # fmt: skip
    rows: dict[str, list[float]] = {}
    for number, (name, fault) in enumerate(runs):
        tell("reference", name, number, len(runs))
        with fault:
            rows[name] = reference.scores(texts)
    return Golden(
        base_digest=base_digest,
        adapter_digest=adapter_digest,
        probe_id=ProbeSet(tuple(texts[: len(probe.texts)])).id,
        num_shared=len(probe.texts),
        texts=tuple(texts),
        base=rows.pop("base"),
        adapter=rows.pop("adapter"),
        decoys=rows,
        made_by={name: version(name) for name in ("torch", "transformers", "peft")} | {"device": str(reference.device)},
    )


def _answers(reference: Reference, probe: ProbeSet) -> Iterator[Text]:
    for prompt in probe.prompts:
        answer = reference.greedy(prompt, MAX_ANSWER_TOKENS)
        yield Text((*prompt, *answer), len(prompt))


def _cut(text: Text, max_tokens: int) -> Text:
    return Text(text.ids[:max_tokens], text.first)


def _faults(reference: Reference) -> Iterator[tuple[str, AbstractContextManager[None]]]:
    """By the words in which a verdict names them."""
    yield "scale x0.5", reference.scaled(0.5)
    yield "scale x2", reference.scaled(2.0)
    if reference.is_interleaved:
        yield "q/k not permuted", reference.unpermuted()
    for number in reference.layers:
        yield f"layer {number} missing", reference.without_layer(number)


def probe_of(base: Path, base_digest: str) -> ProbeSet:
    """The probe set of a base. Raises BackendError."""
    if base_digest == artifacts.source_digest(TARGET_DIR):
        return demo_probe(base_digest, base)
    from finetune.tokenise import encoders

    return foreign_probe(*encoders(base))


def digest_of(adapter: Path, base_digest: str) -> str:
    """Of a stored version. Raises VersionUnusable, ModelUnusable."""
    manifest = read_manifest(adapter)
    if manifest.base.source_digest != base_digest:
        raise ModelUnusable(
            f"{adapter}: made for a base of {manifest.base.source_digest}, the one given has {base_digest}: give its own base with --base"
        )
    return manifest.digest


def compute(args: argparse.Namespace) -> dict[str, Any]:
    """The reference of one adapter, stored; returns the last line to print. Raises BackendError."""
    start = time.monotonic()
    say("digest", "hashing the base's weights", 0, 1)
    base_digest = _base_digest(args.base)
    adapter_digest = args.digest or digest_of(args.adapter, base_digest)
    probe = read_probe(args.probe) if args.probe else probe_of(args.base, base_digest)
    say("load", "loading the base and the adapter", 0, 1)
    golden = make_golden(load(args.base, args.adapter, args.device), probe, base_digest, adapter_digest, say)
    with artifacts.atomic_writer(args.out) as out:
        out.write(to_bytes(golden))
    return {
        "event": "stored", "file": str(args.out), "num_tokens": len(golden.base), "decoys": list(golden.decoys),
        "seconds": round(time.monotonic() - start, 2),
    }  # fmt: skip


def _base_digest(base: Path) -> str:
    try:
        return artifacts.source_digest(base, digest_cache())
    except artifacts.ArtifactError as exc:
        raise ModelUnusable(str(exc)) from exc


def load(base: Path, adapter: Path, device: str | None) -> Reference:
    """Raises BackendError."""
    try:
        from finetune.reference import Reference
    except ImportError as exc:
        raise EngineUnavailable(
            f"references need torch, transformers and peft: {exc}: run `forgegate install trainer`"
        ) from exc
    # PEFT would look on the hub for what is not there.
    if missing := [name for name in (CONFIG, WEIGHTS) if not (adapter / name).is_file()]:
        raise ModelUnusable(f"{adapter}: {' and '.join(missing)} missing: it is no adapter in PEFT's format")
    try:
        return Reference(base, adapter, device)
    except (KeyError, OSError, RuntimeError, TypeError, ValueError) as exc:
        raise ModelUnusable(f"transformers and peft cannot load {adapter} on {base}: {exc}") from exc


def say(stage: str, text: str, done: int, total: int) -> None:
    print(json.dumps({"event": "progress", "stage": stage, "text": text, "done": done, "total": total}), flush=True)


def _end(number: int, _: FrameType | None) -> None:
    """As an exception, so that what was begun is removed."""
    raise SystemExit(128 + number)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m finetune.golden", description="Compute the reference of an adapter."
    )
    parser.add_argument("--base", type=Path, required=True, help="the base's model folder")
    parser.add_argument("--adapter", type=Path, required=True, help="folder of a stored version, in PEFT's format")
    parser.add_argument("--out", type=Path, required=True, help="the golden file to write")
    parser.add_argument("--probe", type=Path, help="JSON with a probe set of your own; default: the base's")
    parser.add_argument("--digest", help="the version's digest; default: what its manifest says")
    parser.add_argument("--device", help="as torch names it; default: the first card, else the CPU")
    parser.add_argument("--threads", type=int, help="of the CPU; default: torch decides")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    signal.signal(signal.SIGTERM, _end)
    try:
        if args.threads:
            import torch

            torch.set_num_threads(args.threads)
        print(json.dumps(compute(args)), flush=True)
    except BackendError as exc:
        event = "refused" if exc.exit_code == 2 else "failed"
        print(json.dumps({"event": event, "message": str(exc)}), flush=True)
        return exc.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
