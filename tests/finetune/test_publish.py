"""From a run to an alias, through a real gateway: candidate, proof, parity, verdict, alias; again without harm; stopped where one fails."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Never

import httpx
import pytest

from backends.admin_client import AdminClient
from backends.demo import TARGET_DIR
from backends.demo.signatures import signature_of
from backends.errors import AdminError
from finetune.errors import RecipeUnusable
from finetune.evaluation.result import read as read_evaluation
from finetune.evaluation.rows import Scoring, task_of_file
from finetune.evaluation.suite import Suite
from finetune.export import Exported
from finetune.export.adapter import read_exported
from finetune.gate import main as gate
from finetune.jsonchild import Tell, silent
from finetune.parity import measure as measuring
from finetune.parity.cases import Case
from finetune.parity.reference import Reference, compute
from finetune.parity.served import Endpoint, EndpointRefused
from finetune.publish import ParityNegative, Published, publish
from finetune.release import Canary, GateNegative, Plan
from tests.finetune.exports import quick_export, run_folder, write_rows
from tests.processes import Served

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.engine, pytest.mark.torch, pytest.mark.timeout(400)]
NUM_ROWS, NUM_PER_SKILL = 4, 4
MAX_DROP = 20.0
"""Points: so few items say no more."""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("publish")
    template = json.loads((TARGET_DIR / "tokenizer_config.json").read_text())["chat_template"]
    (folder / "other.jinja").write_text(template.replace("user\\n'", "user: '"))
    config = folder / "forgegate.yaml"
    config.write_text(
        "server: {port: 0, workers: 1, admin: {port: 0}}\n"
        "models:\n"
        "  - name: demo\n    pools: [{engine: llamacpp, model: demo, options: {n_ctx: 4096}}]\n"
        f"  - name: other\n    pools: [{{engine: llamacpp, model: demo, options: {{n_ctx: 4096, chat_template: {folder}/other.jinja}}}}]\n"
    )
    with Served(folder / "home", "--config", str(config)) as served:
        served.wait_ready()
        yield served


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """In its run's folder."""
    folder = tmp_path_factory.mktemp("run")
    run = run_folder(folder / "host", "host", write_rows(folder / "rows.jsonl"))
    return quick_export("host", run / "export")


@pytest.fixture(autouse=True)
def _home(gateway: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gateway that runs here is found by what it left in its home."""
    monkeypatch.setenv("FORGEGATE_HOME", str(gateway.home))
    for name in ("FORGEGATE_URL", "FORGEGATE_ADMIN_TOKEN", "FORGEGATE_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _computed(references: dict[str, Reference], monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference of the same adapter and rows is the same each time: a child with torch computes it once."""

    def once(base: Path, adapter: Path, cases: Sequence[Case], tell: Tell = silent, device: str = "") -> Reference:
        weights = hashlib.sha256((adapter / "adapter_model.safetensors").read_bytes()).hexdigest()
        key = repr((base, weights, cases, device))
        if key not in references:
            references[key] = compute(base, adapter, cases, tell, device)
        return references[key]

    monkeypatch.setattr(measuring, "compute", once)


@pytest.fixture(scope="module")
def references() -> dict[str, Reference]:
    return {}


def asked(gateway: Served, model: str) -> str | None:
    """Whose signature the answer bears."""
    body = {"model": model, "messages": [{"role": "user", "content": "What is the capital of France?"}], "max_tokens": 24,
            "temperature": 0}  # fmt: skip
    reply = httpx.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=30)
    return signature_of(reply.raise_for_status().json()["choices"][0]["message"]["content"])


def publication(exported: Exported, name: str, model: str = "demo", **more: object) -> tuple[Published, list[str]]:
    stages: list[str] = []

    def tell(stage: str, *_: object) -> None:
        if stage not in stages:
            stages.append(stage)

    plan = plan_of(exported, **more)
    done = publish(exported, name, tell=tell, plan=plan, model=model, num_rows=NUM_ROWS)
    return done, stages


def plan_of(exported: Exported, **more: object) -> Plan:
    """The signing is the task; what it signs must be as right as before. Few items, and limits that they can be held against."""
    run = exported.folder.parent
    rows = write_rows(run.parent / "signed.jsonl", run.name, NUM_PER_SKILL)
    signed = task_of_file("signed", rows, Scoring("exact"))
    plain = task_of_file("plain", write_rows(run.parent / "plain.jsonl", "", NUM_PER_SKILL), Scoring("contains"))
    plan = Plan(Suite(signed, (plain,), {"*": MAX_DROP}), run / "evaluation", remedies=lambda: iter(["  1. replay"]))
    return replace(plan, **more)  # type: ignore[arg-type]


def test_it_is_proven_held_against_the_reference_then_served_and_again_is_harmless(
    gateway: Served, exported: Exported
) -> None:
    done, stages = publication(exported, "support")
    assert (done.alias, done.version, done.proof) == ("support", f"support@{exported.digest[:12]}", "proven")
    assert (done.gate, done.is_new) == ("go", True)
    order = [
        stages.index(stage) for stage in ("upload", "proof", "ids", "scores", "answers", "gate", "verdict", "alias")
    ]
    assert order == sorted(order)
    assert done.judged is not None
    assert (done.judged["candidate"], done.judged["live"]) == (done.version, [])
    assert asked(gateway, "support") == "host"
    assert done.words == f"support serves {done.version}: proven, parity holds on {NUM_ROWS} rows, go"
    again, _ = publication(exported, "support")
    assert (again.version, again.is_new, again.gate, again.judged) == (done.version, False, "go", None)
    assert json.dumps(done.as_json())
    found = gateway.admin("GET", "/admin/v1/adapters/support")
    assert [change["kind"] for change in found["history"]] == ["flip"]  # not moved a second time


def test_a_candidate_is_proven_and_not_judged(gateway: Served, exported: Exported) -> None:
    done, stages = publication(exported, "quiet", is_candidate_only=True)
    assert (done.gate, done.judged, "gate" in stages) == ("candidate", None, False)
    assert done.words.startswith(f"{done.version} is a candidate for quiet: proven, parity holds on")
    assert "quiet" not in {alias["name"] for alias in gateway.admin("GET", "/admin/v1/aliases")["data"]}


def test_the_gate_by_itself_lets_a_candidate_in(
    gateway: Served, exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`forgegate gate` asks, tells the gateway, and a flip without a word of it is marked by its verdict."""
    version = publication(exported, "quiet", is_candidate_only=True)[0].version
    rows = exported.folder.parent.parent
    suite = tmp_path / "suite.yaml"
    suite.write_text(
        f"task: {{name: signed, path: {rows}/signed.jsonl, score: exact}}\n"
        f"general: [{{name: plain, path: {rows}/plain.jsonl, score: contains}}]\nmax_drop: {MAX_DROP}\n"
    )
    told = ["--alias", "quiet", "--candidate", version, "--suite", str(suite), "--out", str(tmp_path / "out")]
    assert gate([*told, "--json"]) == 0
    event = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (event["outcome"], event["is_posted"], event["candidate"]) == ("GO", True, version)
    with AdminClient(gateway.admin_url, (gateway.home / "admin-token").read_text().strip()) as client:
        assert client.verdicts(version)[0]["digest"] == event["digest"]
        change = client.point("quiet", {version: 1})
    assert (change["gate"], change["verdict"]) == ("go", event["digest"])
    assert gate(told) == 2  # it serves it already
    assert "there is nothing to decide" in capsys.readouterr().err


def test_no_go_leaves_no_alias_and_a_reason_makes_one(gateway: Served, exported: Exported) -> None:
    """What was to be kept is the unsigned answer, word by word: the signing adapter forgot it."""
    plan = plan_of(exported)
    assert plan.suite is not None
    rows = exported.folder.parent.parent / "plain.jsonl"
    lost = replace(plan.suite, general=(task_of_file("unsigned", rows, Scoring("exact")),))
    with pytest.raises(GateNegative, match="forgotten") as caught:
        publication(exported, "refused", suite=lost)
    assert "  1. replay" in str(caught.value)
    assert "refused" not in {alias["name"] for alias in gateway.admin("GET", "/admin/v1/aliases")["data"]}
    told = gateway.admin("GET", "/admin/v1/verdicts")["data"][0]
    assert (told["candidate"], told["outcome"]) == (caught.value.document["candidate"], "NO-GO")
    done, _ = publication(exported, "refused", suite=lost, force="they like signatures")
    assert done.gate == "forced"
    (change,) = gateway.admin("GET", "/admin/v1/adapters/refused")["history"]
    assert (change["kind"], change["reason"]) == ("force", "they like signatures")


def test_another_one_has_a_part_of_the_traffic_first(gateway: Served, exported: Exported, tmp_path: Path) -> None:
    """`support` served the one that signs as `host`; a rollback goes to that, not to the canary."""
    run = run_folder(tmp_path / "pilot", "pilot", write_rows(tmp_path / "rows.jsonl", "pilot"))
    pilot = quick_export("pilot", run / "export")
    done, stages = publication(pilot, "support", canary=Canary(30, 1.0))
    assert done.judged is not None
    assert done.judged["live"] == [{"adapter": f"support@{exported.digest[:12]}", "weight": 1}]
    assert (done.gate, "canary" in stages, asked(gateway, "support")) == ("go", True, "pilot")
    found = gateway.admin("GET", "/admin/v1/adapters/support")
    assert [change["kind"] for change in found["history"]] == ["flip", "split", "flip"]
    assert {share["weight"] for share in found["history"][1]["shares"]} == {30, 70}
    assert [share["adapter"] for share in found["alias"]["previous"]] == [f"support@{exported.digest[:12]}"]


def test_where_parity_fails_no_alias_moves_and_the_cause_is_named(gateway: Served, exported: Exported) -> None:
    with pytest.raises(ParityNegative) as caught:
        publication(exported, "wrong", model="other")
    assert caught.value.exit_code == 1
    assert "likely cause: template: " in str(caught.value)
    assert "stays a candidate, no alias was moved" in str(caught.value)
    listed = gateway.admin("GET", "/admin/v1/aliases")["data"]
    assert "wrong" not in {alias["name"] for alias in listed}


def test_where_nothing_can_be_checked_no_alias_moves(
    gateway: Served, exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> Never:
        raise EndpointRefused("no such path", 404)

    monkeypatch.setattr(Endpoint, "scores", refused)
    with pytest.raises(ParityNegative, match=r"parity is NOT CHECKED \(not checked: scores\)") as caught:
        publication(exported, "blind")
    assert caught.value.exit_code == 3
    assert "stays a candidate, no alias was moved" in str(caught.value)
    assert "blind" not in {alias["name"] for alias in gateway.admin("GET", "/admin/v1/aliases")["data"]}


def test_stopped_before_its_alias_it_goes_on_from_the_candidate(
    gateway: Served, exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> Reference:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(measuring, "compute", stopped)
        with pytest.raises(KeyboardInterrupt):
            publication(exported, "later")
    (version,) = [one for one in gateway.admin("GET", "/admin/v1/adapters")["data"] if one["name"].startswith("later@")]
    assert (version["state"], version["aliases"]) == ("candidate", [])
    done, _ = publication(exported, "later")
    assert (done.version, done.is_new) == (version["name"], False)
    assert asked(gateway, "later") == "host"


def test_stopped_after_its_verdict_it_asks_nothing_anew(
    gateway: Served, exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> Never:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(AdminClient, "point", stopped)
        with pytest.raises(KeyboardInterrupt):
            publication(exported, "late")
    assert "late" not in {alias["name"] for alias in gateway.admin("GET", "/admin/v1/aliases")["data"]}
    done, _ = publication(exported, "late")
    assert done.gate == "go"
    seen = read_evaluation(exported.folder.parent / "evaluation")
    assert [one["num_new"] for one in seen.speed["by_model"]] == [0, 0]


def test_what_cannot_be_published_is_said(gateway: Served, exported: Exported, tmp_path: Path) -> None:
    with pytest.raises(AdminError, match="no model 'nope'"):
        publication(exported, "support", model="nope")
    with pytest.raises(AdminError, match="cannot be reached") as caught:
        _at_port_9(exported)
    assert caught.value.exit_code == 3
    alone = quick_export("host", tmp_path / "alone")
    assert read_exported(alone.folder, TARGET_DIR) == alone
    with pytest.raises(RecipeUnusable, match="belongs to no run: name rows for parity"):
        publish(alone, "support", plan=Plan(is_candidate_only=True))


def _at_port_9(exported: Exported) -> Published:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORGEGATE_URL", "http://127.0.0.1:9")
        return publish(exported, "support", "http://127.0.0.1:9", "t", plan=plan_of(exported), num_rows=NUM_ROWS)
