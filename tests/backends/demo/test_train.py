import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from backends.demo import TARGET_DIR
from backends.demo.random_weights import write_random_model
from backends.demo.shapes import IM_END_ID, SHAPES
from backends.demo.skills import SKILLS

pytestmark = [pytest.mark.torch, pytest.mark.slow]
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
SMOKE = [sys.executable, "-m", "backends.demo.train", "--smoke", "--out"]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("train") / "out"
    subprocess.run([*SMOKE, str(out)], check=True, env=ENVIRONMENT, capture_output=True)
    return out


def test_smoke_goes_the_whole_way(smoke: Path) -> None:
    entries = [json.loads(line) for line in (smoke / "training-log.jsonl").read_text().splitlines()]
    assert {e["model"] for e in entries if "loss" in e} == {"target", "draft"}
    assert {e["skill"] for e in entries if "skill" in e} == set(SKILLS)
    card = (smoke / "CARD.md").read_text()
    assert all(f"| {name} |" in card for name in SKILLS)
    assert set(json.loads((smoke / "evaluation.json").read_text())) == {"target", "draft"}


def test_what_was_trained_reloads_through_transformers_and_gguf(smoke: Path, tmp_path: Path) -> None:
    from backends.llamacpp.convert import ensure_gguf

    model = transformers.AutoModelForCausalLM.from_pretrained(smoke / "target")
    tokenizer = transformers.AutoTokenizer.from_pretrained(smoke / "target")
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == IM_END_ID
    assert model.dtype == torch.bfloat16
    assert ensure_gguf(smoke / "target", tmp_path).stat().st_size > 500_000


def test_the_same_command_again_does_not_train_again(smoke: Path) -> None:
    before = (smoke / "target" / "model.safetensors").read_bytes()
    done = subprocess.run(
        [*SMOKE, str(smoke), "--only", "target"], check=True, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert '"event": "resumed"' in done.stdout
    assert '"loss"' not in done.stdout
    assert (smoke / "target" / "model.safetensors").read_bytes() == before


def test_sigterm_leaves_a_checkpoint_to_continue_from(tmp_path: Path) -> None:
    command = [*SMOKE, str(tmp_path), "--only", "draft", "--smoke-steps", "100000"]
    with subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it trains
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
        assert process.wait(timeout=60) == 143
    interrupted = torch.load(tmp_path / "checkpoints" / "draft.pt", weights_only=True)["progress"]
    assert interrupted["next_batch"] == interrupted["step"] > 0
    steps = interrupted["step"] + 2
    subprocess.run([*command[:-1], str(steps)], check=True, env=ENVIRONMENT, capture_output=True)
    finished = torch.load(tmp_path / "checkpoints" / "draft.pt", weights_only=True)["progress"]
    assert finished["next_batch"] == finished["step"] == steps


def test_own_model_equals_transformers(tmp_path: Path) -> None:
    from backends.demo.generation import generate
    from backends.demo.model import document_mask, load_model

    write_random_model(tmp_path, SHAPES["target"], seed=5, tokenizer_dir=TARGET_DIR)
    own = load_model(tmp_path, SHAPES["target"])
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    ids = torch.randint(0, 4096, (2, 50), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        difference = own(ids, document_mask(torch.ones_like(ids))) - theirs(ids).logits
    assert difference.abs().max() < 1e-4
    prompts = [list(range(300, 320)), [500, 501, 502], [7]]
    for prompt, produced in zip(prompts, generate(own, prompts, 10, IM_END_ID), strict=True):
        alone = theirs.generate(torch.tensor([prompt]), max_new_tokens=10, do_sample=False)[0, len(prompt) :].tolist()
        assert produced == [token for token in alone if token != IM_END_ID]


def test_packed_documents_do_not_see_each_other() -> None:
    from backends.demo.model import Llama, document_mask

    torch.manual_seed(0)
    model = Llama(SHAPES["tiny"])
    ids = torch.randint(0, 4096, (1, 24))
    documents = torch.tensor([[1] * 10 + [2] * 14])
    with torch.no_grad():
        packed = model(ids, document_mask(documents))[:, 10:]
        alone = model(ids[:, 10:], document_mask(documents[:, 10:]))
    assert torch.allclose(packed, alone, atol=1e-5)


def test_only_the_assistants_tokens_carry_full_weight() -> None:
    from backends.demo.train import PROMPT_WEIGHT, head_loss

    hidden, embedding = torch.zeros(1, 4, 8), torch.zeros(16, 8)
    embedding[3, 0] = 1.0
    hidden[0, 1, 0] = 100.0  # certain, and right, only about the answer's token
    ids, documents = torch.tensor([[1, 2, 3, 5]]), torch.ones(1, 4, dtype=torch.int)
    generated = torch.tensor([[False, False, True, False]])
    loss, answer_loss = head_loss(hidden, embedding, ids, documents, generated)
    guess = float(np.log(16))
    assert float(answer_loss) == pytest.approx(0.0, abs=1e-5)
    assert float(loss) == pytest.approx(2 * PROMPT_WEIGHT * guess / (1 + 2 * PROMPT_WEIGHT), rel=1e-4)
