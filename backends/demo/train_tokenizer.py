"""Train the family's tokenizer: `python -m backends.demo.train_tokenizer OUT [--text FILE]` (needs the `sentencepiece` package).

SentencePiece finds the pieces; which are kept and how they are ranked is decided here, so that the two programs that must agree do:
transformers merges *pairs* by rank, llama.cpp merges *any* two neighbours whose concatenation is a piece, by the piece's score. They give
equal ids for every text if

1. the merge list holds every split of every piece into two pieces, and a score is minus the rank of the piece;
2. a piece ranks after every piece that it contains in such a split, so that while pieces of one rank are merged no new one of that rank
   appears, and their order matters only where two overlap;
3. overlapping pairs of one result (x, y), (y, z) with xy = yz are the same pair, x = y = z: both programs then go from left to right;
4. no piece can be joined from text that looks like a control or byte token: no piece mixes `<`, `|` or `>` with anything.

Every program writes a space as U+2581 first, so a literal U+2581 is tokenised, and comes back, as a space.
"""

import argparse
import io
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from backends.demo.chat import BOS, CHAT_TEMPLATE, CONTROL_TOKENS, EOS, PAD, UNK

VOCAB_SIZE = 4096
SPACE = "\u2581"
NUM_CANDIDATES = 7000
BYTE_TOKENS = tuple(f"<0x{byte:02X}>" for byte in range(256))
RESERVED = (UNK, BOS, PAD, *BYTE_TOKENS, *CONTROL_TOKENS)
ASCII = tuple(chr(code) for code in range(33, 127))
# One word with or without the space before it; runs of 2, 4 and 8 spaces (each has one split only); JSON's punctuation.
_WORD = re.compile(rf"{SPACE}?[^\W\d_]+|{SPACE}?[^\W\d_]")
_FIXED_PIECES = (
    SPACE * 2,
    SPACE * 4,
    SPACE * 8,
    '{"',
    '":',
    '"}',
    '",',
    f'{SPACE}"',
    f"{SPACE}(",
    "**",
    f"{SPACE}**",
    "...",
)


def train_pieces(sentences: Iterable[str], num_candidates: int) -> list[str]:
    """SentencePiece BPE's pieces in the order in which it merged them, then its single characters by frequency."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_writer=model, model_type="bpe", vocab_size=num_candidates, hard_vocab_limit=False,
        character_coverage=1.0, byte_fallback=True, normalization_rule_name="identity", add_dummy_prefix=False,
        remove_extra_whitespaces=False, split_digits=True, max_sentencepiece_length=16, num_threads=1, minloglevel=2,
    )  # fmt: skip
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    ids = range(processor.get_piece_size())
    return [
        processor.id_to_piece(i)
        for i in ids
        if not (processor.is_byte(i) or processor.is_control(i) or processor.is_unknown(i))
    ]


def choose_pieces(candidates: Sequence[str], size: int) -> tuple[list[str], list[str]]:
    """Pick (characters, multi-character pieces in rank order), `size` together, that meet the four rules above."""
    characters = list(dict.fromkeys([SPACE, *ASCII, *(piece for piece in candidates if len(piece) == 1)]))
    words = [piece for piece in candidates if len(piece) > 1 and _WORD.fullmatch(piece)]
    banned: set[str] = set()
    while True:
        kept = _take(
            [piece for piece in [*_FIXED_PIECES, *words] if piece not in banned], characters, size - len(characters)
        )
        known = {*characters, *kept}
        # A later piece can add a split to an earlier one: overlaps that arise so show only now.
        ambiguous = {piece for piece in kept if has_ambiguous_overlap(piece, known)}
        if not ambiguous:
            return characters, rank_parts_first(kept, known)
        banned |= ambiguous


def _take(pieces: Sequence[str], characters: Sequence[str], count: int) -> list[str]:
    """The first `count` pieces that can be reached by merges of what is already there."""
    known, kept = set(characters), list[str]()
    for piece in pieces:
        if len(kept) < count and piece not in known and splits(piece, known):
            kept.append(piece)
            known.add(piece)
    return kept


def splits(piece: str, known: set[str]) -> list[tuple[str, str]]:
    """All ways to cut `piece` into two known pieces."""
    cuts = ((piece[:i], piece[i:]) for i in range(1, len(piece)))
    return [(left, right) for left, right in cuts if left in known and right in known]


def has_ambiguous_overlap(piece: str, known: set[str]) -> bool:
    """Whether two different splits of `piece` can overlap in a text (rule 3)."""
    cuts = splits(piece, known)
    return any(a != b and a[1] == b[0] for a in cuts for b in cuts)


def rank_parts_first(pieces: Sequence[str], known: set[str]) -> list[str]:
    """`pieces` in their order, but each after the pieces that its splits consist of (rule 2)."""
    multi, placed = set(pieces), dict[str, None]()

    def place(piece: str) -> None:
        if piece in placed or piece not in multi:
            return
        for left, right in splits(piece, known):
            place(left)
            place(right)
        placed[piece] = None

    for piece in pieces:
        place(piece)
    return list(placed)


def tokenizer_json(characters: Sequence[str], pieces: Sequence[str]) -> dict[str, Any]:
    """The `tokenizers` library's file: ids are reserved tokens, then pieces by rank, then characters."""
    vocabulary = {token: i for i, token in enumerate([*RESERVED, *pieces, *characters])}
    known = {*pieces, *characters}
    merges = [[left, right] for piece in pieces for left, right in splits(piece, known)]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added_token(vocabulary[t], t) for t in (UNK, BOS, PAD, *CONTROL_TOKENS)],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE", "dropout": None, "unk_token": UNK, "continuing_subword_prefix": None, "end_of_word_suffix": None,
            "fuse_unk": True, "byte_fallback": True, "ignore_merges": False, "vocab": vocabulary, "merges": merges,
        },
    }  # fmt: skip


def _added_token(token_id: int, content: str) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": token_id, "content": content, **flags}


def tokenizer_config() -> dict[str, Any]:
    """`tokenizer_config.json`: no BOS, the end of a turn is the end of generation."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 2048, "add_bos_token": False, "add_eos_token": False,
        "bos_token": BOS, "eos_token": EOS, "unk_token": UNK, "pad_token": PAD, "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }  # fmt: skip


def write_tokenizer(out: Path, sentences: Iterable[str]) -> None:
    """Train on `sentences` and write the two files into folder `out`. Raises ValueError if the text yields too few pieces."""
    candidates = train_pieces(sentences, NUM_CANDIDATES)
    characters, pieces = choose_pieces(candidates, VOCAB_SIZE - len(RESERVED))
    if len(characters) + len(pieces) + len(RESERVED) != VOCAB_SIZE:
        raise ValueError(f"{len(characters)} characters and {len(pieces)} pieces: not {VOCAB_SIZE} tokens in all")
    out.mkdir(parents=True, exist_ok=True)
    for name, content in {
        "tokenizer.json": tokenizer_json(characters, pieces),
        "tokenizer_config.json": tokenizer_config(),
    }.items():
        (out / name).write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path, help="folder for tokenizer.json and tokenizer_config.json")
    parser.add_argument("--text", type=Path, help="train on the lines of this file instead of the corpus")
    parser.add_argument(
        "--conversations", type=int, default=60_000, help="how many conversations of the corpus to train on"
    )
    args = parser.parse_args()
    write_tokenizer(
        args.out,
        args.text.read_text(encoding="utf-8").splitlines() if args.text else corpus_sentences(args.conversations),
    )


def corpus_sentences(num_conversations: int) -> Iterable[str]:
    """Every line of text in the first conversations of the training corpus."""
    from backends.demo.corpus import training_items

    for item in training_items(seed=0, count=num_conversations):
        yield from (line for text in item.texts() for line in text.splitlines() if line)


if __name__ == "__main__":
    main()
