"""What is picked for the memory that is free: for machines that are not here, as values."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.errors import NoRoom
from backends.llamacpp.fit import Room, fit
from backends.llamacpp.header import read_parts
from backends.llamacpp.memory import Device
from backends.llamacpp.options import Options, OptionsError
from backends.llamacpp.shape import Layer, Shape, shape_of
from backends.plan import GIB, MIB, RAM, Plan
from tests.backends.llamacpp import ggufs

DEMO = Shape(
    layers=(Layer(1_575_936, 128, 128),) * 8, input_bytes=2_097_152, output_bytes=1024, tied_bytes=2_097_152,
    trained_length=2048, vocabulary=4096, embedding=256, num_heads=4, attention_width=256, feed_forward=768,
    has_window=False, is_quantised=False,
)  # fmt: skip


def gpu(number: int, gib: float) -> Device:
    return Device(f"CUDA{number}", "a card", int(gib * 0.98 * GIB), int(gib * GIB))


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Shape]:
    folder = tmp_path_factory.mktemp("shapes")
    shapes = {}
    for name, make in {"8b": ggufs.llama_8b, "70b": ggufs.llama_70b, "gemma": ggufs.gemma_9b}.items():
        shape = shape_of(read_parts(make(folder / f"{name}.gguf")))
        assert shape is not None
        shapes[name] = shape
    return shapes


def reason(plan: Plan, option: str) -> str:
    return next(pick.why for pick in plan.picks if pick.option == option)


def test_the_demo_model_gets_its_usual_values() -> None:
    plan = fit(DEMO, Options(), Room(16 * GIB, (), 4))
    assert plan.options() == {
        "n_ctx": 8192, "n_seq_max": 32, "n_batch": 512, "n_ubatch": 512, "max_adapters": 4, "n_threads": 4,
    }  # fmt: skip
    assert reason(plan, "n_ctx") == "KV cells: 4 requests of 2,048 tokens, the longest possible"
    assert plan.notes == ()
    assert plan.taken()[RAM] < 256 * MIB


def test_what_the_user_set_is_kept_and_not_picked() -> None:
    given = Options(n_ctx=4096, n_seq_max=8, n_batch=256, n_ubatch=64, n_threads=3, n_gpu_layers=0, max_adapters=1)
    plan = fit(DEMO, given, Room(16 * GIB))
    assert plan.options() == {}
    assert "nothing" in plan.summary()


def test_little_memory_makes_smaller_steps_before_a_smaller_cache(big: dict[str, Shape]) -> None:
    roomy = fit(big["8b"], Options(), Room(7 * GIB))
    assert (roomy.options()["n_ctx"], roomy.options()["n_ubatch"]) == (8192, 512)
    tight = fit(big["8b"], Options(), Room(int(6.35 * GIB)))
    assert (tight.options()["n_ctx"], tight.options()["n_ubatch"]) == (8192, 256)
    short = fit(big["8b"], Options(), Room(int(5.9 * GIB)))
    assert 2048 <= short.options()["n_ctx"] < 8192
    assert short.options()["n_seq_max"] == short.options()["n_ctx"] // 256
    assert "all that fit; 524,288 would be wished for" in reason(short, "n_ctx")


def test_adapters_have_what_the_cache_would_grow_into(big: dict[str, Shape]) -> None:
    each = 41_943_040 * 4  # rank 16 on all matrices of an 8B model
    roomy = fit(big["8b"], Options(), Room(64 * GIB))
    assert roomy.options()["max_adapters"] == 4
    assert roomy.uses[0].adapter_bytes == 4 * each
    assert reason(roomy, "max_adapters") == "LoRA adapters at the same time, as usual"
    tight = fit(big["8b"], Options(), Room(int(6.35 * GIB)))
    assert tight.options()["max_adapters"] == 1, "they take nothing before they are used, and stop no engine"
    assert reason(tight, "max_adapters").endswith("though no memory is left for one")
    fewer = fit(big["8b"], Options(), Room(7 * GIB))
    assert 1 <= fewer.options()["max_adapters"] < 4
    assert reason(fewer, "max_adapters").endswith("all that fit beside the KV cache")
    assert (fewer.options()["n_ctx"], fewer.options()["n_ubatch"]) == (8192, 512)
    asked = fit(big["8b"], Options(max_adapters=8), Room(64 * GIB))
    assert "max_adapters" not in asked.options()
    assert asked.uses[0].adapter_bytes == 8 * each
    with pytest.raises(NoRoom, match="max_adapters: 64 is too much, without it, it fits"):
        fit(big["8b"], Options(max_adapters=64), Room(12 * GIB))


def test_embeddings_have_no_adapters(big: dict[str, Shape]) -> None:
    plan = fit(big["8b"], Options(pooling="mean"), Room(64 * GIB))
    assert "max_adapters" not in plan.options()
    assert plan.uses[0].adapter_bytes == 0
    with pytest.raises(OptionsError, match="max_adapters: embeddings are computed without"):
        Options(pooling="mean", max_adapters=2)


def test_half_of_the_ram_is_left_where_the_cache_only_grows(big: dict[str, Shape]) -> None:
    plan = fit(big["8b"], Options(), Room(64 * GIB))
    assert 31 * GIB < plan.taken()[RAM] <= 32 * GIB
    assert fit(big["8b"], Options(), Room(1024 * GIB)).options()["n_ctx"] == 4 * 131_072


def test_no_room_says_what_takes_how_much(big: dict[str, Shape]) -> None:
    with pytest.raises(NoRoom) as caught:
        fit(big["8b"], Options(), Room(4 * GIB))
    assert "would take 4.9 GiB (weights 4.3 GiB, KV cache 256 MiB, buffers" in str(caught.value)
    assert "4.0 GiB of RAM are free" in str(caught.value)
    assert "use_mmap: true" in str(caught.value)
    plan = fit(big["8b"], Options(), Room(4 * GIB), is_paging_accepted=True)
    assert "read from disk again and again" in plan.notes[0]


def test_an_option_that_stands_in_the_way_is_named(big: dict[str, Shape]) -> None:
    with pytest.raises(NoRoom, match=r"KV cache 32\.0 GiB.*n_ctx: 262144 is too much, \d+ fits"):
        fit(big["8b"], Options(n_ctx=262_144), Room(32 * GIB))
    with pytest.raises(NoRoom, match=r"of CUDA0 are free\. n_gpu_layers: 60 is too much, 4\d fits"):
        fit(big["70b"], Options(n_gpu_layers=60), Room(64 * GIB, (gpu(0, 24),)))
    with pytest.raises(NoRoom, match=r"3 engines would take .* each.*fewer replicas fit"):
        fit(big["8b"], Options(), Room(12 * GIB), num_engines=3)


def test_a_tight_fit_is_said_to_be_one(big: dict[str, Shape]) -> None:
    plan = fit(big["8b"], Options(n_ctx=4096), Room(int(5.35 * GIB)))
    assert plan.notes == ("tight: less than the usual reserve is left free",)


def test_unknown_memory_and_unknown_shape_are_said() -> None:
    assert "not known" in fit(DEMO, Options(), Room(None)).notes[0]
    plan = fit(None, Options(n_seq_max=4), Room(GIB, (), 2))
    assert plan.options() == {"n_ctx": 8192, "n_batch": 512, "n_ubatch": 512, "n_threads": 2}
    assert "does not say what it takes" in plan.notes[0]


def test_all_layers_of_8b_on_one_card_of_24_gb(big: dict[str, Shape]) -> None:
    plan = fit(big["8b"], Options(), Room(64 * GIB, (gpu(0, 24),), 8))
    assert plan.options()["n_gpu_layers"] == 33
    assert plan.options()["n_ctx"] > 131_072  # a request of the full trained length
    ram, card = plan.uses
    assert card.weights_bytes == big["8b"].weight_bytes - big["8b"].input_bytes
    assert ram.kv_bytes == 0
    assert card.total_bytes <= 23.52 * GIB - GIB
    assert "all layers fit on CUDA0" in reason(plan, "n_gpu_layers")


def test_some_layers_of_70b_on_one_card(big: dict[str, Shape]) -> None:
    plan = fit(big["70b"], Options(), Room(64 * GIB, (gpu(0, 24),), 8))
    num_layers = plan.options()["n_gpu_layers"]
    assert 40 <= num_layers <= 47  # 23.5 GiB less 1 GiB and buffers over 459 + 32 MiB a layer
    assert plan.options()["n_ctx"] == 8192
    ram, card = plan.uses
    assert ram.weights_bytes + card.weights_bytes == big["70b"].weight_bytes
    assert "of 81 layers these fit on CUDA0" in reason(plan, "n_gpu_layers")


def test_70b_on_two_cards(big: dict[str, Shape]) -> None:
    plan = fit(big["70b"], Options(), Room(64 * GIB, (gpu(0, 24), gpu(1, 24)), 8))
    assert plan.options()["n_gpu_layers"] == 81
    assert [use.device for use in plan.uses] == [RAM, "CUDA0", "CUDA1"]
    uneven = fit(big["8b"], Options(), Room(64 * GIB, (gpu(0, 24), gpu(1, 12))))
    assert uneven.uses[1].kv_bytes > 2 * uneven.uses[2].kv_bytes
    alone = fit(big["8b"], Options(split_mode="none", main_gpu=1), Room(64 * GIB, (gpu(0, 24), gpu(1, 12))))
    assert [use.device for use in alone.uses] == [RAM, "CUDA1"]


def test_a_card_on_which_no_layer_fits(big: dict[str, Shape]) -> None:
    plan = fit(big["70b"], Options(), Room(128 * GIB, (gpu(0, 1),)))
    assert plan.options()["n_gpu_layers"] == 0
    assert "not one layer fits" in reason(plan, "n_gpu_layers")


def test_a_gpu_within_the_ram_counts_there(big: dict[str, Shape]) -> None:
    integrated = Device("Vulkan0", "", 32 * GIB, 32 * GIB, is_in_ram=True)
    plan = fit(big["8b"], Options(), Room(16 * GIB, (integrated,)))
    assert plan.options()["n_gpu_layers"] == 33
    assert sum(use.total_bytes for use in plan.uses) <= 8 * GIB


def test_replicas_share_a_card(big: dict[str, Shape]) -> None:
    one = fit(big["8b"], Options(), Room(64 * GIB, (gpu(0, 24),)))
    two = fit(big["8b"], Options(), Room(64 * GIB, (gpu(0, 24),)), num_engines=2)
    assert two.options()["n_gpu_layers"] == 33
    assert two.options()["n_ctx"] < one.options()["n_ctx"] / 2
    assert two.taken()["CUDA0"] <= 23.52 * GIB - GIB


SIZES = st.integers(0, 40).map(lambda n: n * GIB // 2)
GIVEN = st.fixed_dictionaries({
    "n_ctx": st.sampled_from([0, 256, 5000, 65_536]), "n_ctx_seq": st.sampled_from([0, 200, 4000]),
    "n_seq_max": st.sampled_from([0, 1, 40, 128]), "n_batch": st.sampled_from([0, 128, 700]),
    "n_ubatch": st.sampled_from([0, 32, 128, 1024]), "prefix_cache_cells": st.sampled_from([0, 100, 20_000]),
    "n_gpu_layers": st.sampled_from([-1, -1, 0, 5, 99]), "cache_type_k": st.sampled_from(["f16", "q8_0"]),
    "flash_attn": st.sampled_from(["auto", "off"]),
})  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    given=GIVEN, ram=st.none() | SIZES, cards=st.lists(SIZES, max_size=3), num_engines=st.integers(1, 3),
    name=st.sampled_from(["8b", "gemma", "demo"]),
)  # fmt: skip
def test_whatever_is_asked_the_plan_is_valid_and_fits(
    big: dict[str, Shape], given: dict[str, int | str], ram: int | None, cards: list[int], num_engines: int, name: str
) -> None:
    try:
        options = Options.from_mapping(given)
    except ValueError:
        return  # contradicts itself: refused before anything is planned
    devices = tuple(Device(f"CUDA{number}", "", free, free) for number, free in enumerate(cards))
    shape = DEMO if name == "demo" else big[name]
    try:
        plan = fit(shape, options, Room(ram, devices), num_engines)
    except NoRoom:
        return
    picked = Options.from_mapping({**given, **plan.options()})  # valid together with what was given
    assert picked.n_ctx >= max(options.n_ctx_seq, options.prefix_cache_cells)
    assert picked.n_ubatch <= picked.n_batch
    assert all(getattr(options, option) in (0, -1) for option in plan.options())
    for use in plan.uses:
        assert use.free_bytes is None or use.of_pool(num_engines) <= use.free_bytes
