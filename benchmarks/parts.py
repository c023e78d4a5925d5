"""A campaign whose parts are kept as soon as each is measured, so that a later call goes on where the last one ended."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.adapter_program import Findings

Frame = Callable[[Mapping[str, Any]], dict[str, Any]]
"""Parts by name -> the result file's content."""


@dataclass(slots=True)
class Parts:
    """Of one result file."""

    path: Path
    frame: Frame
    found: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, frame: Frame) -> "Parts":
        """What earlier calls have measured; raises ValueError where the file is no such result."""
        if not path.exists():
            return cls(path, frame)
        try:
            return cls(path, frame, dict(json.loads(path.read_text("utf-8"))["parts"]))
        except (KeyError, TypeError, ValueError) as exc:
            raise ValueError(f"{path} holds no parts of a campaign") from exc

    def is_done(self, name: str) -> bool:
        """Measured, whatever came out."""
        return name in self.found and "error" not in self.found[name]

    def keep(self, name: str, findings: Findings, took_s: float) -> dict[str, Any]:
        """Write it down; returns the part."""
        checks = [asdict(check) for check in findings.checks]
        part = {"is_met": all(check.is_met for check in findings.checks), "checks": checks, **findings.measured}
        return self._put(name, part, took_s)

    def keep_error(self, name: str, error: str, took_s: float) -> dict[str, Any]:
        """It could not be measured; the next call tries again."""
        return self._put(name, {"is_met": False, "checks": [], "error": error}, took_s)

    def _put(self, name: str, part: dict[str, Any], took_s: float) -> dict[str, Any]:
        stamped = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "took_s": round(took_s, 1), **part}
        self.found[name] = stamped
        content = json.dumps(self.frame(self.found), indent=2, ensure_ascii=False) + "\n"
        partial = self.path.with_name(self.path.name + ".partial")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(content, "utf-8")
        partial.replace(self.path)
        return stamped
