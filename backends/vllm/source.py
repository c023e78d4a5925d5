"""What a pool's `model` means to vLLM: a folder of safetensors. A GGUF is refused here, before anything is started."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from backends.errors import ModelUnusable
from backends.hub.names import looks_like_hub_name
from backends.modelfolder import (
    StoredTensor,
    chat_template,
    read_config,
    read_optional_json,
    stored_tensors,
    tokenizer_files,
    weight_files,
)

DEMO = "demo"
DEMO_DIR = Path(__file__).parents[1] / "demo" / "weights" / "target"
GGUF_MAGIC = b"GGUF"


@dataclass(frozen=True, slots=True)
class Source:
    """A model folder that can be served."""

    folder: Path
    architecture: str
    trained_length: int
    """In tokens; 0 where its configuration does not say."""
    tensors: dict[str, StoredTensor]

    @property
    def weight_bytes(self) -> int:
        """As stored."""
        return sum(tensor.num_bytes for tensor in self.tensors.values())

    @property
    def words(self) -> str:
        length = f", trained for {self.trained_length} tokens" if self.trained_length else ""
        return f"model {self.folder} ({self.architecture}, safetensors{length})"


def can_chat(folder: Path) -> bool:
    """Whether a tokenizer's folder says how a conversation becomes a prompt, in any way that vLLM reads."""
    settings = read_optional_json(folder / "tokenizer_config.json")
    others = ("chat_template.json", "tekken.json")  # of processors, of Mistral's own tokenizer
    return bool(
        chat_template(folder, settings)
        or settings.get("chat_template")  # a list: several, by name
        or any((folder / name).is_file() for name in others)
    )


def locate(name: str) -> Path:
    """`demo`, or a path; hubs' names have become paths before."""
    return DEMO_DIR if name == DEMO else Path(name).expanduser().absolute()


def read_source(name: str) -> Source:
    """Raises ModelUnusable."""
    folder = locate(name)
    _require_folder(name, folder)
    config = read_config(folder)
    tokenizer_files(folder)
    inner = config.get("text_config")
    sizes = {**config, **inner} if isinstance(inner, dict) else config
    named = config.get("architectures")
    length = sizes.get("max_position_embeddings")
    return Source(
        folder=folder,
        architecture=str(named[0]) if isinstance(named, list) and named else "unknown architecture",
        trained_length=length if isinstance(length, int) else 0,
        tensors=stored_tensors(weight_files(folder)),
    )


def _require_folder(name: str, folder: Path) -> None:
    try:
        if folder.is_dir():
            return
        if folder.is_file():
            raise ModelUnusable(_refusal_of_file(folder))
    except OSError as exc:
        raise ModelUnusable(f"{folder}: {exc.strerror or exc}") from exc
    if folder == DEMO_DIR:
        raise ModelUnusable(f"the bundled demo model is missing ({folder}): the installation is not whole")
    if folder.suffix == ".gguf":
        raise ModelUnusable(
            f"{folder}: no such file; and a GGUF file is for engine llamacpp, vLLM takes a model folder"
        )
    close = difflib.get_close_matches(folder.name, [DEMO])
    hint = (
        f" (did you mean {DEMO!r}?)"
        if close
        else f"; a hub's model is ORG/NAME, and {name} is not pulled"
        if looks_like_hub_name(name)
        else ""
    )
    raise ModelUnusable(f"{folder}: no such folder{hint}")


def _refusal_of_file(path: Path) -> str:
    with path.open("rb") as file:
        magic = file.read(len(GGUF_MAGIC))
    if magic == GGUF_MAGIC or path.suffix == ".gguf":
        return f"{path}: a GGUF file is for engine llamacpp; vLLM takes the folder of its safetensors model"
    return f"{path}: vLLM takes a model's folder (config.json, *.safetensors, tokenizer), not a single file"
