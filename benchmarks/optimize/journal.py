"""The work folder of a search: every load and every launch that was measured, a line each, so that a second call goes on.

journal.jsonl   its first line says what is searched; a search for anything else is refused
lock            held while somebody works in the folder
"""

import fcntl
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from benchmarks.optimize.quality import Reference
from benchmarks.optimize.settings import Setting
from benchmarks.optimize.trial import Probe, Trial, probe_of, trial_of

FORMAT = 1
_NAME = "journal.jsonl"
_FIRST_LINE = 2
"""Of what was measured: the one before says what is searched."""


class JournalError(RuntimeError):
    """The folder cannot be used: it belongs to another search, or somebody works in it."""


class Journal:
    """Opened by `opened`; whole lines only, written through at once. Raises JournalError for lines that it never wrote."""

    def __init__(self, path: Path, lines: list[dict[str, Any]]) -> None:
        self._path = path
        self.spent_s = 0.0
        """Of the budget, by all calls so far that left a line."""
        self.reference: Reference | None = None
        self._trials: dict[str, Trial] = {}
        self._spent_s: dict[str, float] = {}
        self._judged: dict[Setting, int] = {}
        """In the order in which they were judged."""
        self._probes: dict[tuple[str, float], Probe] = {}
        for number, line in enumerate(lines, start=_FIRST_LINE):
            try:
                self._take(line)
            except (KeyError, TypeError, ValueError, AttributeError) as exc:
                raise JournalError(_not_ours(path, number, repr(exc))) from exc

    @property
    def num_trials(self) -> int:
        """That have ended."""
        return len(self._trials)

    def spent_until(self, stages: Collection[str]) -> float:
        """When the last trial of these stages ended, in seconds of the budget: a second call then plans as the first one did."""
        return max((self._spent_s[key] for key, trial in self._trials.items() if trial.stage in stages), default=0.0)

    def trial(self, key: str) -> Trial | None:
        """One that has ended."""
        return self._trials.get(key)

    def probe(self, key: str, load: float) -> Probe | None:
        """One load of a trial, ended or not."""
        return self._probes.get((key, load))

    def add_trial(self, key: str, trial: Trial, spent_s: float) -> None:
        self._add({"kind": "trial", "key": key, "spent_s": spent_s, "data": trial.as_dict()})

    def add_probe(self, key: str, probe: Probe, spent_s: float) -> None:
        self._add({"kind": "probe", "key": key, "spent_s": spent_s, "data": probe})

    def num_judged_pairs(self, setting: Setting) -> int | None:
        """By how many pairs a candidate was judged; None where it was not."""
        return self._judged.get(setting)

    def num_judged_before(self, setting: Setting) -> int:
        """Other candidates that were judged before this one."""
        return list(self._judged).index(setting) if setting in self._judged else len(self._judged)

    def add_judged(self, setting: Setting, num_pairs: int, spent_s: float) -> None:
        self._add({"kind": "judged", "spent_s": spent_s, "data": {"setting": setting.options, "num_pairs": num_pairs}})

    def add_reference(self, reference: Reference, spent_s: float) -> None:
        self._add({"kind": "reference", "spent_s": spent_s, "data": reference})

    def _add(self, line: dict[str, Any]) -> None:
        data = orjson.dumps(line)
        with self._path.open("ab") as file:
            file.write(data + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._take(orjson.loads(data))

    def _take(self, line: Mapping[str, Any]) -> None:
        self.spent_s = max(self.spent_s, line["spent_s"])
        data = line["data"]
        if line["kind"] == "trial":
            self._trials[line["key"]] = trial_of(data)
            self._spent_s[line["key"]] = line["spent_s"]
        elif line["kind"] == "probe":
            probe = probe_of(data)
            self._probes[line["key"], probe.load] = probe
        elif line["kind"] == "judged":
            self._judged[Setting.of(data["setting"])] = int(data["num_pairs"])
        else:
            self.reference = _reference_of(data)


@contextmanager
def opened(folder: Path, search: Mapping[str, Any]) -> Iterator[Journal]:
    """Make or go on with the folder of this search. Raises JournalError; OSError where nothing can be written."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            raise JournalError(
                f"{folder}: another forgegate optimize works in it; name another folder by --work"
            ) from exc
        path = folder / _NAME
        head = {"format": FORMAT, **orjson.loads(orjson.dumps(search))}
        lines = _read(path)
        if not lines:
            path.write_bytes(orjson.dumps(head) + b"\n")
        elif lines[0] != head:
            raise JournalError(_other_search(folder, lines[0], head))
        yield Journal(path, lines[1:])


def _read(path: Path) -> list[dict[str, Any]]:
    """Whole lines; what a kill left of the last one is cut off."""
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        os.truncate(path, len(whole))
    try:
        lines = [orjson.loads(line) for line in whole.splitlines()]
    except orjson.JSONDecodeError as exc:
        raise JournalError(
            f"{path}: not a journal of forgegate optimize ({exc}); name another folder by --work"
        ) from exc
    for number, line in enumerate(lines, start=1):
        if not isinstance(line, dict):
            raise JournalError(_not_ours(path, number, f"{line!r} is no object"))
    return lines


def _not_ours(path: Path, number: int, why: str) -> str:
    return f"{path}: line {number} is not as forgegate optimize writes it ({why}); remove that line, or name another folder by --work"


def _other_search(folder: Path, known: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    name = next(name for name in {**known, **asked} if known.get(name) != asked.get(name))
    return (
        f"{folder} holds another search: its {name} is {_shown(known.get(name))}, not {_shown(asked.get(name))}; name "
        "another folder by --work, or remove this one"
    )


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _reference_of(data: Mapping[str, Any]) -> Reference:
    logprobs = data["logprobs"]
    return Reference(tuple(data["prompts"]), tuple(data["answers"]), logprobs and tuple(tuple(one) for one in logprobs))
