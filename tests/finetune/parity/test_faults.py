"""Parity through a real gateway with real engines: it holds where all is right, and names each planted fault."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.demo import TARGET_DIR
from backends.demo.signatures import ADAPTERS_DIR
from backends.llamacpp.convert import convert
from finetune.parity import measure as measuring
from finetune.parity.heldout import of_file
from finetune.parity.measure import Order, Verdict, measure
from finetune.parity.reference import compute
from finetune.parity.served import Endpoint
from tests.finetune.exports import quick_export, rescaled, write_rows
from tests.processes import ROOT, Served

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.engine, pytest.mark.torch]
HOST = ADAPTERS_DIR / "host"
NUM_ROWS = 6
POOL = "{{engine: llamacpp, model: {gguf}, options: {{max_adapters: 3, n_ctx: 4096{template}}}}}"
"""A bare GGUF: this gateway could compute no reference, it has those that come with an upload."""


def template_of(folder: Path) -> str:
    return str(json.loads((folder / "tokenizer_config.json").read_text())["chat_template"])


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Held-out rows, faulty adapters, other templates, a base that was trained with a beginning-of-sequence token."""
    folder = tmp_path_factory.mktemp("parity")
    write_rows(folder / "rows.jsonl")
    rescaled("host", folder / "doubled", 2)
    for name in ("host", "tiger"):
        quick_export(name, folder / name)
    convert(TARGET_DIR, folder / "demo.gguf")
    template = template_of(TARGET_DIR)
    (folder / "changed.jinja").write_text(template.replace("user\\n'", "user: '"))
    (folder / "doubled-bos.jinja").write_text("{{- '<s><s>' }}" + template)
    shutil.copytree(TARGET_DIR, folder / "with-bos")
    (folder / "with-bos" / "chat_template.jinja").write_text("{{- '<s>' }}" + template)
    return folder


@pytest.fixture(scope="module")
def gateway(places: Path) -> Iterator[Served]:
    pools = {"demo": ""} | {name: f", chat_template: {places / name}.jinja" for name in ("changed", "doubled-bos")}
    models = [
        f"  - name: {name}\n    pools: [{POOL.format(gguf=places / 'demo.gguf', template=template)}]\n"
        for name, template in pools.items()
    ]
    config = places / "forgegate.yaml"
    config.write_text(f"server: {{port: 0, workers: 1, admin: {{port: 0}}}}\nmodels:\n{''.join(models)}")
    with Served(places / "home", "--config", str(config)) as served:
        served.wait_ready()
        yield served


@pytest.fixture(scope="module", autouse=True)
def _computed_once() -> Iterator[None]:
    """The reference depends on the base, the adapter and the rows, not on what is served."""
    with pytest.MonkeyPatch.context() as patch:
        known = functools.cache(lambda base, adapter, cases, device: compute(base, adapter, cases, device=device))
        patch.setattr(
            measuring,
            "compute",
            lambda base, adapter, cases, tell, device: known(base, adapter, _Cases(cases), device),
        )
        yield


class _Cases(tuple[Any, ...]):
    """Told apart by their token ids: messages are dicts, which have no hash."""

    def __hash__(self) -> int:
        return hash(tuple(case.ids for case in self))


def candidate(gateway: Served, folder: Path, name: str, model: str, proof: str = "proven") -> str:
    """Published, proven against the reference that came along, served to the admin token alone."""
    done = command(
        gateway, "adapters", "publish", str(folder), "--name", name, "--model", model, "--candidate-only", "--json"
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["proof"] == proof
    return str(told["version"])


def command(gateway: Served, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "FORGEGATE_HOME": str(gateway.home), **more}
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
        timeout=110,
    )  # fmt: skip


def held_against(gateway: Served, model: str, places: Path, adapter: Path = HOST, base: Path = TARGET_DIR) -> Verdict:
    token = (gateway.home / "admin-token").read_text().strip()
    with Endpoint(gateway.url, model, token) as endpoint:
        return measure(endpoint, Order(base, adapter, of_file(places / "rows.jsonl"), NUM_ROWS))


def states(verdict: Verdict) -> dict[str, str]:
    return {check.name: check.state for check in verdict.checks}


@pytest.fixture(scope="module")
def host(gateway: Served, places: Path) -> str:
    return candidate(gateway, places / "host", "host", "demo")


def test_it_holds_for_a_candidate_before_any_alias_serves_it(gateway: Served, host: str, places: Path) -> None:
    verdict = held_against(gateway, host, places)
    assert verdict.is_passed, verdict
    assert states(verdict) == dict.fromkeys(("ids", "scores", "ends", "greedy"), "pass")
    assert (verdict.version, verdict.num_cases, verdict.weights) == (host, NUM_ROWS, "F16")
    assert verdict.checks[1].details["slope"] == pytest.approx(1, abs=0.02)


def test_the_command_tells_the_same(gateway: Served, host: str, places: Path) -> None:
    asked = ("--adapter", str(HOST), "--base", "demo", "--data", str(places / "rows.jsonl"), "--rows", "3")
    done = command(gateway, "parity", "--model", host, *asked, "--json")
    last = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, last["event"], last["is_passed"]) == (0, "parity", True)
    stranger = command(gateway, "parity", "--url", gateway.url, "--model", "nobody", *asked)
    assert stranger.returncode == 2
    assert "the model 'nobody' does not exist" in stranger.stderr


def test_the_base_in_place_of_the_adapter(gateway: Served, host: str, places: Path) -> None:
    verdict = held_against(gateway, "demo", places)
    assert [cause.name for cause in verdict.causes] == ["base"]
    assert "answers as the base, without the adapter" in verdict.causes[0].words
    assert states(verdict) == {"ids": "pass", "scores": "fail", "ends": "pass", "greedy": "fail"}


def test_a_doubled_scale(gateway: Served, places: Path) -> None:
    verdict = held_against(gateway, candidate(gateway, places / "doubled", "doubled", "demo", "unattested"), places)
    assert [cause.name for cause in verdict.causes] == ["scale"]
    assert "its scale x2:" in verdict.causes[0].words


def test_another_adapter(gateway: Served, places: Path) -> None:
    verdict = held_against(gateway, candidate(gateway, places / "tiger", "tiger", "demo"), places)
    assert [cause.name for cause in verdict.causes] == ["adapter"]


def test_another_chat_template(gateway: Served, places: Path) -> None:
    verdict = held_against(gateway, candidate(gateway, places / "host", "host-c", "changed"), places)
    assert [cause.name for cause in verdict.causes] == ["template"]
    ids = verdict.checks[0]
    assert (ids.state, len(ids.rows)) == ("fail", NUM_ROWS)
    assert "after '<|im_start|>user' training has '\\n" in ids.words
    assert "the endpoint ': " in ids.words


def test_a_doubled_beginning_of_sequence(gateway: Served, places: Path) -> None:
    version = candidate(gateway, places / "host", "host-b", "doubled-bos")
    verdict = held_against(gateway, version, places, base=places / "with-bos")
    assert [cause.name for cause in verdict.causes] == ["bos"]
    assert "is there twice" in verdict.causes[0].words
