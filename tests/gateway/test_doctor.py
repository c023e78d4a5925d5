from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from gateway import cli, doctor
from gateway.doctor import ERROR, INFO, OK, WARNING, Machine
from gateway.home import Home


class Scripted(Machine):
    """A machine with these files, commands and answers."""

    def __init__(self, home: Home, files: dict[str, str] | None = None, answers: dict[str, str] | None = None) -> None:
        super().__init__(home, {"PATH": ""})
        self.files = files or {}
        self.answers = answers or {}
        self.libraries: set[str] = set()
        self.taken: set[int] = set()

    def read(self, path: str) -> str:
        return self.files.get(path, "")

    def run(self, *argv: str) -> subprocess.CompletedProcess[str] | None:
        answer = self.answers.get(Path(argv[0]).name)
        return None if answer is None else subprocess.CompletedProcess(argv, 0, answer, "")

    def has_library(self, name: str) -> bool:
        return name in self.libraries

    def is_port_free(self, port: int) -> bool:
        return port not in self.taken


@pytest.fixture
def machine(tmp_path: Path) -> Scripted:
    return Scripted(Home(tmp_path / "home"))


def test_a_gpu_is_what_its_driver_lists(machine: Scripted) -> None:
    machine.answers["nvidia-smi"] = "NVIDIA H200, 143771 MiB, 570.1\n"
    assert doctor.check_gpu(machine).detail == "NVIDIA H200, 143771 MiB, 570.1"


def test_nvcc_alone_is_no_gpu(machine: Scripted) -> None:
    machine.answers["nvcc"] = "release 12.8"
    assert doctor.check_gpu(machine).status == INFO


def test_a_driver_library_without_a_gpu(machine: Scripted) -> None:
    machine.libraries.add("libcuda.so.1")
    assert doctor.check_gpu(machine).status == WARNING


def test_memory_and_cpu(machine: Scripted) -> None:
    machine.files["/proc/meminfo"] = "MemTotal:  8388608 kB\nMemAvailable:  524288 kB\n"
    assert doctor.check_memory(machine).status == WARNING
    machine.files["/proc/cpuinfo"] = "flags\t\t: fpu avx avx2 fma\n"
    assert "avx avx2 fma" in doctor.check_cpu(machine).detail


def test_ports(machine: Scripted) -> None:
    assert doctor.check_ports(machine).status == OK
    machine.taken = {8080}
    finding = doctor.check_ports(machine)
    assert finding.status == WARNING
    assert "in use: 8080" in finding.detail


def test_a_missing_compiler_is_named_with_the_package(machine: Scripted) -> None:
    assert "apt-get install g++" in doctor.check_compiler(machine).fix


@pytest.mark.parametrize(
    ("is_gpu_build", "gpu", "status"),
    [(False, "", OK), (False, "NVIDIA H200, 1, 2\n", WARNING), (True, "NVIDIA H200, 1, 2\n", OK)],
)
def test_a_cpu_build_beside_a_gpu_is_said(
    machine: Scripted, monkeypatch: pytest.MonkeyPatch, is_gpu_build: bool, gpu: str, status: str
) -> None:
    monkeypatch.setattr(doctor, "choose_python", lambda *_: "/env/bin/python")
    machine.answers = {"python": json.dumps({"version": "0.3.36", "gpu": is_gpu_build, "system": "CPU :  AVX2 = 1"})}
    if gpu:
        machine.answers["nvidia-smi"] = gpu
    finding = doctor.check_llamacpp(machine)
    assert finding.status == status
    assert "CPU : AVX2 = 1" in finding.detail


def test_a_home_that_cannot_be_written_is_an_error_and_exit_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FORGEGATE_HOME", str(tmp_path / "file" / "home"))
    assert cli.main(["doctor", "--json"]) == 1
    findings = {finding["name"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert findings["home"]["status"] == ERROR
    assert len(findings) == len(doctor.CHECKS)


def test_the_report_counts(capsys: pytest.CaptureFixture[str]) -> None:
    text = doctor.render([doctor.Finding("a", OK, "x"), doctor.Finding("b", ERROR, "y", "do z")])
    assert text.splitlines() == ["ok       a  x", "error    b  y", "            -> do z", "1 error(s), 0 warning(s)"]


def test_what_model_folders_of_other_families_need(machine: Scripted) -> None:
    engine, trainer = (machine.home.envs / name / "bin" / "python" for name in ("llamacpp", "trainer"))
    for python, lacks in ((engine, "torch"), (trainer, "")):
        python.parent.mkdir(parents=True)
        python.write_text(f'#!/bin/sh\ncase "$*" in *torch*) echo {lacks};; esac\n')
        python.chmod(0o755)
    found = doctor.check_converter(machine)
    assert (found.status, found.detail) == (OK, f"model folders of any family that llama.cpp knows, in {trainer}")
    trainer.unlink()
    found = doctor.check_converter(machine)
    assert found.status == INFO
    assert f"{engine} has no torch; install what has it: forgegate install trainer" in found.detail
