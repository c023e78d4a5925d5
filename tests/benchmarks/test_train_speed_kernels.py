"""Names as CUDA's libraries and torch give them."""

from __future__ import annotations

import pytest

from benchmarks.train_speed_kernels import Launched, busy_us, group_of, summary, text


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("nvjet_tst_128x256_64x4_1x2_h_bz_coopA_NNT", "matrix products of the base"),
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64", "matrix products of the base"),
        ("void cutlass::device_kernel<flash::enable_sm90_or_later<flash::FlashAttnFwdSm90<...>>>", "attention"),
        ("void pytorch_flash::flash_bwd_dq_dk_dv_loop_seqk_parallel_kernel<...>", "attention"),
        ("void kDequantizeBlockwise<__nv_bfloat16, 512, 64, 8, NF4>(float*, unsigned char*)", "NF4 dequantisation"),
        ("void kOptimizerStatic8bit2StateBlockwise<float, 0, 256, 1>(float*)", "optimizer and clipping"),
        ("void at::native::(anonymous namespace)::cunn_SoftMaxForward<8, float>", "loss"),
        ("Memcpy HtoD (Pinned -> Device)", "copies"),
        (
            "void at::native::elementwise_kernel<128, 4, at::native::gpu_kernel_impl_nocast<at::native::direct_copy_kernel_cuda"
            "(at::TensorIteratorBase&)::{lambda()#3}>>",
            "copies",
        ),
        (
            "void at::native::vectorized_elementwise_kernel<4, at::native::BinaryFunctor<float, at::native::MulFunctor<float>>, "
            "{lambda(int)#1}>",
            "elementwise, norms and reductions",
        ),
        ("triton_red_fused_mean_mul_pow_0", "elementwise, norms and reductions"),
        ("spin", "other"),
    ],
)
def test_a_kernel_is_known_by_its_name(name: str, group: str) -> None:
    assert group_of(Launched(name, 0, 1), vocabulary=128256, rank=16) == group


def test_products_are_told_apart_by_what_they_are_of() -> None:
    def of(*widths: int) -> str:
        return group_of(Launched("nvjet_tst", 0, 1, frozenset(widths)), vocabulary=128256, rank=16)

    assert of(512, 4096, 128256) == "matrix products of the head"
    assert of(4096, 16) == "matrix products of adapters"
    assert of(4096, 14336) == "matrix products of the base"


def test_time_in_which_kernels_overlap_is_counted_once() -> None:
    assert busy_us([(0, 10), (5, 12), (20, 30), (21, 22)]) == 22
    assert busy_us([]) == 0


def test_what_no_kernel_fills_is_idle() -> None:
    kernels = [Launched("nvjet", 0, 60), Launched("kDequantizeBlockwise", 60, 80), Launched("nvjet", 90, 100)]
    found = summary(kernels, 128256, 16)
    assert found["groups"]["idle"] == {"s": 0.0, "share": 0.1}
    assert {group: of["share"] for group, of in found["groups"].items()} == {
        "matrix products of the base": 0.7, "NF4 dequantisation": 0.2, "idle": 0.1,
    }  # fmt: skip
    assert found["top"][0] == {"group": "matrix products of the base", "name": "nvjet", "s": 0.0001, "num": 2}
    assert "70.0%" in text(found, "2 updates")


def test_a_profile_without_kernels_is_no_error() -> None:
    assert summary([], 128256, 16)["span_s"] == 0
