"""Compute the goldens that are shipped for adapters of the demo model: python -m finetune.demo_goldens [--out DIR]

To be run when the demo model, its adapters, the canonical form or the formula changes; what is there of other versions is removed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from backends import artifacts
from backends.adapter.golden import to_bytes
from backends.demo import TARGET_DIR
from backends.demo.goldens import GOLDENS_DIR
from backends.demo.signatures import ADAPTERS_DIR, SIGNATURES
from finetune.golden import make_golden, probe_of

SHIPPED = {
    **{name: ADAPTERS_DIR / name for name in SIGNATURES},
    "first": Path(__file__).parents[1] / "deploy" / "examples" / "support-tickets" / "first",
}
"""Folders of PEFT adapters: those that sign their answers, and what the support-ticket example begins with."""


def base_json() -> dict[str, Any]:
    """The demo model as a base, as the gateway names it."""
    template = artifacts.read_json(TARGET_DIR / "tokenizer_config.json")["chat_template"]
    return {
        "name": "demo",
        "source_digest": artifacts.source_digest(TARGET_DIR),
        "template_digest": f"sha256:{hashlib.sha256(template.encode()).hexdigest()}",
        "folder": str(TARGET_DIR),
    }


def store(adapter: Path, work: Path) -> str:
    """Take an adapter into the store `work`; its version digest. Raises CalledProcessError."""
    (work / "base.json").write_text(json.dumps(base_json()), encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "backends.adapter.ingest",
        "--upload",
        adapter,
        "--store",
        work / "store",
        "--base",
        work / "base.json",
    ]
    done = subprocess.run([*map(str, command), "--engines", "vllm"], stdout=subprocess.PIPE, text=True, check=True)
    return str(json.loads(done.stdout.splitlines()[-1])["digest"])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m finetune.demo_goldens", description="Compute the goldens of the adapters that are shipped."
    )
    parser.add_argument("--out", type=Path, default=GOLDENS_DIR)
    args = parser.parse_args(argv)
    from finetune.reference import Reference

    base_digest = artifacts.source_digest(TARGET_DIR)
    probe = probe_of(TARGET_DIR, base_digest)
    kept = set()
    with tempfile.TemporaryDirectory() as folder:
        for name, adapter in SHIPPED.items():
            digest = store(adapter, Path(folder))
            reference = Reference(TARGET_DIR, Path(folder, "store", digest), "cpu")
            out = args.out / f"{digest}.safetensors"
            with artifacts.atomic_writer(out) as file:
                file.write(to_bytes(make_golden(reference, probe, base_digest, digest)))
            kept.add(out)
            print(f"{name}: {out.name}, {out.stat().st_size:,} bytes", flush=True)
    for old in set(args.out.glob("*.safetensors")) - kept:
        old.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
