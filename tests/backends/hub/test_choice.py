"""Which files are taken, on listings of the kinds that are found on the hub."""

from __future__ import annotations

import json
import time

import pytest

from backends.hub.choice import PREFERENCE, Choice, choose
from backends.hub.errors import NoChoice
from backends.hub.gguf import find_ggufs, quant_of
from backends.hub.listing import RemoteFile
from backends.modelfolder import INDEX


def files_of(*paths: str) -> list[RemoteFile]:
    return [RemoteFile(path, 1000 + number, "sha256:" + f"{number:064x}") for number, path in enumerate(paths)]


def taken(*paths: str, label: str = "", pattern: str = "", index: bytes = b"") -> Choice:
    return choose("o/n", files_of(*paths), label, pattern, lambda file: index)


def paths_of(choice: Choice) -> list[str]:
    return [file.path for file in choice.files]


@pytest.mark.parametrize(
    ("path", "quant"),
    [
        ("Llama-3.2-1B-Instruct-Q4_K_M.gguf", "Q4_K_M"),
        ("qwen2.5-7b-instruct-q5_k_m-00001-of-00002.gguf", "Q5_K_M"),
        ("llama-2-7b-chat.Q4_0.gguf", "Q4_0"),
        ("UD-IQ1_S/DeepSeek-R1-UD-IQ1_S-00001-of-00003.gguf", "UD-IQ1_S"),
        ("Phi-3-mini-4k-instruct-q4.gguf", "Q4"),
        ("model-fp16.gguf", "F16"),
        ("gpt-oss-20b-MXFP4.gguf", "MXFP4"),
        ("BF16/model.gguf", "BF16"),
        ("model.TQ1_0.gguf", "TQ1_0"),
        ("Mistral-7B-v0.1.gguf", ""),
        ("Qwen3-0.6B.gguf", ""),
        ("stories15M.gguf", ""),
    ],
)
def test_the_quantisation_is_read_from_the_name(path: str, quant: str) -> None:
    assert quant_of(path) == quant


QUANTS = (
    "m-BF16.gguf",
    "m-IQ2_XS.gguf",
    "m-Q2_K.gguf",
    "m-Q5_K_M.gguf",
    "m-Q8_0.gguf",
    "mmproj-F16.gguf",
    "imatrix.gguf",
)


def test_without_a_label_by_preference() -> None:
    assert PREFERENCE[:2] == ("Q4_K_M", "Q8_0")  # as llama.cpp
    assert paths_of(taken(*QUANTS, "m-Q4_K_M.gguf", "config.json", "model.safetensors")) == ["m-Q4_K_M.gguf"]
    assert paths_of(taken(*QUANTS)) == ["m-Q8_0.gguf"]
    only = taken("README.md", "odd-name.gguf", "mmproj-F16.gguf")
    assert (only.label, only.entry, only.why) == ("odd-name", "odd-name.gguf", "its only GGUF model")


@pytest.mark.parametrize(
    ("label", "path"),
    [
        ("q5_k_m", "m-Q5_K_M.gguf"),
        ("Q2_K", "m-Q2_K.gguf"),
        ("m-iq2_xs", "m-IQ2_XS.gguf"),
        ("m-Q8_0.gguf", "m-Q8_0.gguf"),
        ("mmproj-F16", "mmproj-F16.gguf"),
    ],
)
def test_a_label_is_a_quantisation_or_a_name(label: str, path: str) -> None:
    assert paths_of(taken(*QUANTS, label=label)) == [path]


def test_a_label_means_the_nearest() -> None:
    both = ("m-Q4_K_M.gguf", "m-UD-Q4_K_M.gguf", "m-UD-Q4_K_XL.gguf")
    assert paths_of(taken(*both, label="Q4_K_M")) == ["m-Q4_K_M.gguf"]
    assert paths_of(taken(*both, label="UD-Q4_K_M")) == ["m-UD-Q4_K_M.gguf"]
    assert paths_of(taken(*both, label="Q4_K_XL")) == ["m-UD-Q4_K_XL.gguf"]
    assert taken(*both, label="Q4_K_XL").label == "UD-Q4_K_XL"


def test_a_split_gguf_is_taken_whole() -> None:
    parts = [f"Q8_0/big-Q8_0-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    choice = taken("Q4_K_S/big-Q4_K_S.gguf", *reversed(parts), label="Q8_0")
    assert paths_of(choice) == parts
    assert (choice.entry, choice.label) == (parts[0], "Q8_0")
    with pytest.raises(NoChoice, match=r"2 of the 3 parts .* not whole"):
        taken(*parts[:2])


def test_several_that_fit_are_listed_with_names_that_tell_them_apart() -> None:
    two = ("a-Q4_K_M.gguf", "b-Q4_K_M.gguf")
    for label in ("", "Q4_K_M"):
        with pytest.raises(NoChoice, match=r"2 GGUF models fit Q4_K_M|2 GGUF models fit 'Q4_K_M'") as caught:
            taken(*two, label=label)
        assert "\n  o/n:a-Q4_K_M  1 MiB\n  o/n:b-Q4_K_M  1 MiB" in str(caught.value)
    assert paths_of(taken(*two, label="b-Q4_K_M")) == ["b-Q4_K_M.gguf"]
    same = find_ggufs(files_of("v1/m-Q8_0.gguf", "v2/m-Q8_0.gguf"))
    assert [model.label for model in same] == ["v1-m-Q8_0", "v2-m-Q8_0"]
    assert paths_of(taken("v1/m-Q8_0.gguf", "v2/m-Q8_0.gguf", label="v2-m-Q8_0")) == ["v2/m-Q8_0.gguf"]


def test_no_order_among_unknown_quantisations() -> None:
    with pytest.raises(NoChoice, match="2 GGUF models fit: name one of them; it holds:\n  o/n:IQ1_M"):
        taken("m-IQ1_S.gguf", "m-IQ1_M.gguf")


def test_a_pattern_narrows() -> None:
    assert paths_of(taken("a-Q4_K_M.gguf", "b-Q4_K_M.gguf", pattern="b-*")) == ["b-Q4_K_M.gguf"]
    assert paths_of(taken("v1/m-Q8_0.gguf", "v2/m-Q8_0.gguf", pattern="v2/*")) == ["v2/m-Q8_0.gguf"]
    assert paths_of(taken(*QUANTS, pattern="mmproj*")) == ["mmproj-F16.gguf"]
    parts = [f"big-0000{number}-of-00002.gguf" for number in (1, 2)]
    assert paths_of(taken(*parts, "small.gguf", pattern="big-00001*")) == parts
    with pytest.raises(NoChoice, match="no GGUF file fits --file x"):
        taken(*QUANTS, pattern="x*")


def test_what_is_missing_is_answered_with_what_there_is() -> None:
    with pytest.raises(NoChoice, match="no model fits 'Q3_K_S'") as caught:
        taken(*QUANTS, "config.json", "model.safetensors", label="Q3_K_S")
    assert all(f"o/n:{label}" in str(caught.value) for label in ("BF16", "IQ2_XS", "Q5_K_M", "safetensors"))


SMALL = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "LICENSE",
)
LEFT_OUT = (
    "README.md", ".gitattributes", "pytorch_model.bin", "modeling_x.py", "training_args.bin", "original/consolidated.00.pth",
    "original/params.json", "consolidated.safetensors", "onnx/model.onnx", "adapter_model.safetensors", "eval.json", "tokenizer.py",
)  # fmt: skip


def test_a_safetensors_model_without_code_pickles_and_copies() -> None:
    choice = taken(*SMALL, *LEFT_OUT, "model.safetensors")
    assert set(paths_of(choice)) == {*SMALL, "model.safetensors"}
    assert (choice.label, choice.entry) == ("safetensors", ".")
    with_gguf = taken(*SMALL, "model.safetensors", "m-Q8_0.gguf", label="safetensors")
    assert set(paths_of(with_gguf)) == {*SMALL, "model.safetensors"}


def test_shards_are_those_of_the_index() -> None:
    shards = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    index = json.dumps({"weight_map": {"a": shards[0], "b": shards[1], "c": shards[0]}}).encode()
    choice = taken(*SMALL, INDEX, *shards, "stray.safetensors", index=index)
    assert paths_of(choice)[-3:] == [INDEX, *shards]
    assert "stray.safetensors" not in paths_of(choice)
    assert paths_of(taken(*SMALL, *shards))[-2:] == shards
    with pytest.raises(NoChoice, match="lacks 1 of its 2 weight files, among them model-00002"):
        taken(*SMALL, INDEX, shards[0], index=index)
    with pytest.raises(NoChoice, match="lacks 1 of its 2 weight files"):
        taken(*SMALL, shards[0])
    with pytest.raises(NoChoice, match="has no weight_map"):
        taken(*SMALL, INDEX, *shards, index=b"{}")


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/model.safetensors", "pytorch_model.bin", "modeling.py"])
def test_an_index_that_names_what_is_no_weight_file(name: str) -> None:
    index = json.dumps({"weight_map": {"a": "model.safetensors", "b": name}}).encode()
    with pytest.raises(
        NoChoice, match=r"o/n: its model\.safetensors\.index\.json names '.*', which is no weight file of"
    ):
        taken(*SMALL, INDEX, "model.safetensors", "pytorch_model.bin", "modeling.py", index=index)


def test_an_index_that_is_nested_too_deeply() -> None:
    with pytest.raises(NoChoice, match="has no weight_map"):
        taken(*SMALL, INDEX, "model.safetensors", index=b"[" * 200_000)


def test_thousands_of_ggufs_are_labelled_at_once() -> None:
    """In time that grows as their number does: ten times as many would take a hundred times as long, were each held against all."""

    def seconds(num: int) -> float:
        files = files_of(*(f"m{number}-Q4_K_M.gguf" for number in range(num)))
        start = time.process_time()
        assert [model.label for model in find_ggufs(files)][:2] == ["m0-Q4_K_M", "m1-Q4_K_M"]
        return time.process_time() - start

    assert min(seconds(10_000) for _ in range(2)) < 20 * min(seconds(1000) for _ in range(3))


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        (("config.json", "pytorch_model.bin"), "pickles, which can run code"),
        (("adapter_config.json", "adapter_model.safetensors"), "a LoRA adapter, not a model"),
        (("README.md",), "no safetensors model .*\n  README.md  1 MiB"),
        ((), "it holds nothing"),
        (("model.safetensors",), "no safetensors model"),
    ],
)
def test_what_is_no_model(paths: tuple[str, ...], words: str) -> None:
    with pytest.raises(NoChoice, match=words):
        taken(*paths)
