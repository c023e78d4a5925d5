"""AWQ of a model folder by AutoAWQ, in its own environment: 4-bit weights that vLLM serves.

python -m finetune.awq TASK     TASK: a JSON object with do ("check" or "quantize"), model, calibration, text, most_windows; to
                                quantise also out, group_size

prints one JSON object a line: {"event": "progress", "text", "done", "total"}, at last {"event": "done"}, of what was quantised with
"device", "losses", "reference_losses", or {"event": "refused", "message"} with exit code 2 (what was given) or 3 (what is here).

AutoAWQ searches, layer by layer, for scales of the columns that keep a layer's output, on text that it is calibrated with. It is the last
of its line and needs an old transformers, which reads neither tokenizers nor configurations of newer ones: tokens are made by `tokenizers`
alone, the configuration is put into its old form for reading, and the folder that is written has the original's own files.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from backends.errors import BackendError, EngineUnavailable, ModelUnusable
from backends.windows import cut

ROW = 512
"""Tokens of a row, for calibration and of a window that is scored."""
GPU_ROWS, CPU_ROWS = 128, 16
"""Rows to calibrate with; a CPU takes a minute for what a GPU does in one second."""
FEWEST_ROWS = 4
_NOT_COPIED = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".onnx", ".h5", ".msgpack", ".py")


def main(argv: Sequence[str]) -> int:
    task = json.loads(argv[0])
    try:
        _say("done", **WORK[task["do"]](task))
    except BackendError as exc:
        _say("refused", message=str(exc))
        return exc.exit_code
    return 0


def quantize(task: dict[str, Any]) -> dict[str, Any]:
    """Write the folder `out`. Raises BackendError."""
    torch, awq, config, rows, windows = _given(task)
    source, out = Path(task["model"]), Path(task["out"])
    torch.manual_seed(0)
    dtype = torch.float16 if torch.cuda.is_available() else torch.float32
    with tempfile.TemporaryDirectory(prefix="forgegate-awq-") as name:
        _make_view(source, Path(name), config)
        model = awq.AutoAWQForCausalLM.from_pretrained(name, torch_dtype=dtype, trust_remote_code=False)
    reference = _losses(torch, model.model, windows, "perplexity of F16")
    settings = {"zero_point": True, "q_group_size": task["group_size"], "w_bit": 4, "version": "GEMM"}
    model.quantize(None, quant_config=settings, calib_data=rows, max_calib_samples=len(rows), max_calib_seq_len=ROW)
    model.model.half()
    model.save_quantized(str(out))
    losses = _losses(torch, _dequantised(torch, model.model).to(dtype), windows, "perplexity of awq") if windows else []
    _finish(source, out, config)
    return {
        "device": "the GPU" if torch.cuda.is_available() else "the CPU",
        "losses": losses,
        "reference_losses": reference,
    }


def check(task: dict[str, Any]) -> dict[str, Any]:
    """Whether `quantize` would begin; no weights are read. Raises BackendError."""
    _given(task)
    return {}


def _given(task: dict[str, Any]) -> tuple[Any, Any, dict[str, Any], list[list[int]], list[list[int]]]:
    """torch, awq, the configuration, rows to calibrate with, windows to score. Raises BackendError."""
    torch, awq, models = _modules()
    source = Path(task["model"])
    config = json.loads((source / "config.json").read_bytes())
    _require_known(source, str(config.get("model_type", "")), models)
    rows = _rows(source, Path(task["calibration"]), GPU_ROWS if torch.cuda.is_available() else CPU_ROWS)
    windows = _rows(source, Path(task["text"]), task["most_windows"]) if task["text"] else []
    return torch, awq, config, rows, windows


def _modules() -> tuple[Any, Any, Any]:
    """torch, awq and the table of models that it knows. Raises EngineUnavailable."""
    import warnings

    warnings.simplefilter("ignore")  # it announces its end, and what its old transformers dislikes
    try:
        import awq
        import torch
        from awq.models.auto import AWQ_CAUSAL_LM_MODEL_MAP
        from awq.modules.linear import gemm
        from awq.quantize import quantizer
    except ImportError as exc:
        raise EngineUnavailable(f"AutoAWQ is not here ({exc}): forgegate install awq") from exc
    quantizer.tqdm = _follow
    if not torch.cuda.is_available():
        gemm.TRITON_AVAILABLE = False  # it can be imported, and computes on GPUs only
        quantizer.torch = _Float32(torch)
    return torch, awq, AWQ_CAUSAL_LM_MODEL_MAP


def _require_known(source: Path, model_type: str, models: dict[str, Any]) -> None:
    if model_type not in models:
        raise ModelUnusable(
            f"{source}: AutoAWQ does not know models of type {model_type!r}; it knows {', '.join(sorted(models))}. Take a GGUF level, "
            "or llm-compressor of the vLLM project"
        )


def _rows(source: Path, text: Path, most: int) -> list[list[int]]:
    """The text's tokens in rows, spread over all of it. Raises ModelUnusable."""
    from tokenizers import Tokenizer

    path = source / "tokenizer.json"
    if not path.is_file():
        raise ModelUnusable(f"{source}: no tokenizer.json in it, and AWQ reads no other form: save the tokenizer anew")
    ids = Tokenizer.from_file(str(path)).encode(text.read_text(encoding="utf-8-sig")).ids
    if len(ids) < FEWEST_ROWS * ROW:
        raise ModelUnusable(f"{text}: {len(ids):,} tokens, too few; give {FEWEST_ROWS * ROW:,} or more")
    return [row.tolist() for row in cut(ids, ROW, None, most)]


def old_config(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration as transformers 4 reads it: the newer `rope_parameters` and `dtype` would be passed over in silence."""
    old = dict(config)
    rope = old.pop("rope_parameters", None)
    if isinstance(rope, dict):
        if "rope_theta" in rope:
            old["rope_theta"] = rope["rope_theta"]
        if rope.get("rope_type", "default") != "default":
            old["rope_scaling"] = {key: value for key, value in rope.items() if key != "rope_theta"}
    if "dtype" in old:
        old.setdefault("torch_dtype", old.pop("dtype"))
    return old


def _make_view(source: Path, view: Path, config: dict[str, Any]) -> None:
    """The weights and the configuration in its old form; no code and no tokenizer."""
    for path in source.iterdir():
        if path.name.endswith((".safetensors", ".safetensors.index.json")):
            (view / path.name).symlink_to(path.resolve())
    (view / "config.json").write_text(json.dumps(old_config(config)), encoding="utf-8")


def _losses(torch: Any, model: Any, windows: list[list[int]], words: str) -> list[float]:
    """Mean negative log-likelihood of the second half of each window, in nats."""
    device = next(model.parameters()).device
    found = []
    with torch.inference_mode():
        for index, window in enumerate(windows):
            _say("progress", text=words, done=index, total=len(windows))
            ids = torch.tensor([window], device=device)
            half = len(window) // 2
            logits = model(ids, use_cache=False).logits[0, half - 1 : -1].float()
            found.append(float(torch.nn.functional.cross_entropy(logits, ids[0, half:])))
    return found


def _dequantised(torch: Any, model: Any) -> Any:
    """With the weights that 4 bits stand for in place of the packed ones, unpacked once."""
    from awq.modules.linear import WQLinear_GEMM
    from awq.utils.packing_utils import dequantize_gemm

    packed = [(name, each) for name, each in model.named_modules() if isinstance(each, WQLinear_GEMM)]
    for name, each in packed:
        weight = dequantize_gemm(each.qweight, each.qzeros, each.scales, each.w_bit, each.group_size).t().contiguous()
        linear = torch.nn.Linear(
            each.in_features, each.out_features, bias=each.bias is not None, dtype=weight.dtype, device=weight.device
        )
        linear.weight.data = weight
        if each.bias is not None:
            linear.bias.data = each.bias
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, linear)
    return model


def _finish(source: Path, out: Path, config: dict[str, Any]) -> None:
    """The original's own files beside the new weights, and its configuration with what was done to it."""
    made = json.loads((out / "config.json").read_bytes())
    for path in source.iterdir():
        if path.is_file() and not path.name.startswith(".") and not path.name.endswith((*_NOT_COPIED, ".index.json")):
            shutil.copyfile(path, out / path.name)
    dtype = {"dtype" if "dtype" in config else "torch_dtype": "float16"}
    for path in out.glob("*.safetensors"):
        path.chmod(0o644)
    config = {**config, **dtype, "quantization_config": made["quantization_config"]}
    (out / "config.json").write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


class _Float32:
    """torch for AutoAWQ's search on a CPU, where products of F16 take five times as long as those of F32."""

    def __init__(self, torch: Any) -> None:
        self._torch = torch
        self.half = torch.float32

    def __getattr__(self, name: str) -> Any:
        return getattr(self._torch, name)


def _follow(items: Iterable[Any], desc: str = "", **_: Any) -> Iterator[Any]:
    """In place of AutoAWQ's bar."""
    every = list(items)
    for index, item in enumerate(every):
        _say("progress", text=f"awq: {desc}", done=index, total=len(every))
        yield item


def _say(event: str, **fields: Any) -> None:
    print(json.dumps({"event": event, **fields}), flush=True)


WORK: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {"check": check, "quantize": quantize}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
