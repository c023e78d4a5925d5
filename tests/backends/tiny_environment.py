"""A real environment of two tiny real packages, for tests; as a program it installs one, to be killed."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from backends.environments.build import Installed, Order, install
from backends.environments.package import Package
from backends.environments.plan import Facts, Index
from backends.environments.table import Environment


class Told:
    """What a user would see."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.lines: list[str] = []

    def step(self, words: str) -> None:
        self.steps.append(words)
        print(words, flush=True)

    def line(self, words: str) -> None:
        self.lines.append(words)


def make_wheel(folder: Path, name: str, version: str, code: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    entries = {
        f"{name}/__init__.py": code,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{entry},,\n" for entry in [*entries, f"{info}/RECORD"])
    with zipfile.ZipFile(path, "w") as wheel:
        for entry, content in {**entries, f"{info}/RECORD": record}.items():
            wheel.writestr(entry, content)
    return path


def make_environment(folder: Path, version: str, probe: str = "import tinydep") -> Environment:
    """`tiny`, with tinydep of this version."""
    pins = folder / f"pins-{version}"
    pins.with_name(f"{pins.name}.txt").write_text(f"# a comment\ntinydep=={version}\n")
    return Environment("tiny", "a test", (str(pins),), f"{probe}\nimport stub")


def make_order(folder: Path, version: str, probe: str = "import tinydep", code: str = "CODE = 1") -> Order:
    """Of `version` of tinydep, from the wheels in `folder`/wheels only."""
    source = folder / "stub.py"
    source.write_text(code)
    info = "forgegate-0.0.dist-info"
    texts = {
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: forgegate\nVersion: 0.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    return Order(
        make_environment(folder, version, probe), folder / "envs", folder / "logs" / "install-tiny.log",
        Package("0.0", {"stub.py": source}, texts, f"sha256:{code}"), lambda _: Facts("Linux", has_nvidia=False),
        default_python=sys.executable, index=Index(find_links=(str(folder / "wheels"),), no_index=True),
    )  # fmt: skip


def ask(envs: Path, code: str = "import tinydep; print(tinydep.VERSION)") -> str:
    """What the environment in use answers."""
    python = envs / "tiny" / "bin" / "python"
    done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def run(order: Order) -> tuple[Installed, Told]:
    told = Told()
    return install(order, told), told


if __name__ == "__main__":
    installed, _ = run(make_order(Path(sys.argv[1]), sys.argv[2]))
    print("new" if installed.is_new else "same", flush=True)
