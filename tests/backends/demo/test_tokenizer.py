import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from backends.demo import TARGET_DIR, chat, shapes
from backends.demo.train_tokenizer import BYTE_TOKENS, RESERVED, SPACE, has_ambiguous_overlap, splits

llama_cpp = pytest.importorskip("llama_cpp")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.torch
Encode = Callable[[str], list[int]]
NUM_RANDOM_STRINGS = 10_000


@pytest.fixture(scope="module")
def hf() -> "transformers.PreTrainedTokenizerFast":
    return transformers.AutoTokenizer.from_pretrained(TARGET_DIR)


@pytest.fixture(scope="module")
def hf_encode(hf: "transformers.PreTrainedTokenizerFast") -> Encode:
    return lambda text: hf(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


@pytest.fixture(scope="module")
def llama_encode(tmp_path_factory: pytest.TempPathFactory) -> Encode:
    from backends.llamacpp.binding import library as binding
    from backends.llamacpp.convert import ensure_gguf

    path = ensure_gguf(TARGET_DIR, tmp_path_factory.mktemp("gguf"))
    binding.initialise()  # its log callback lives as long as the process; one of this function's own would not
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
    vocab = llama_cpp.llama_model_get_vocab(model)
    assert not llama_cpp.llama_vocab_get_add_bos(vocab)
    assert llama_cpp.llama_vocab_eos(vocab) == llama_cpp.llama_vocab_eot(vocab) == shapes.IM_END_ID
    assert llama_cpp.llama_vocab_is_eog(vocab, shapes.IM_END_ID)

    def encode(text: str) -> list[int]:
        raw = text.encode()
        room = (llama_cpp.llama_token * (len(raw) + 8))()
        count = llama_cpp.llama_tokenize(vocab, raw, len(raw), room, len(room), False, False)
        return list(room[:count])

    return encode


FRAGMENTS = [
    "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>", "<s>", "</s>", "<unk>", "<0x0A>", "<0xEA>", "<", "|>", "im_end",
    " ", "  ", "   ", "    ", "     ", " " * 7, " " * 9, " " * 17, "\t", "\n", "\r\n", "\x00", "\x01", "\x1b[0m", "\x7f", "\u2581",
    "\u2581\u2581", "\u2028", "\u200b", "\u200d", "\ufeff", "e\u0301", "\u0301", "가",
    "각\u11a8", "\u1100\u1161", "안녕하세요", "감사합니다",
    "대한민국의 수도는 서울입니다.", "\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f1f0\U0001f1f7", "日本語", "مرحبا",
    "{", "}", '{"', '":', '"}', '",', '{"name": "x", "arguments": {}}', "def f(x):\n    return x", "a_b.c()", "==", "!=",
    "->", "...", "....",
    "**", "****", "***", "(((", "0", "1234567890", "3.14", "The capital of", " is", "Hello", "HELLO", "aaa", "aaaaaaaa", "nnn", "ssss",
    "the the the", "lorem ipsum", "'", "''", "\U0010ffff",
]  # fmt: skip


def random_text(rng: random.Random, pieces: list[str]) -> str:
    parts = []
    for _ in range(rng.randint(0, 12)):
        kind = rng.random()
        if kind < 0.45:
            parts.append(rng.choice(FRAGMENTS))
        elif kind < 0.8:
            parts.append(rng.choice(pieces).replace(SPACE, " "))
        elif kind < 0.9:
            parts.append(
                chr(rng.choice([rng.randint(0, 0x7F), rng.randint(0xAC00, 0xD7A3), rng.randint(0xE000, 0x10FFFF)]))
            )
        else:
            parts.append("".join(rng.choice("abcdeinorst 가나다이") for _ in range(rng.randint(1, 20))))
    return "".join(parts)


@pytest.fixture(scope="module")
def pieces() -> list[str]:
    vocabulary = json.loads((TARGET_DIR / "tokenizer.json").read_text())["model"]["vocab"]
    return [piece for piece in vocabulary if piece not in RESERVED]


def test_ids_are_equal_in_transformers_and_llama_cpp(
    hf_encode: Encode, llama_encode: Encode, pieces: list[str]
) -> None:
    rng = random.Random(20_250_101)
    texts = [random_text(rng, pieces) for _ in range(NUM_RANDOM_STRINGS)]
    for text in texts:
        assert hf_encode(text) == llama_encode(text), repr(text)


def test_pathological_texts_are_equal_too(hf_encode: Encode, llama_encode: Encode, pieces: list[str]) -> None:
    letters = sorted({piece for piece in pieces if len(piece) == 1 and piece.isascii()})
    texts = [unit * 40 for unit in [*letters, "ab", "aab", "▁ ", "ss ", "가", "가가나"]]
    texts += ["".join(pieces[i : i + 3]) for i in range(0, len(pieces) - 3, 2)]
    for text in texts:
        assert hf_encode(text) == llama_encode(text), repr(text)


def test_special_text_stays_text(hf: "transformers.PreTrainedTokenizerFast", hf_encode: Encode) -> None:
    for token in chat.CONTROL_TOKENS:
        assert len(hf(token, add_special_tokens=False)["input_ids"]) == 1
        ids = hf_encode(f"a{token}b")
        assert not set(ids) & set(hf.all_special_ids)
        assert hf.decode(ids) == f"a{token}b"


def test_every_text_comes_back_except_that_the_space_mark_reads_as_a_space(
    hf: "transformers.PreTrainedTokenizerFast", hf_encode: Encode, pieces: list[str]
) -> None:
    rng = random.Random(1)
    for _ in range(500):
        text = random_text(rng, pieces)
        assert hf.decode(hf_encode(text), clean_up_tokenization_spaces=False) == text.replace(SPACE, " ")


def test_vocabulary_has_the_agreed_ids(hf: "transformers.PreTrainedTokenizerFast") -> None:
    assert len(hf) == 4096
    assert hf.convert_tokens_to_ids([chat.UNK, chat.BOS, chat.PAD]) == [0, shapes.BOS_ID, shapes.PAD_ID]
    assert hf.convert_tokens_to_ids(list(BYTE_TOKENS)) == list(range(3, 259))
    assert hf.eos_token_id == shapes.IM_END_ID
    assert hf("", add_special_tokens=True)["input_ids"] == []


def test_digits_are_single_tokens(hf_encode: Encode) -> None:
    assert len(hf_encode("1234567890")) == 10


def test_the_rules_that_make_the_two_programs_agree_hold(pieces: list[str]) -> None:
    tokenizer = json.loads((TARGET_DIR / "tokenizer.json").read_text())
    known = set(pieces)
    ranks: dict[str, int] = {}
    pairs = {(left, right) for left, right in tokenizer["model"]["merges"]}
    for left, right in tokenizer["model"]["merges"]:
        ranks.setdefault(left + right, len(ranks))
    for piece in (p for p in pieces if len(p) > 1):
        cuts = splits(piece, known)
        assert cuts
        assert set(cuts) <= pairs
        assert all(ranks.get(part, -1) < ranks[piece] for cut in cuts for part in cut)
        assert not has_ambiguous_overlap(piece, known)


def test_draft_and_target_share_the_tokenizer() -> None:
    draft = Path(TARGET_DIR).parent / "draft"
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (draft / name).read_bytes() == (TARGET_DIR / name).read_bytes()
