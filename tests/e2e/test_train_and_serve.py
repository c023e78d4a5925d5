"""From tickets to a model that is served: QLoRA on the CPU, published to a gateway with two kinds of engine while clients stream.

The gateway is the one of test_vllm_pools, which comes after this.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from backends.demo.skills import SKILLS
from finetune.demo_score import Score, ask_all, questions, score
from tests.e2e.steady_load import SteadyLoad
from tests.e2e.vllm_stage import ENGINES, MixedGateway
from tests.processes import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.engine, pytest.mark.torch, pytest.mark.timeout(600)]

RECIPE = ROOT / "finetune" / "recipes" / "demo-cpu.yaml"
NUM_STEPS = 100
"""Fewer than the recipe's: the form is learned in the first sixty, the values by and by."""
NUM_JUDGED, REASON = 2, "so few items cannot tell"
"""Of each task of the suite that a run on the demo model has by default: vLLM on a CPU takes its time."""
NUM_AT_A_TIME = 12
"""The gateway asks whoever has less to do, and vLLM on a CPU takes hardly longer for six answers than for one."""
MIN_ANSWERS = 20
"""Of each engine, for its share to mean something."""


@dataclass(frozen=True, slots=True)
class Published:
    tickets: Path
    record: Mapping[str, Any]
    """Of the run."""
    load: SteadyLoad

    @property
    def version(self) -> str:
        return str(self.record["published"]["version"])


@pytest.fixture(scope="module")
def published(mixed_gateway: MixedGateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    folder = tmp_path_factory.mktemp("tickets")
    run(folder, mixed_gateway, "finetune.demo_tickets", "--out", "tickets")
    with SteadyLoad(mixed_gateway.url, "demo") as load:
        said = run(
            folder, mixed_gateway, "gateway", "train", str(RECIPE), "--publish", "tickets", "--json", "--set", f"max_steps={NUM_STEPS}",
            "--max-items", str(NUM_JUDGED), "--force", REASON,
        )  # fmt: skip
    yield Published(folder / "tickets", json.loads(said.splitlines()[-1]), load)
    api = mixed_gateway.admin_api
    if any(alias["name"] == "tickets" for alias in api.aliases()):
        api.remove_alias("tickets")
    for version in api.adapters():
        api.remove_adapter(version["name"])


def run(folder: Path, gateway: MixedGateway, module: str, *arguments: str) -> str:
    """What `python -m module` prints, in `folder`, for whom the gateway is the one of this machine."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=folder, capture_output=True, text=True, timeout=560,
        env={**os.environ, "FORGEGATE_HOME": str(gateway.home), "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def scores(gateway: MixedGateway, held_out: Path, model: str, num: int) -> Mapping[str, Score]:
    """By engine."""
    asked = questions(held_out)[:num]
    with httpx.Client(base_url=gateway.url.removesuffix("/v1"), timeout=60, verify=False) as client:
        answers, _ = ask_all(client, model, asked, NUM_AT_A_TIME)
    found = {}
    for engine in {answer.engine for answer in answers}:
        own = [
            (fields, answer.text) for (_, fields), answer in zip(asked, answers, strict=True) if answer.engine == engine
        ]
        found[engine] = score([fields for fields, _ in own], [text for _, text in own])
    assert found.keys() == ENGINES
    assert all(one.num_answers >= MIN_ANSWERS for one in found.values()), {
        name: one.num_answers for name, one in found.items()
    }
    return found


def test_both_engines_are_ready(mixed_gateway: MixedGateway) -> None:
    """What their starts take is none of the training's time."""
    engines = mixed_gateway.admin("GET", "/admin/v1/engines")["data"]
    assert {engine["id"]: engine["state"] for engine in engines} == dict.fromkeys(ENGINES, "ready")


def test_published_while_clients_stream(mixed_gateway: MixedGateway, published: Published) -> None:
    assert published.record["attempts"][-1]["num_steps"] == NUM_STEPS
    assert not published.load.failed
    assert published.load.answered.keys() == ENGINES
    held = dict.fromkeys(ENGINES, (True, "proven"))
    assert mixed_gateway.proofs(published.version) == held
    (alias,) = mixed_gateway.admin_api.aliases()
    assert (alias["name"], [share["adapter"] for share in alias["shares"]]) == ("tickets", [published.version])


def test_it_was_judged_by_the_default_suite(mixed_gateway: MixedGateway, published: Published) -> None:
    told = published.record["published"]["judged"]
    assert (told["candidate"], told["live"], told["task"]["name"]) == (published.version, [], "held-out")
    assert told["task"]["num_items"] == NUM_JUDGED
    assert {one["name"] for one in told["general"]} == SKILLS.keys()
    (change,) = mixed_gateway.admin_api.adapter("tickets")["history"]
    assert (change["gate"], change["reason"]) == (("forced", REASON) if told["outcome"] != "GO" else ("go", ""))


def test_the_base_does_not_answer_so(mixed_gateway: MixedGateway, published: Published) -> None:
    for engine, found in scores(mixed_gateway, published.tickets / "held-out.jsonl", "demo", 80).items():
        assert found.compliance < 0.1, (engine, found.lines())


def test_what_is_served_does(mixed_gateway: MixedGateway, published: Published) -> None:
    """Without a schema or an instruction: the ticket alone is the prompt."""
    for engine, found in scores(mixed_gateway, published.tickets / "held-out.jsonl", "tickets", 200).items():
        assert found.compliance >= 0.95, (engine, found.lines())
