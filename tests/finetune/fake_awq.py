"""A stand-in for the child that runs AutoAWQ: it takes the same task, says the same lines and writes the same files, with empty weights.

Run as PYTHON fake_awq.py CALLS -P -m finetune.awq TASK; each task is added to the file CALLS. It dies half-way where the text to
calibrate with begins with `die`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import sys
from pathlib import Path
from typing import Any

from backends.errors import BackendError
from backends.modelfolder import stored_tensors, weight_files
from finetune import awq

PACKED = re.compile(r"(model\.layers\.\d+\..+)\.weight$")
REFERENCE, LOSS = 2.0, 2.03


def install(envs: Path) -> Path:
    """As the environment `awq` under `envs`. The file of its calls."""
    python, calls = envs / "awq" / "bin" / "python", envs / "awq" / "calls"
    python.parent.mkdir(parents=True)
    command = shlex.join([sys.executable, "-P", str(Path(__file__).resolve()), str(calls)])
    python.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    python.chmod(0o755)
    return calls


def main(argv: list[str]) -> int:
    calls, *options, task = argv
    assert options == ["-P", "-m", "finetune.awq"]
    with Path(calls).open("a") as file:
        file.write(task + "\n")
    given = json.loads(task)
    try:
        awq._say("done", **{"check": _check, "quantize": _quantize}[given["do"]](given))
    except BackendError as exc:
        awq._say("refused", message=str(exc))
        return exc.exit_code
    return 0


def _check(task: dict[str, Any]) -> dict[str, Any]:
    source = Path(task["model"])
    config = json.loads((source / "config.json").read_bytes())
    awq._require_known(source, config["model_type"], {"llama": None})
    for text in (task["calibration"], task["text"]):
        if text:
            awq._rows(source, Path(text), task["most_windows"])
    return {}


def _quantize(task: dict[str, Any]) -> dict[str, Any]:
    _check(task)
    source, out = Path(task["model"]), Path(task["out"])
    _write_weights(source, out, task["group_size"])
    if Path(task["calibration"]).read_text(encoding="utf-8").startswith("die"):
        os.kill(os.getpid(), signal.SIGKILL)
    config = json.loads((source / "config.json").read_bytes())
    made = {"quant_method": "awq", "bits": 4, "group_size": task["group_size"], "zero_point": True, "version": "gemm"}
    (out / "config.json").write_text(json.dumps({"quantization_config": made}))
    awq._finish(source, out, config)
    num_windows = len(awq._rows(source, Path(task["text"]), task["most_windows"])) if task["text"] else 0
    for index in range(num_windows):
        awq._say("progress", text="perplexity of awq", done=index, total=num_windows)
    return {"device": "the CPU", "losses": [LOSS] * num_windows, "reference_losses": [REFERENCE] * num_windows}


def _write_weights(source: Path, out: Path, group: int) -> None:
    header: dict[str, Any] = {}
    offset = 0
    for name, tensor in stored_tensors(weight_files(source)).items():
        match = PACKED.match(name)
        parts = _packed(match[1], *tensor.shape, group) if match and len(tensor.shape) == 2 else {}
        for part, (dtype, width, shape) in (parts or {name: ("F16", 2, tensor.shape)}).items():
            size = width * shape[0] * (shape[1] if len(shape) > 1 else 1)
            header[part] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + size]}
            offset += size
    text = json.dumps(header).encode()
    path = out / "model.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(path, 8 + len(text) + offset)


def _packed(name: str, rows: int, columns: int, group: int) -> dict[str, tuple[str, int, tuple[int, ...]]]:
    """Eight values in each word of 32 bits, along the rows."""
    return {
        f"{name}.qweight": ("I32", 4, (columns, rows // 8)),
        f"{name}.qzeros": ("I32", 4, (columns // group, rows // 8)),
        f"{name}.scales": ("F16", 2, (columns // group, rows)),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
