"""The plans of all pools, and how `forgegate serve --plan` prints them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from backends.base import Tell, untold
from backends.errors import ModelUnusable
from backends.plan import GIB, MIB, RAM, Pick, Plan, Use
from gateway import cli
from gateway.config import Model, Pool
from gateway.configfile import parse
from gateway.control.plans import as_json, as_table, plan_pools, summary
from gateway.exits import DONE, UNABLE
from gateway.origin import PoolsRefused
from tests.backends.llamacpp import ggufs
from tests.processes import stub_python, write_gguf


def use(free: int | None, device: str = RAM, shared: int = 0) -> Use:
    return Use(device, 2 * GIB, 512 * MIB, 100 * MIB, 0, free, shared)


@dataclass
class Planned:
    """A backend that plans `num_engines` engines."""

    plan_of: Plan | None
    seen: list[dict[str, int]] = field(default_factory=list)

    def check(self, tell: Tell = untold) -> str:
        return "an engine"

    def plan(self, taken: Mapping[str, int]) -> Plan | None:
        self.seen.append(dict(taken))
        return self.plan_of


def pool(replicas: int = 1) -> tuple[Model, Pool]:
    made = Pool(engine="llamacpp", model="demo", replicas=replicas)
    return Model(name="m", pools=(made,)), made


PICK = Pick("n_ctx", 8192, "as many as fit")


def test_each_pool_sees_what_those_before_it_leave() -> None:
    backends = [Planned(Plan((), (use(8 * GIB),), 2)), Planned(None), Planned(Plan((), (use(1), use(2, "CUDA0")), 1))]
    backends.append(Planned(None))
    pools = [(*pool(), backend) for backend in backends]
    plan_pools(pools)  # type: ignore[arg-type]
    one = 2 * GIB + 612 * MIB
    assert [backend.seen for backend in backends] == [
        [{}], [{RAM: 2 * one}], [{RAM: 2 * one}], [{RAM: 3 * one, "CUDA0": one}],
    ]  # fmt: skip


def test_engines_on_demand_take_turns_in_what_those_leave_that_always_stay() -> None:
    one = 2 * GIB + 612 * MIB
    backends = [Planned(Plan((), (use(8 * GIB),), 1)) for _ in range(3)]
    made = Pool(engine="llamacpp", model="demo", resident="on_demand")
    demanded = (Model(name="d", pools=(made,)), made)
    planned = plan_pools([(*demanded, backends[0]), (*pool(), backends[1]), (*demanded, backends[2])])  # type: ignore[arg-type]
    assert [backend.seen for backend in backends] == [[{RAM: one}], [{}], [{RAM: one}]]
    assert [entry.what for entry in planned] == ["on demand: an engine", "1 x an engine", "on demand: an engine"]


@dataclass
class Broken(Planned):
    plan_of: Plan | None = None

    def check(self, tell: Tell = untold) -> str:
        raise ModelUnusable("/x: no such folder")


def test_every_pool_that_cannot_be_served_is_named_with_its_line() -> None:
    config = parse("models:\n- name: m\n  pools:\n" + "  - {engine: llamacpp, model: demo}\n" * 3, "f.yaml")
    (model,) = config.models
    backends = [Broken(), Planned(None), Broken()]
    with pytest.raises(PoolsRefused) as caught:
        plan_pools([(model, pool, backend) for pool, backend in zip(model.pools, backends, strict=True)])  # type: ignore[misc]
    assert str(caught.value).splitlines() == [
        f"f.yaml:{line}: models[0].pools[{index}]: /x: no such folder" for line, index in ((4, 0), (6, 2))
    ]


def test_what_is_printed() -> None:
    plans = [Plan((PICK,), (use(8 * GIB, shared=2 * GIB),), 2, ("tight",)), None, Plan((), (use(None),), 1)]
    planned = plan_pools([(*pool(2), Planned(plan)) for plan in plans])  # type: ignore[misc]
    assert as_table(planned).splitlines() == [
        "m: 2 x an engine",
        "  n_ctx     8192  as many as fit",
        "  RAM: weights 2.0 GiB + KV cache 512 MiB + buffers 100 MiB = 2.6 GiB, 2 engines, weights shared: 3.2 GiB of 8.0 GiB free",
        "  note: tight",
        "m: 2 x an engine",
        "  nothing to plan: it runs elsewhere",
        "m: 2 x an engine",
        "  nothing to pick: all options are given",
        "  RAM: weights 2.0 GiB + KV cache 512 MiB + buffers 100 MiB = 2.6 GiB",
    ]
    assert [summary(entry) for entry in planned] == [
        "m: picked n_ctx 8192; takes 3.2 GiB of 8.0 GiB free RAM; tight",
        "",
        "m: picked nothing: all options are given; takes 2.6 GiB of RAM",
    ]
    first, second, _ = json.loads(json.dumps(as_json(planned)))
    assert first["plan"]["options"] == {"n_ctx": 8192}
    assert first["plan"]["taken_bytes"] == {RAM: 3 * GIB + 200 * MIB}
    assert first["plan"]["uses"][0]["kv_bytes"] == 512 * MIB
    assert second["plan"] is None


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FORGEGATE_HOME", str(tmp_path / "home"))
    gguf, python = write_gguf(tmp_path / "m.gguf"), stub_python(tmp_path)
    path = tmp_path / "forgegate.yaml"
    path.write_text(
        f"models:\n  - name: m\n    pools:\n      - {{engine: llamacpp, model: {gguf}, python: {python}, replicas: 2}}\n"
        "      - {engine: remote, base_url: http://127.0.0.1:1}\n"
    )
    return path


def test_serve_plan_prints_and_starts_nothing(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", "--config", str(config), "--plan"]) == DONE
    told = capsys.readouterr().out
    assert "m: 2 x llama.cpp engine, model" in told
    assert "KV cells: 4 requests of 2,048 tokens" in told
    assert "2 engines, weights shared" in told
    assert "nothing to plan: it runs elsewhere" in told
    assert not (tmp_path / "home").exists()
    assert cli.main(["serve", "--config", str(config), "--plan", "--json"]) == DONE
    listed = json.loads(capsys.readouterr().out)
    assert listed[0]["plan"]["options"]["n_ctx"] == 8192
    assert listed[1]["plan"] is None


def test_check_says_what_is_picked_and_that_it_fits(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["serve", "--config", str(config), "--check"]) == DONE
    assert "m: picked n_ctx 8192, n_seq_max 32, n_batch 512, n_ubatch 512" in capsys.readouterr().out
    # A trillion parameters.
    ggufs.llama(
        tmp_path / "m.gguf", layers=300, width=16_384, inner=65_536, heads=128, kv_heads=8, head=128, vocabulary=512,
        length=8192,
    )  # fmt: skip
    assert cli.main(["serve", "--config", str(config), "--check"]) == UNABLE
    assert "does not fit: 2 engines would take" in capsys.readouterr().err
