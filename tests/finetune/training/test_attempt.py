"""Attempts from the recipe to the adapter, in this process: the demo model in four bits on a CPU."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from backends.artifacts import source_digest
from backends.demo import TARGET_DIR
from finetune.errors import RecipeUnusable
from finetune.training.tally import Tally
from tests.finetune.training.rig import Told, adapter_of, attempt, make_recipe, write_rows

pytestmark = [pytest.mark.torch, pytest.mark.slow]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("data") / "rows.jsonl", 60, max_words=10)


def near(one: list[float], other: list[float], rel: float = 1e-5) -> bool:
    return len(one) == len(other) and all(math.isclose(a, b, rel_tol=rel) for a, b in zip(one, other, strict=True))


def difference(one: Path, other: Path) -> float:
    """Of adapters, as a share of their size. AdamW makes steps of what is noise in gradients of nothing, so that it is never 0."""
    first, second = adapter_of(one), adapter_of(other)
    assert first.keys() == second.keys()
    apart = sum(float((first[name] - second[name]).square().sum()) for name in first)
    return math.sqrt(apart / sum(float(value.square().sum()) for value in first.values()))


def test_a_run_tells_what_it_does_and_leaves_an_adapter(tmp_path: Path, rows: Path) -> None:
    recipe = make_recipe(tmp_path, rows, data={"eval_share": 0.2}, watch={"eval_steps": 2, "save_steps": 2})
    told = attempt(recipe, tmp_path)
    assert told.code == 0
    (data,) = told.of("data")
    assert (data["num_rows"], data["num_eval_rows"], data["num_dropped"]) == (48, 12, 0)
    assert data["num_trained_tokens"] < data["num_tokens"] <= data["num_packs"] * 96
    (start,) = told.of("start")
    assert (start["num_trainable"], start["num_steps"], start["resumed_from"]) == (622_592, 4, None)
    assert (start["device"], start["dtype"], start["attention"]) == ("cpu", "float32", "sdpa")
    steps = told.of("step")
    assert [step["step"] for step in steps] == [1, 2, 3, 4]
    assert told.losses()[-1] < told.losses()[0]
    assert all(step["num_trained_tokens"] < step["num_tokens"] and step["rows"] for step in steps)
    assert all(0 < step["memory_bytes"] <= step["peak_bytes"] < step["total_bytes"] for step in steps)
    assert [event["step"] for event in told.of("eval")] == [2, 4]
    assert len({event["num_tokens"] for event in told.of("eval")}) == 1
    assert [event["step"] for event in told.of("saved")] == [2, 4]
    assert told.last == {
        **told.last, "event": "done", "adapter": str(tmp_path / "adapter"), "num_steps": 4, "reason": "max_steps",
        "loss": steps[-1]["loss"], "eval_loss": told.of("eval")[-1]["loss"],
    }  # fmt: skip
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [event for event in told.events if event["event"] in ("step", "eval")]


def test_the_adapter_is_one_that_the_store_takes(tmp_path: Path, rows: Path) -> None:
    from safetensors import safe_open

    attempt(make_recipe(tmp_path, rows, steps={"max_steps": 1}), tmp_path)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(TARGET_DIR)
    assert config["inference_mode"]
    assert config["target_modules"] == sorted(config["target_modules"])
    assert "lm_head" not in config["target_modules"]
    with safe_open(tmp_path / "adapter" / "adapter_model.safetensors", "pt") as file:
        assert file.metadata()["forgegate.base_source_digest"] == source_digest(TARGET_DIR)
    assert {str(value.dtype) for value in adapter_of(tmp_path).values()} == {"torch.float32"}


@pytest.mark.parametrize("packing", [True, False])
def test_accumulated_gradients_equal_those_of_a_big_batch(tmp_path: Path, rows: Path, packing: bool) -> None:
    """Rows differ in length, so that a mean of means would not."""
    runs = {}
    for name, micro, accumulation in (("big", 4, 1), ("small", 1, 4)):
        steps = {"micro_batch_size": micro, "gradient_accumulation_steps": accumulation, "max_steps": 3}
        recipe = make_recipe(tmp_path / name, rows, steps=steps, memory={"packing": packing})
        runs[name] = attempt(recipe, tmp_path / name)
    for name in ("loss", "grad_norm"):
        one, other = ([step[name] for step in runs[run].of("step")] for run in ("big", "small"))
        assert near(one, other)
    assert [step["rows"] for step in runs["big"].of("step")] == [step["rows"] for step in runs["small"].of("step")]
    assert difference(tmp_path / "big", tmp_path / "small") < 1e-3


def test_what_saves_memory_does_not_change_what_is_learnt(tmp_path: Path, rows: Path) -> None:
    plain = attempt(make_recipe(tmp_path / "plain", rows, memory={"chunked_loss": False}), tmp_path / "plain")
    thrifty = attempt(
        make_recipe(tmp_path / "thrifty", rows, memory={"gradient_checkpointing": True}), tmp_path / "thrifty"
    )
    assert near(plain.losses(), thrifty.losses())
    assert difference(tmp_path / "plain", tmp_path / "thrifty") < 1e-3


def test_a_stop_while_it_is_evaluated_is_no_end(tmp_path: Path, rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tally, "is_stop_asked", lambda _: True)
    told = attempt(make_recipe(tmp_path, rows, data={"eval_share": 0.2}, watch={"eval_steps": 2}), tmp_path)
    assert (told.code, told.last["event"], told.last["step"]) == (143, "stopped", 2)
    assert not (tmp_path / "adapter").exists()


def test_an_evaluation_that_a_stop_left_out_is_made_up_for(
    tmp_path: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(tmp_path, rows, data={"eval_share": 0.2}, steps={"max_steps": 2}, watch={"eval_steps": 2})
    with monkeypatch.context() as patch:
        patch.setattr(Tally, "is_stop_asked", lambda _: True)
        assert attempt(recipe, tmp_path).last["event"] == "stopped"
    again = attempt(recipe, tmp_path, tmp_path / "checkpoints" / "checkpoint-2")
    (told,) = again.of("eval")
    assert again.last["event"] == "done"
    assert again.last["eval_loss"] == told["loss"]


def test_one_that_is_made_up_for_changes_nothing_of_what_follows(tmp_path: Path, rows: Path) -> None:
    recipe = make_recipe(tmp_path, rows, data={"eval_share": 0.2}, watch={"eval_steps": 2, "save_steps": 2})
    whole = attempt(recipe, tmp_path)
    metrics = tmp_path / "metrics.jsonl"
    told = [json.loads(line) for line in metrics.read_text().splitlines()]
    left = [entry for entry in told if (entry["event"], entry["step"]) != ("eval", 2)]
    metrics.write_text("".join(json.dumps(entry) + "\n" for entry in left))
    again = attempt(recipe, tmp_path, tmp_path / "checkpoints" / "checkpoint-2")
    assert [event["step"] for event in again.of("step")] == [3, 4]
    assert near(again.losses(), whole.losses()[2:])
    one, other = ([(event["step"], event["epoch"]) for event in run.of("eval")] for run in (whole, again))
    assert one == other
    assert near(*([event["loss"] for event in run.of("eval")] for run in (whole, again)))


def test_kernels_that_cannot_be_had_are_refused_before_the_base_is_loaded(
    tmp_path: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune.training.model.load_base", lambda *_: pytest.fail("it is loaded"))
    words = "use_liger_kernel: true: it needs a GPU: leave it out, and the model's own code is used"
    with pytest.raises(RecipeUnusable, match=words):
        attempt(make_recipe(tmp_path, rows, memory={"liger": True}), tmp_path)


@pytest.mark.parametrize("kept", ["down_proj", "lm_head"])
def test_outputs_that_are_kept(tmp_path: Path, rows: Path, kept: str) -> None:
    memory = {"gradient_checkpointing": True, "keep_outputs": (kept,)}
    recipe = make_recipe(tmp_path, rows, memory=memory, steps={"max_steps": 1})
    if kept == "lm_head":
        with pytest.raises(RecipeUnusable, match="keep_outputs: lm_head: no adapted layer in four bits has that name"):
            attempt(recipe, tmp_path)
    else:
        assert attempt(recipe, tmp_path).last["event"] == "done"


def test_it_goes_on_as_if_it_had_not_been_stopped(tmp_path: Path, rows: Path) -> None:
    """Over the end of an epoch, with dropout, with an optimizer that remembers."""

    def run(name: str, steps: int, resume: Path | None = None) -> Told:
        recipe = make_recipe(
            tmp_path / name, rows, lora={"dropout": 0.2}, steps={"max_steps": steps, "schedule": "constant"},
            data={"eval_share": 0.2}, watch={"save_steps": 3, "eval_steps": 5},
        )  # fmt: skip
        return attempt(recipe, tmp_path / name, resume)

    whole, _ = run("whole", 12), run("parts", 6)
    second = run("parts", 12, tmp_path / "parts" / "checkpoints" / "checkpoint-6")
    assert second.of("start")[0]["resumed_from"] == 6
    assert [step["step"] for step in second.of("step")] == list(range(7, 13))
    assert near(second.losses(), whole.losses()[6:])
    assert [step["rows"] for step in second.of("step")] == [step["rows"] for step in whole.of("step")][6:]
    assert difference(tmp_path / "whole", tmp_path / "parts") < 1e-6
    metrics = (tmp_path / "parts" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in metrics] == [1, 2, 3, 4, 5, 5, 6, 6, 7, 8, 9, 10, 10, 11, 12, 12]


def test_a_checkpoint_of_other_data_is_refused(tmp_path: Path, rows: Path) -> None:
    attempt(make_recipe(tmp_path, rows, steps={"max_steps": 1}), tmp_path)
    checkpoint = tmp_path / "checkpoints" / "checkpoint-1"
    for change in ({"data": {"max_length": 128}}, {"seed": 7}, {"steps": {"micro_batch_size": 1}}):
        with pytest.raises(RecipeUnusable, match="checkpoint-1 is of other data, another sequence_len, seed or batch"):
            attempt(make_recipe(tmp_path, rows, **change), tmp_path, checkpoint)


def test_the_best_adapter_is_kept_and_the_run_ends_early(tmp_path: Path, rows: Path) -> None:
    """At this learning rate it gets worse from some step on."""
    recipe = make_recipe(
        tmp_path, rows, data={"eval_share": 0.2}, steps={"learning_rate": 0.05, "max_steps": 40, "schedule": "constant"},
        watch={"eval_steps": 1, "save_steps": 100, "early_stop_patience": 3},
    )  # fmt: skip
    told = attempt(recipe, tmp_path)
    losses = [event["loss"] for event in told.of("eval")]
    best = losses.index(min(losses))
    assert told.last["reason"] == "early_stop"
    assert len(losses) == best + 4 < 40
    assert told.last["eval_loss"] == min(losses)
    assert [event["step"] for event in told.of("saved")] == [len(losses)]
    best_run = attempt(
        make_recipe(tmp_path / "again", rows, data={"eval_share": 0.2}, steps={
            "learning_rate": 0.05, "max_steps": best + 1, "schedule": "constant",
        }), tmp_path / "again",
    )  # fmt: skip
    assert near([best_run.last["eval_loss"]], [min(losses)])
    assert difference(tmp_path, tmp_path / "again") < 1e-6


@pytest.mark.parametrize("is_told", [True, False])
def test_a_run_that_has_ended_early_is_not_trained_on(tmp_path: Path, rows: Path, is_told: bool) -> None:
    """It was killed between its last checkpoint and its adapter; `is_told` False: in its last evaluation, after a stop."""
    recipe = make_recipe(
        tmp_path, rows, data={"eval_share": 0.2}, steps={"learning_rate": 0.05, "max_steps": 40, "schedule": "constant"},
        watch={"eval_steps": 1, "save_steps": 100, "early_stop_patience": 2},
    )  # fmt: skip
    first = attempt(recipe, tmp_path)
    (tmp_path / "whole").mkdir()
    (tmp_path / "adapter").rename(tmp_path / "whole" / "adapter")
    metrics = tmp_path / "metrics.jsonl"
    if not is_told:
        metrics.write_text("".join(metrics.read_text().splitlines(keepends=True)[:-1]))
    (checkpoint,) = (tmp_path / "checkpoints").iterdir()
    again = attempt(recipe, tmp_path, checkpoint)
    assert again.of("step") == []
    last = {name: first.of("eval")[-1][name] for name in ("step", "epoch")}
    assert [{name: event[name] for name in last} for event in again.of("eval")] == ([] if is_told else [last])
    assert (again.code, again.last["reason"]) == (0, "early_stop")
    for name in ("reason", "num_steps", "loss", "eval_loss", "adapter"):
        assert again.last[name] == first.last[name]
    assert difference(tmp_path, tmp_path / "whole") == 0


def test_more_patience_lets_it_go_on(tmp_path: Path, rows: Path) -> None:
    def recipe(patience: int) -> Any:
        return make_recipe(
            tmp_path, rows, data={"eval_share": 0.2}, steps={"learning_rate": 0.05, "max_steps": 12, "schedule": "constant"},
            watch={"eval_steps": 1, "save_steps": 100, "early_stop_patience": patience},
        )  # fmt: skip

    first = attempt(recipe(1), tmp_path)
    assert first.last["reason"] == "early_stop"
    (checkpoint,) = (tmp_path / "checkpoints").iterdir()
    assert attempt(recipe(2), tmp_path, checkpoint).of("step")


def test_what_was_best_later_is_no_result_of_an_earlier_step(tmp_path: Path, rows: Path) -> None:
    """The run was best at step 3, and goes on from step 2."""

    def run(name: str, steps: int, resume: Path | None = None) -> Told:
        recipe = make_recipe(
            tmp_path / name, rows, data={"eval_share": 0.2}, steps={"max_steps": steps, "schedule": "constant"},
            watch={"eval_steps": 1, "save_steps": 2, "early_stop_patience": 5},
        )  # fmt: skip
        return attempt(recipe, tmp_path / name, resume)

    first, whole = run("parts", 3), run("whole", 2)
    assert first.last["eval_loss"] == first.of("eval")[2]["loss"] == min(event["loss"] for event in first.of("eval"))
    second = run("parts", 2, tmp_path / "parts" / "checkpoints" / "checkpoint-2")
    assert second.last["eval_loss"] == pytest.approx(whole.of("eval")[1]["loss"], rel=1e-5)
    assert difference(tmp_path / "parts", tmp_path / "whole") < 1e-6


def test_a_guard_ends_a_run_that_has_gone_wrong(tmp_path: Path, rows: Path) -> None:
    (tmp_path / "own_losses.py").write_text(
        "def broken(outputs, labels, num_items_in_batch):\n    return outputs.logits.sum() * float('nan')\n"
    )
    recipe = make_recipe(
        tmp_path / "run",
        rows,
        steps={"loss": "own_losses:broken"},
        memory={"chunked_loss": False},
        watch={"save_steps": 1},
    )
    told = attempt(recipe, tmp_path / "run")
    assert told.code == 1
    assert told.last["event"] == "guard"
    assert told.last["name"] == "nan"
    assert told.last["is_fatal"]
    assert not told.of("saved")
    assert not (tmp_path / "run" / "adapter").exists()


def test_the_users_own_code(tmp_path: Path, rows: Path) -> None:
    (tmp_path / "own_code.py").write_text(
        "import torch.nn.functional as F\n"
        "from transformers import TrainerCallback\n"
        "SEEN = []\n"
        "def loader(paths):\n"
        "    for number in range(20):\n"
        "        yield {'prompt': f'{number} red', 'completion': 'blue ' * (number + 1)}\n"
        "def loss(outputs, labels, num_items_in_batch):\n"
        "    logits, wanted = outputs.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()\n"
        "    return 2 * F.cross_entropy(logits, wanted, reduction='sum') / num_items_in_batch\n"
        "class Watcher(TrainerCallback):\n"
        "    def on_step_end(self, args, state, control, **kwargs):\n"
        "        SEEN.append(state.global_step)\n"
    )
    told = {}
    for name, loss in (("own", "own_code:loss"), ("usual", "")):
        recipe = make_recipe(
            tmp_path / name, rows, data={"loader": "own_code:loader"}, steps={"loss": loss, "max_steps": 1},
            memory={"chunked_loss": False}, watch={"callbacks": ("own_code:Watcher",)},
        )  # fmt: skip
        told[name] = attempt(recipe, tmp_path / name)
    import own_code  # type: ignore[import-not-found]

    assert own_code.SEEN == [1, 1]
    assert told["own"].of("data")[0]["num_rows"] == 20
    assert told["own"].losses()[0] == pytest.approx(2 * told["usual"].losses()[0], rel=1e-5)
    with pytest.raises(RecipeUnusable, match=r"hooks\.callbacks: own_code has no 'Wather'; did you mean 'Watcher'"):
        attempt(make_recipe(tmp_path / "wrong", rows, watch={"callbacks": ("own_code:Wather",)}), tmp_path / "wrong")


def test_rows_longer_than_the_model_reads(tmp_path: Path, rows: Path) -> None:
    with pytest.raises(RecipeUnusable, match="sequence_len: 4,096: demo reads 2,048 tokens at most"):
        attempt(make_recipe(tmp_path, rows, data={"max_length": 4096}), tmp_path)
