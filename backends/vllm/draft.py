"""Whether a draft model fits its target: one whose token ids mean something else proposes nonsense, or ids beyond the vocabulary.

vLLM compares the sizes of the vocabularies only, a minute after its start. Here the tokenizers are compared, before it: `difference` is
pure, `check_draft` reads the folders.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backends.errors import ModelUnusable
from backends.modelfolder import read_config
from backends.vllm.options import Options

DEMO = "demo"
DRAFT_DIR = Path(__file__).parents[1] / "demo" / "weights" / "draft"
TOKENIZER = "tokenizer.json"
_OPTION = "speculative.model"
_MEND = "take a draft of the same family, or set speculative.use_heterogeneous_vocab: true, which proposes only tokens that both have"


def locate_draft(name: str) -> Path:
    """`demo`, or a path."""
    return DRAFT_DIR if name == DEMO else Path(name).expanduser().absolute()


def check_draft(options: Options, target: Path) -> None:
    """Nothing where the options name no draft. Blocks while it reads. Raises ModelUnusable: it is missing, or is none for `target`."""
    speculative = options.speculative
    if speculative is None or not speculative.model:
        return
    draft = locate_draft(speculative.model)
    _require_folder(speculative.model, draft)
    config = read_config(draft)
    if not speculative.is_draft_model or speculative.use_heterogeneous_vocab:
        return  # heads share the target's tokenizer, and may know a part of it only
    tokenizer = Path(options.tokenizer).expanduser() if options.tokenizer else target
    reason = difference(_tokens(tokenizer), _tokens(draft)) or size_difference(read_config(target), config)
    if reason:
        raise ModelUnusable(f"{_OPTION}: {draft} is no draft for {target}: {reason}; {_MEND}")


def difference(target: Mapping[int, str], draft: Mapping[int, str]) -> str:
    """The first token id that does not mean the same in both, in words; empty: there is none, or one has no tokens to compare."""
    if not target or not draft:
        return ""
    first = next((number for number in sorted({*target, *draft}) if target.get(number) != draft.get(number)), None)
    if first is None:
        return ""
    return (
        f"their tokenizers differ from token {first} on, which is {_word(target, first)} to the model and {_word(draft, first)} "
        "to the draft"
    )


def size_difference(target: Mapping[str, Any], draft: Mapping[str, Any]) -> str:
    """How the vocabularies' sizes differ that two config.json name, in words; empty: not."""
    sizes = vocab_size(target), vocab_size(draft)
    if None in sizes or sizes[0] == sizes[1]:
        return ""
    return f"the model computes scores of {sizes[0]:,} tokens and the draft of {sizes[1]:,}"


def vocab_size(config: Mapping[str, Any]) -> int | None:
    """Of a config.json, that of a model of several media too."""
    inner = config.get("text_config")
    found = (inner if isinstance(inner, dict) else {}).get("vocab_size", config.get("vocab_size"))
    return found if isinstance(found, int) else None


def tokens_of(tokenizer: Mapping[str, Any]) -> dict[int, str]:
    """Every token of a tokenizer.json by its id, those that were added too."""
    model = tokenizer.get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    tokens: dict[int, str] = {}
    if isinstance(vocab, dict):  # BPE, WordPiece, WordLevel
        tokens = {number: str(token) for token, number in vocab.items() if isinstance(number, int)}
    elif isinstance(vocab, list):  # Unigram: token and score
        tokens = {number: str(entry[0]) for number, entry in enumerate(vocab) if isinstance(entry, list) and entry}
    for entry in tokenizer.get("added_tokens") or ():
        if isinstance(entry, dict) and isinstance(entry.get("id"), int):
            tokens[entry["id"]] = str(entry.get("content"))
    return tokens


def _tokens(folder: Path) -> dict[int, str]:
    """Nothing where there is no tokenizer.json: a draft works with its target's."""
    path = folder / TOKENIZER
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_bytes())
    except OSError as exc:
        raise ModelUnusable(f"{path}: {exc.strerror or exc}") from exc
    except (ValueError, RecursionError) as exc:
        raise ModelUnusable(f"{path}: not valid JSON: {exc}") from exc
    return tokens_of(content) if isinstance(content, dict) else {}


def _require_folder(name: str, folder: Path) -> None:
    if folder.is_dir():
        return
    if folder == DRAFT_DIR:
        raise ModelUnusable(f"{_OPTION}: the bundled draft is missing ({folder}): the installation is not whole")
    if folder.is_file():
        raise ModelUnusable(
            f"{_OPTION}: {folder}: vLLM takes a draft's folder (config.json, *.safetensors), not a single file"
        )
    hint = f" (did you mean {DEMO!r}?)" if difflib.get_close_matches(name, [DEMO]) else ""
    raise ModelUnusable(
        f"{_OPTION}: {folder}: no such folder{hint}; a hub's model is pulled first: forgegate models pull ORG/NAME"
    )


def _word(tokens: Mapping[int, str], number: int) -> str:
    return repr(tokens[number]) if number in tokens else "none"
