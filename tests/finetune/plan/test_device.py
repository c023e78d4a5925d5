from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from backends.gpus import Gpus
from finetune.errors import RecipeUnusable
from finetune.plan.cards import CARDS, find
from finetune.plan.device import detect, named, processor
from finetune.plan.units import GIB, MIB


@dataclass
class Driver:
    """NVML with the cards that it is given: name, MiB in all, MiB free."""

    cards: list[tuple[str | bytes, int, int]] = field(default_factory=list)

    def nvmlInit(self) -> None:
        pass

    def nvmlShutdown(self) -> None:
        pass

    def nvmlDeviceGetCount(self) -> int:
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, number: int) -> int:
        return number

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:
        return int(uuid.rpartition("-")[2])

    def nvmlDeviceGetName(self, handle: int) -> str | bytes:
        return self.cards[handle][0]

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:
        return SimpleNamespace(total=self.cards[handle][1] * MIB, free=self.cards[handle][2] * MIB)


TWO = Driver([("NVIDIA GeForce RTX 4090", 24564, 20000), (b"NVIDIA A100-SXM4-40GB", 40960, 40000)])


@pytest.mark.parametrize(
    ("visible", "name", "free", "tflops"),
    [
        (None, "NVIDIA GeForce RTX 4090", 20000, 165),
        ("1", "NVIDIA A100-SXM4-40GB", 40000, 312),
        ("GPU-1,0", "NVIDIA A100-SXM4-40GB", 40000, 312),
    ],
)
def test_the_first_visible_gpu_is_taken(visible: str | None, name: str, free: int, tflops: float) -> None:
    device = detect(Gpus(TWO, visible))
    assert (device.name, device.free_bytes, device.tflops) == (name, free * MIB, tflops)
    assert device.is_gpu
    assert device.is_there


@pytest.mark.parametrize("gpus", [Gpus(Driver(), None), Gpus(TWO, "")])
def test_without_a_visible_gpu_it_is_the_processor(gpus: Gpus) -> None:
    device = detect(gpus)
    assert device.kind == "cpu"
    assert device.name.startswith("CPU, ")


def test_an_unknown_card_has_memory_but_no_rates() -> None:
    device = detect(Gpus(Driver([("NVIDIA Nova 1", 50000, 49000)]), None))
    assert (device.free_bytes, device.tflops) == (49000 * MIB, None)


def test_the_processor_has_the_memory_that_is_free() -> None:
    device = processor()
    assert 0 < device.free_bytes <= device.total_bytes


@pytest.mark.parametrize(("said", "gib"), [("24GB", 24), ("24", None), ("7.5 GiB", 7.5), ("80g", 80)])
def test_a_size_is_a_card_of_that_size(said: str, gib: float | None) -> None:
    if gib is None:
        with pytest.raises(RecipeUnusable, match=r"--gpu 24: write its memory, as in 24GB, or one of these: T4,"):
            named(said)
        return
    device = named(said)
    assert device.total_bytes == gib * GIB
    assert 0.97 * device.total_bytes < device.free_bytes < device.total_bytes
    assert device.tflops is None


@pytest.mark.parametrize(
    ("said", "card"),
    [
        ("RTX4090", "RTX 4090"), ("4090", None), ("rtx-4090", "RTX 4090"), ("H200", "H200"), ("h100", "H100"), ("A100", "A100 80GB"),
        ("A100-40GB", "A100 40GB"), ("NVIDIA A100-SXM4-80GB", "A100 80GB"), ("Tesla T4", "T4"), ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", "L40S"), ("NVIDIA L40", "L40"), ("NVIDIA A10G", "A10G"), ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"), ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"), ("NVIDIA RTX A6000", "RTX A6000"),
        ("Tesla V100-SXM2-32GB", "V100 32GB"), ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "RTX PRO 6000 Blackwell"),
        ("Radeon", None), ("NVIDIA RTX A4000", None), ("RTX A1000", None), ("Quadro T400", None), ("NVIDIA T1000", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None), ("NVIDIA GeForce RTX 3090 Ti", None), ("NVIDIA GH200 480GB", None),
        ("NVIDIA GB200", None), ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", None), ("NVIDIA H200 NVL", None), ("L400", None),
        ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", None), ("NVIDIA A100 80GB PCIe", "A100 80GB"),
        ("NVIDIA A100-PCIE-40GB", "A100 40GB"), ("A100-40G", "A100 40GB"), ("NVIDIA H200", "H200"), ("rtx3090 24 GiB", "RTX 3090"),
        ("NVIDIA A10-24GB", "A10"), ("RTXA6000", "RTX A6000"), ("Tesla V100-PCIE-16GB", "V100 16GB"), ("NVIDIA H100 80GB HBM3e", "H100"),
        ("", None), ("80GB", None), ("GPU", None),
    ],
)  # fmt: skip
def test_cards_by_the_names_that_users_and_drivers_give_them(said: str, card: str | None) -> None:
    found = find(said)
    assert (found.name if found else None) == card


def test_every_card_is_found_by_its_own_name() -> None:
    assert [find(card.name) for card in CARDS] == list(CARDS)


def test_cpu_is_a_device_too() -> None:
    assert named("cpu").name == processor().name
    assert not named("cpu").is_gpu
