"""The sets of vLLM: that their packages fit each other and are all that is needed, by what each one's metadata asks for."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from backends.environments.table import VLLM, VLLM_CPU, Environment, pins_of
from tests.backends.record_requirements import from_python, recorded, without_unused
from tests.vllm_environment import MISSING, vllm_python

LEFT_OUT = {"vllm-cpu": {"torchvision", "torchaudio", "torchcodec"}, "vllm": set()}
VERSIONS = ("3.11", "3.12", "3.13")
BOTH = pytest.mark.parametrize("environment", [VLLM, VLLM_CPU], ids=lambda each: each.name)


def pinned(environment: Environment) -> dict[str, str]:
    return {
        canonicalize_name(name): version for name, _, version in (pin.partition("==") for pin in pins_of(environment))
    }


def closure(name: str, requires: dict[str, list[str]], python: str) -> dict[str, list[Requirement]]:
    """All that is needed by `name`, each with who-wants-which-version."""
    wanted: dict[str, list[Requirement]] = {}
    todo, seen = [(name, frozenset[str]())], set()
    while todo:
        package, extras = todo.pop()
        if (package, extras) in seen or package not in requires:
            continue
        seen.add((package, extras))
        for line in requires[package]:
            requirement = Requirement(line)
            if any(_holds(requirement, python, extra) for extra in {"", *extras}):
                needed = canonicalize_name(requirement.name)
                wanted.setdefault(needed, []).append(requirement)
                todo.append((needed, frozenset(requirement.extras)))
    return wanted


def _holds(requirement: Requirement, python: str, extra: str) -> bool:
    machine = {
        "python_version": python, "python_full_version": f"{python}.5", "platform_machine": "x86_64", "sys_platform": "linux",
        "platform_system": "Linux", "os_name": "posix", "platform_python_implementation": "CPython",
        "implementation_name": "cpython", "extra": extra,
    }  # fmt: skip
    return requirement.marker is None or requirement.marker.evaluate(machine)


@BOTH
def test_the_lock_is_what_the_metadata_asks_for(environment: Environment) -> None:
    pins, requires, left_out = pinned(environment), recorded(environment.name), LEFT_OUT[environment.name]
    needed = {name for python in VERSIONS for name in closure(environment.name, requires, python)}
    assert needed - set(pins) == left_out
    assert set(pins) - needed == {environment.name}


@BOTH
@pytest.mark.parametrize("python", VERSIONS)
def test_every_pin_is_a_version_that_all_accept(environment: Environment, python: str) -> None:
    pins = pinned(environment)
    refused = [
        f"{name}=={pins[name]} is not {requirement}"
        for name, requirements in closure(environment.name, recorded(environment.name), python).items()
        for requirement in requirements
        if name in pins and not requirement.specifier.contains(_build(name, pins[name], environment), prereleases=True)
    ]
    assert not refused


def _build(name: str, version: str, environment: Environment) -> str:
    return f"{version}+cpu" if name == environment.prior == "torch" else version


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_pip_resolves_the_set_for_gpus(tmp_path: Path) -> None:
    """By pip's own resolver, from wheels that hold each package's metadata and nothing else: the real ones are 5 GB."""
    requires = recorded("vllm")
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for pin in pins_of(VLLM):
        _metadata_only(wheels, *pin.split("=="), requires)
    report = tmp_path / "report.json"
    pins = tmp_path / "pins.txt"
    pins.write_text("\n".join(pins_of(VLLM)))
    subprocess.run(
        [sys.executable, "-I", "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-index", "--quiet",
         "--disable-pip-version-check", "--find-links", str(wheels), "--report", str(report), "-r", str(pins)],
        env={"PIP_CONFIG_FILE": "/dev/null"}, check=True,
    )  # fmt: skip
    chosen = {
        each["metadata"]["name"] + "==" + each["metadata"]["version"]
        for each in json.loads(report.read_text())["install"]
    }
    assert chosen == set(pins_of(VLLM))


def _metadata_only(folder: Path, name: str, version: str, requires: dict[str, list[str]]) -> None:
    lines = requires[canonicalize_name(name)]
    extras = sorted({extra for needed in requires.values() for line in needed for extra in _asked(line, name)})
    stem = f"{name.replace('-', '_')}-{version}"
    metadata = [
        "Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}",
        *(f"Provides-Extra: {extra}" for extra in extras), *(f"Requires-Dist: {line}" for line in lines),
    ]  # fmt: skip
    info = f"{stem}.dist-info"
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{info}/METADATA", "\n".join(metadata) + "\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", f"{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")


def _asked(line: str, name: str) -> set[str]:
    requirement = Requirement(line)
    return requirement.extras if canonicalize_name(requirement.name) == canonicalize_name(name) else set()


@pytest.mark.slow
def test_what_is_recorded_is_what_the_packages_say() -> None:
    python = vllm_python()
    if python is None:
        pytest.skip(MISSING)
    requires = recorded("vllm-cpu")
    assert without_unused(from_python(python, list(requires))) == requires
