"""Which pip steps make an environment on this machine: pure, so that every kind of machine can be tested here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from backends.environments.table import Environment, pin_of

PYTORCH_CPU = "https://download.pytorch.org/whl/cpu"
"""PyPI's torch for Linux computes with CUDA, and brings 3 GB of it."""


@dataclass(frozen=True, slots=True)
class Index:
    """Where pip looks, besides what its own configuration says."""

    index_url: str = ""
    find_links: tuple[str, ...] = ()
    no_index: bool = False

    def arguments(self) -> tuple[str, ...]:
        index = ("--index-url", self.index_url) if self.index_url else ()
        links = tuple(part for link in self.find_links for part in ("--find-links", link))
        return (*index, *links, *(("--no-index",) if self.no_index else ()))


@dataclass(frozen=True, slots=True)
class Facts:
    """What the plan depends on of the machine."""

    system: str
    """As `platform.system()` says it."""
    has_nvidia: bool
    engine_wheels: tuple[Path, ...] = ()
    """Wheels of the pinned llama-cpp-python that were built on this machine before, the newest first."""
    engine_index: str = ""
    """FORGEGATE_LLAMACPP_INDEX: an index or a folder with prebuilt wheels."""


@dataclass(frozen=True, slots=True)
class Step:
    words: str
    choices: tuple[tuple[str, ...], ...]
    """Arguments of `pip install`, in the order in which they are tried: the first that succeeds and passes `check` stays."""
    check: str = ""
    """Python code that must run afterwards."""


def steps(
    environment: Environment,
    pins: tuple[str, ...],
    pin_files: tuple[Path, ...],
    wheel: Path,
    index: Index,
    facts: Facts,
) -> tuple[Step, ...]:
    return (
        *_prior(environment, pins, index, facts),
        *_listed(environment, pins, pin_files, index),
        *_alone(environment, index),
        *_own(environment, wheel),
    )


def refusal(environment: Environment, facts: Facts) -> str:
    """Why it cannot be of use on this machine, and what can; empty where it can."""
    if environment.device != "cuda" or facts.has_nvidia:
        return ""
    return (
        f"{environment.name} computes on NVIDIA GPUs, and this machine has none that its driver lists (nvidia-smi -L); "
        f"for the CPU: forgegate install {environment.sibling}"
    )


def advice(environment: Environment, facts: Facts) -> str:
    """What would be of more use on this machine; empty where nothing is."""
    if environment.device != "cpu" or not facts.has_nvidia:
        return ""
    return f"this machine has an NVIDIA GPU, which {environment.name} leaves alone: forgegate install {environment.sibling} uses it"


def _listed(environment: Environment, pins: tuple[str, ...], files: tuple[Path, ...], index: Index) -> tuple[Step, ...]:
    packages = tuple(part for file in files for part in ("-r", str(file)))
    alone = ("--no-deps",) if environment.is_whole else ()
    num = len(pins) - len(environment.alone)
    return (Step(f"{num} pinned packages", ((*alone, *index.arguments(), *packages),)),)


def _alone(environment: Environment, index: Index) -> tuple[Step, ...]:
    if not environment.alone:
        return ()
    return (Step(", ".join(environment.alone), (("--no-deps", *index.arguments(), *environment.alone),)),)


def _own(environment: Environment, wheel: Path) -> tuple[Step, ...]:
    return (Step("forgegate itself", (("--no-deps", "--no-index", str(wheel)),)),) if environment.has_forgegate else ()


def _prior(environment: Environment, pins: tuple[str, ...], index: Index, facts: Facts) -> tuple[Step, ...]:
    if not environment.prior:
        return ()
    pin = pin_of(environment.prior, pins)
    is_for_cpu = environment.device == "cpu" or not facts.has_nvidia
    found = _torch(pin, index, facts.system, is_for_cpu) if environment.prior == "torch" else _engine(pin, index, facts)
    choices = tuple(dict.fromkeys(("--no-deps", *choice) for choice in found))
    return (Step(pin, choices, environment.prior_check),)


def _torch(pin: str, index: Index, system: str, is_for_cpu: bool) -> list[tuple[str, ...]]:
    """For the CPU its own build: from where pip looks anyway, from PyTorch's own index, else the usual build."""
    usual = (*index.arguments(), pin)
    if system != "Linux" or not is_for_cpu:
        return [usual]
    pytorch = (f"{pin}+cpu", "--index-url", PYTORCH_CPU, "--retries", "1", "--timeout", "20")
    elsewhere = [] if index.no_index or index.index_url else [pytorch]
    return [(*index.arguments(), f"{pin}+cpu"), *elsewhere, usual]


def _engine(pin: str, index: Index, facts: Facts) -> list[tuple[str, ...]]:
    """A prebuilt wheel before a build: from where the user says, then what was built here before."""
    package = pin.partition("==")[0]
    prebuilt = ("--only-binary", package, pin)
    found: list[tuple[str, ...]] = []
    if index.find_links:
        found.append((*index.arguments(), *prebuilt))
    if facts.engine_index:
        is_links = Path(facts.engine_index).is_dir() or facts.engine_index.endswith((".html", ".htm"))
        where = Index(find_links=(facts.engine_index,), no_index=True) if is_links else Index(facts.engine_index)
        found.append((*where.arguments(), *prebuilt))
    found += [("--no-index", str(wheel)) for wheel in facts.engine_wheels]
    return [*found, (*index.arguments(), pin)]


def facts_of(system: str, has_nvidia: bool, env: Mapping[str, str], pins: tuple[str, ...]) -> Facts:
    """With the wheels that lie in the cache. Wheels are compiled for one CPU: each is tried before it is kept."""
    base = env.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    version = next((pin.partition("==")[2] for pin in pins if pin.startswith("llama-cpp-python==")), "")
    wheels = Path(base, "forgegate", "wheels").glob(f"{version}-*/*.whl") if version else ()
    newest = sorted(wheels, key=lambda path: path.stat().st_mtime, reverse=True)
    return Facts(system, has_nvidia, tuple(newest), env.get("FORGEGATE_LLAMACPP_INDEX", ""))
