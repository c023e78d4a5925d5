"""The short form of the campaign: the demo's adapters, sound and broken, proven in llama.cpp with the goldens that are shipped."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from backends.adapter.golden import read_golden
from backends.adapter.probe_demo import demo_probe
from backends.artifacts import source_digest
from backends.demo import TARGET_DIR
from backends.demo.goldens import GOLDENS_DIR, shipped_golden
from backends.demo.signatures import SIGNATURES
from backends.llamacpp.convert import ensure_gguf
from finetune.demo_goldens import SHIPPED

pytestmark = [pytest.mark.engine, pytest.mark.slow]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory):
    from tests.backends.adapter.versions import Workshop

    return Workshop(tmp_path_factory.mktemp("shop"), demo_probe(source_digest(TARGET_DIR), TARGET_DIR))


def test_the_shipped_goldens_are_those_of_the_shipped_adapters(shop) -> None:
    versions = [shop.shipped(name) for name in SHIPPED]
    assert {shipped_golden(version.folder.name) for version in versions} == set(GOLDENS_DIR.glob("*.safetensors"))
    for version in versions:
        golden = read_golden(shipped_golden(version.folder.name))
        assert golden.adapter_digest == version.folder.name
        assert golden.base_digest == source_digest(TARGET_DIR)
        assert golden.texts[: golden.num_shared] == demo_probe(golden.base_digest, TARGET_DIR).texts
        assert shipped_golden(version.folder.name).stat().st_size < 200_000
    assert shipped_golden("0" * 64) is None
    assert shipped_golden("../adapters/CARD") is None


@pytest.mark.parametrize("level", ["F16", "Q4_K_M"])
def test_sound_adapters_are_proven_and_faults_found(level: str, shop, tmp_path: Path) -> None:
    from tests.backends.adapter.campaign import Campaign, Zoo
    from tests.backends.adapter.scoring import quantise

    gguf = quantise(ensure_gguf(TARGET_DIR, tmp_path), tmp_path / f"{level}.gguf", level)
    zoo = Zoo(shop, tuple(shop.signing(name) for name in SIGNATURES), (), ())
    tallies = Campaign(gguf, zoo, Random(f"short {level}")).run(num_launches=1, loads_per_case=2, num_healthy=4)
    assert set(tallies["sound"].states) <= {"proven", "weak"}
    assert tallies["sound"].states["proven"] >= 2
    faults = {case: tally for case, tally in tallies.items() if case != "sound"}
    assert {case.removesuffix(", others known") for case in faults} == {
        "not applied", "wrong adapter", "scale x0.5", "scale x2", "one layer zeroed", "q/k not permuted",
    }  # fmt: skip
    assert not any("proven" in tally.states for tally in faults.values())
    for case in ("not applied", "scale x0.5", "scale x2"):
        assert (faults[case].states, faults[case].num_named) == ({"failed": 2}, 2)
