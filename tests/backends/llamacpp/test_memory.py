"""How much memory a model takes: against figures worked out by hand, against llama.cpp's own, against a running engine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from backends.llamacpp.header import read_parts
from backends.llamacpp.memory import (
    Device,
    compute_bytes,
    kv_bytes,
    kv_bytes_per_cell,
    num_rows,
    placement,
    shares_of,
    uses,
)
from backends.llamacpp.options import Options
from backends.llamacpp.shape import Shape, shape_of
from backends.llamacpp.sizes import num_cells, num_sequence_ids
from backends.plan import GIB, MIB, Use
from tests.backends.llamacpp import ggufs
from tests.engine_process import engine_process

MODELS: dict[str, Callable[[Path], Path]] = {
    "llama-8b": ggufs.llama_8b, "qwen-7b": ggufs.qwen_7b, "mixtral": ggufs.mixtral, "gemma-9b": ggufs.gemma_9b,
    "llama-70b": ggufs.llama_70b,
}  # fmt: skip


def shape_at(path: Path) -> Shape:
    shape = shape_of(read_parts(path))
    assert shape is not None
    return shape


@pytest.mark.parametrize(
    ("model", "kv_per_cell", "layer_bytes", "output_bytes", "input_bytes"),
    [
        # K and V of 8 heads of 128 in f16, 32 layers; a layer is 218,103,808 values of 4.5 bits and two norms of 4096 x 4 bytes.
        ("llama-8b", 32 * 2 * 8 * 128 * 2, 218_103_808 * 9 // 16 + 32_768, 128_256 * 4096 * 210 // 256 + 16_384, 295_501_824),
        # 4 heads of 128, 28 layers; 233,046,016 values, norms of 3584 and biases of 3584 + 2 x 512.
        ("qwen-7b", 28 * 2 * 4 * 128 * 2, 233_046_016 * 9 // 16 + 4 * (2 * 3584 + 4608), 447_082_496, 306_561_024),
        # Eight experts of 3 x 4096 x 14336 values, a router of 8 x 4096 in f32.
        ("mixtral", 32 * 2 * 8 * 128 * 2, 1_451_229_184 * 9 // 16 + 4 * (2 * 4096 + 8 * 4096), 107_536_384, 73_728_000),
        # 8 heads of 256, 42 layers; the output matrix is the input's.
        ("gemma-9b", 42 * 2 * 8 * 256 * 2, 198_180_864 * 9 // 16 + 4 * 4 * 3584, 4 * 3584, 516_096_000),
    ],
)  # fmt: skip
def test_against_figures_worked_out_by_hand(
    model: str, kv_per_cell: int, layer_bytes: int, output_bytes: int, input_bytes: int, tmp_path: Path
) -> None:
    shape = shape_at(MODELS[model](tmp_path / "m.gguf"))
    options = Options().settled()
    assert sum(kv_bytes_per_cell(layer, options) for layer in shape.layers) == kv_per_cell
    assert sum(kv_bytes(layer, options) for layer in shape.layers) == kv_per_cell * 8192
    assert {layer.weight_bytes for layer in shape.layers} == {layer_bytes}
    assert (shape.output_bytes, shape.input_bytes) == (output_bytes, input_bytes)
    assert shape.tied_bytes == (input_bytes if model == "gemma-9b" else 0)


def test_cache_types_and_heads_per_layer(tmp_path: Path) -> None:
    path = ggufs.llama(
        tmp_path / "m.gguf",
        layers=3,
        width=256,
        inner=512,
        heads=4,
        kv_heads=[4, 0, 2],
        head=64,
        vocabulary=512,
        length=512,
    )
    shape = shape_at(path)
    assert [layer.k_width for layer in shape.layers] == [256, 0, 128]
    options = Options(cache_type_k="q8_0", cache_type_v="f32").settled()
    assert kv_bytes_per_cell(shape.layers[0], options) == 256 / 32 * 34 + 256 * 4


def test_recurrent_layers_keep_a_state_for_each_sequence(tmp_path: Path) -> None:
    metadata = {
        "general.architecture": "mamba", "mamba.block_count": 2, "mamba.embedding_length": 768, "mamba.ssm.conv_kernel": 4,
        "mamba.ssm.inner_size": 1536, "mamba.ssm.state_size": 16, "mamba.context_length": 1024, "mamba.attention.head_count": 0,
    }  # fmt: skip
    tensors = [(f"blk.{n}.ssm_in.weight", (768, 3072), ggufs.F16) for n in range(2)]
    shape = shape_at(ggufs.write(tmp_path / "m.gguf", metadata, tensors))
    assert [layer.state_values for layer in shape.layers] == [3 * 1536 + 16 * 1536] * 2
    options = Options().settled()
    assert kv_bytes(shape.layers[0], options) == 4 * 19 * 1536 * 64


def test_a_head_that_does_not_say_enough(tmp_path: Path) -> None:
    assert (
        shape_of(read_parts(ggufs.write(tmp_path / "m.gguf", {"general.architecture": "odd"}, [("a", (32,), 0)])))
        is None
    )


@pytest.mark.parametrize(
    ("num_layers", "num_on_gpu", "shares", "expected"),
    [
        (3, 0, [1.0], [None, None, None, None]),
        (3, 99, [1.0], [0, 0, 0, 0]),
        (3, 2, [1.0], [None, None, 0, 0]),
        (3, 4, [1.0, 1.0], [0, 0, 1, 1]),
        (7, 8, [3.0, 1.0], [0, 0, 0, 0, 0, 0, 1, 1]),
        (3, 4, [0.0, 1.0], [1, 1, 1, 1]),
        (3, 4, [], [None, None, None, None]),
    ],
)
def test_layers_are_dealt_out_as_llama_cpp_does(
    num_layers: int, num_on_gpu: int, shares: list[float], expected: list[int | None]
) -> None:
    assert placement(num_layers, num_on_gpu, shares) == expected


def test_shares_follow_the_options() -> None:
    two = [Device("CUDA0", "", 10, 20), Device("CUDA1", "", 30, 40)]
    assert shares_of(Options(), two) == [10, 30]
    assert shares_of(Options(tensor_split=(3.0, 1.0)), two) == [3, 1]
    assert shares_of(Options(split_mode="none", main_gpu=1), two) == [0, 1]


def test_an_output_matrix_that_is_the_inputs_is_copied_to_the_gpu(tmp_path: Path) -> None:
    shape = shape_at(ggufs.gemma_9b(tmp_path / "m.gguf"))
    gpu = Device("CUDA0", "", 24 * GIB, 24 * GIB)
    ram, on_gpu = uses(shape, Options().settled(), [gpu], 43, 64 * GIB)
    assert ram.weights_bytes == shape.input_bytes
    assert on_gpu.weights_bytes == shape.weight_bytes
    assert (ram.kv_bytes, on_gpu.kv_bytes) == (0, 42 * 8192 * 8192)


def test_engines_of_a_pool_share_what_is_mapped(tmp_path: Path) -> None:
    shape = shape_at(ggufs.llama(
        tmp_path / "m.gguf", layers=2, width=256, inner=512, heads=4, kv_heads=4, head=64, vocabulary=512, length=512,
        kind=ggufs.F16,
    ))  # fmt: skip
    (mapped,) = uses(shape, Options().settled(), [], 0, GIB)
    assert mapped.of_pool(3) == 3 * mapped.total_bytes - 2 * shape.weight_bytes
    (read,) = uses(shape, Options(use_mmap=False).settled(), [], 0, GIB)
    assert read.of_pool(3) == 3 * read.total_bytes


# Against llama.cpp itself ---------------------------------------------------------------------------------------------

CASES: list[dict[str, object]] = [
    {}, {"n_ctx": 32_768}, {"n_batch": 128, "n_ubatch": 128}, {"flash_attn": "off"}, {"n_seq_max": 4}, {"n_seq_max": 128},
    {"cache_type_k": "q8_0", "cache_type_v": "q8_0"}, {"kv_unified": False}, {"batch_invariant": True},
    {"kv_unified": False, "flash_attn": "off", "n_ctx": 10_000, "n_seq_max": 3},
]  # fmt: skip
_MEASURE = """
import ctypes, json, re, sys
import llama_cpp.llama_cpp as C
lines = []
callback = C.llama_log_callback(lambda level, text, _: lines.append(text.decode("utf-8", "replace")))
C.llama_log_set(callback, ctypes.c_void_p())
C.llama_backend_init()
def measure(path, n_ctx, n_batch, n_ubatch, n_seq_max, outputs, flash_attn, unified, type_k, type_v):
    lines.clear()
    model_params = C.llama_model_default_params()
    model_params.no_alloc, model_params.load_mode = True, 0
    model = C.llama_model_load_from_file(path.encode(), model_params)
    params = C.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max = n_ctx, n_batch, n_ubatch, n_seq_max
    params.n_outputs_max = params.n_outputs_max_per_seq = outputs
    params.flash_attn_type, params.type_k, params.type_v = flash_attn, type_k, type_v
    params.kv_unified, params.offload_kqv = unified, False
    context = C.llama_init_from_model(model, params) if model else None
    text = "".join(lines)
    if not context:
        sys.exit(text[-2000:])
    C.llama_free(context)
    C.llama_model_free(model)
    found = lambda pattern: sum(map(float, re.findall(pattern, text)))
    return [found(r"[ :]size = +([0-9.]+) MiB \\("), found(r"compute buffer size = +([0-9.]+) MiB")]
print(json.dumps([measure(*row) for row in json.loads(sys.stdin.read())]))
"""


@pytest.mark.engine
def test_against_what_llama_cpp_would_allocate(tmp_path: Path) -> None:
    """llama.cpp's `no_alloc` loads a model's head and works out every buffer without taking it."""
    pytest.importorskip("llama_cpp")
    rows, expected = [], []
    for name, make in MODELS.items():
        path = make(tmp_path / f"{name}.gguf")
        shape = shape_at(path)
        for case in CASES:
            options = Options.from_mapping(case).settled()
            rows.append([
                str(path), num_cells(options), options.n_batch, options.n_ubatch, num_sequence_ids(options), num_rows(options),
                0 if options.flash_attn == "off" else -1, not options.has_separate_caches,
                *(8 if options.cache_type_k == "q8_0" else 1 for _ in "kv"),
            ])  # fmt: skip
            expected.append(
                (name, case, sum(kv_bytes(layer, options) for layer in shape.layers), compute_bytes(shape, options))
            )
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE],
        input=json.dumps(rows),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for (name, case, kv, compute), (actual_kv, actual_compute) in zip(expected, json.loads(done.stdout), strict=True):
        assert kv == pytest.approx(actual_kv * MIB, rel=1e-4), (name, case)
        assert 1.0 <= compute / (actual_compute * MIB) <= 1.5, (name, case, compute / MIB, actual_compute)


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.parametrize("n_ctx", [8192, 65_536])
def test_a_running_engine_takes_what_was_foreseen(
    n_ctx: int, demo_gguf: Path, free_port: Callable[[], int], tmp_path: Path
) -> None:
    """Within a factor of 2, never more: the buffers are foreseen for a prompt that fills a step and the whole cache."""
    options = Options(n_ctx=n_ctx).settled()
    (foreseen,) = uses(shape_at(demo_gguf), options, [], 0, None)
    with (
        engine_process(demo_gguf, free_port(), tmp_path / "log", "--n-ctx", str(n_ctx)) as engine,
        engine.client() as client,
    ):
        prompt = {"model": "demo", "prompt": [list(range(300, 300 + 1500))] * 4, "max_tokens": 8}
        assert client.post("/v1/completions", json=prompt).status_code == 200
        taken = psutil.Process(engine.process.pid).memory_info().rss
    assert 0.5 <= taken / foreseen.total_bytes <= 1.0, (taken / MIB, _in_mib(foreseen))


def _in_mib(use: Use) -> list[int]:
    return [size // MIB for size in (use.weights_bytes, use.kv_bytes, use.compute_bytes, use.other_bytes)]
