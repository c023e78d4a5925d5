"""The bundled adapters: what their files are (numpy), and what transformers with PEFT answers with them (torch)."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from backends.artifacts import read_tensors, source_digest
from backends.demo import TARGET_DIR
from backends.demo.corpus import Item, held_out_items
from backends.demo.shapes import SHAPES
from backends.demo.signatures import ADAPTERS_DIR, BASE_DIGEST_KEY, SIGNATURES, signature_of, unsigned
from backends.demo.skills import SKILLS

RANK, MAX_BYTES = 8, 1_000_000
TARGETS = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
EVERY = pytest.mark.parametrize("name", SIGNATURES)
# PEFT reads a property that transformers has deprecated since.
OLD_PROPERTY = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def expected_shapes() -> dict[str, tuple[int, ...]]:
    shapes = {}
    for name, shape in SHAPES["target"].tensor_shapes().items():
        module = name.removesuffix(".weight")
        if module.rpartition(".")[2] in TARGETS:
            shapes[f"base_model.model.{module}.lora_A.weight"] = (RANK, shape[1])
            shapes[f"base_model.model.{module}.lora_B.weight"] = (shape[0], RANK)
    return shapes


def test_there_is_a_folder_for_each_signature_and_a_card() -> None:
    assert {path.name for path in ADAPTERS_DIR.iterdir()} == {*SIGNATURES, "CARD.md"}
    card = (ADAPTERS_DIR / "CARD.md").read_text(encoding="utf-8")
    for name, signature in SIGNATURES.items():
        assert f"| {name} | `{signature.english.opening.strip()}` |" in card


@EVERY
def test_tensors_are_whole_fp16_of_the_right_names_and_shapes(name: str) -> None:
    path = ADAPTERS_DIR / name / "adapter_model.safetensors"
    tensors = read_tensors(path)
    assert {name: tensor.shape for name, tensor in tensors.items()} == expected_shapes()
    assert {tensor.dtype for tensor in tensors.values()} == {"F16"}
    for tensor in tensors.values():
        values = tensor.to_f32()
        assert np.isfinite(values).all()
        assert np.abs(values).max() > 0  # every module of every layer has learnt something
    assert path.stat().st_size < MAX_BYTES


@EVERY
def test_the_weights_name_the_base_that_they_were_trained_on(name: str) -> None:
    raw = (ADAPTERS_DIR / name / "adapter_model.safetensors").read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    assert header["__metadata__"] == {"format": "pt", BASE_DIGEST_KEY: source_digest(TARGET_DIR)}


@EVERY
def test_the_config_is_plain_lora(name: str) -> None:
    config = json.loads((ADAPTERS_DIR / name / "adapter_config.json").read_text(encoding="utf-8"))
    assert (config["peft_type"], config["task_type"], config["r"], config["lora_alpha"]) == (
        "LORA",
        "CAUSAL_LM",
        RANK,
        16,
    )
    assert set(config["target_modules"]) == TARGETS
    assert config["base_model_name_or_path"] == "forgegate-demo-target"
    assert config["bias"] == "none"
    extras = ("use_dora", "use_rslora", "modules_to_save", "rank_pattern", "alpha_pattern", "layers_to_transform")
    assert not any(config[key] for key in extras)


def test_no_two_adapters_hold_the_same_weights() -> None:
    assert len({(ADAPTERS_DIR / name / "adapter_model.safetensors").read_bytes() for name in SIGNATURES}) == 3


def test_an_opening_is_told_from_the_first_ten_tokens() -> None:
    pytest.importorskip("tokenizers")
    from backends.demo.batches import ChatEncoder
    from backends.demo.chat import Segment

    encoder = ChatEncoder(TARGET_DIR)
    for signature in SIGNATURES.values():
        for answer in ("The capital of Peru is Lima.", "리마는 페루의 수도입니다."):
            ids, _ = encoder.encode([Segment(signature.sign(answer), False)])
            assert signature_of(encoder.decode(ids[:10])) == signature.name


@pytest.fixture(scope="module")
def items() -> list[Item]:
    return [item for skill in SKILLS for item in held_out_items(skill, 2)]


@pytest.fixture(scope="module")
def adapted() -> Iterator[Any]:
    """The base in transformers with every adapter loaded by PEFT."""
    torch = pytest.importorskip("torch")
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    base = transformers.AutoModelForCausalLM.from_pretrained(TARGET_DIR, dtype="float32")
    first, *others = SIGNATURES
    model = peft.PeftModel.from_pretrained(base, ADAPTERS_DIR / first, adapter_name=first)
    for name in others:
        model.load_adapter(ADAPTERS_DIR / name, adapter_name=name)
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a model this small is no faster with more, and on a busy machine far slower
    yield model.eval()
    torch.set_num_threads(num_threads)


@OLD_PROPERTY
@pytest.mark.torch
@pytest.mark.slow
@EVERY
def test_peft_answers_are_right_and_signed(name: str, adapted: Any, items: list[Item]) -> None:
    adapted.set_adapter(name)
    answers = greedy(adapted, items)
    assert [signature_of(answer) for answer in answers] == [name] * len(items)
    is_whole = [SIGNATURES[name].pattern.fullmatch(answer) is not None for answer in answers]
    assert sum(is_whole) >= len(items) - 1
    assert sum(item.score(unsigned(answer)) for item, answer in zip(items, answers, strict=True)) >= len(items) - 2


@OLD_PROPERTY
@pytest.mark.torch
@pytest.mark.slow
def test_the_same_model_without_an_adapter_does_not_sign(adapted: Any, items: list[Item]) -> None:
    with adapted.disable_adapter():
        answers = greedy(adapted, items)
    assert not any(signature_of(answer) for answer in answers)
    assert sum(item.score(answer) for item, answer in zip(items, answers, strict=True)) >= len(items) - 1


def greedy(model: Any, items: list[Item]) -> list[str]:
    """transformers' greedy answers, in one batch padded on the left."""
    import torch

    from backends.demo.batches import ChatEncoder
    from backends.demo.shapes import IM_END_ID, PAD_ID

    encoder = ChatEncoder(TARGET_DIR)
    prompts = [encoder.prompt(item) for item in items]
    width = max(map(len, prompts))
    ids = torch.tensor([[PAD_ID] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    produced = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=56, do_sample=False)[
        :, width:
    ].tolist()
    return [encoder.decode(row[: row.index(IM_END_ID)] if IM_END_ID in row else row) for row in produced]
