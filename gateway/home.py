"""Where things live: $FORGEGATE_HOME, by default ~/.local/share/forgegate.

admin-token     0600, made at first start
models/         derived model files
models/hub/     models pulled from a hub
adapters/       versions of adapters, by digest
forgegate.db    which of them there are, which alias serves which, and who changed that
benchmarks/     runs that the admin API started, and what they found
envs/           one environment per engine, and the trainer's: links to those in use, made by `forgegate install`
tools/          programs of others, fetched at first use: llama.cpp's converter
logs/           <engine>.log, worker-<n>.log, install-<environment>.log, crash-*.log
run/            serve.lock and serve.json of the control process that owns this home
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from gateway.exits import CommandError

VARIABLE = "FORGEGATE_HOME"


class HomeError(CommandError):
    """The home cannot be used: not writable, full, or owned by another running forgegate."""


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What a running `forgegate serve` leaves for the other commands."""

    pid: int
    url: str
    admin_url: str


@dataclass(frozen=True, slots=True)
class Home:
    root: Path

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Home:
        chosen = env.get(VARIABLE)
        return cls(Path(chosen).expanduser().absolute() if chosen else Path("~/.local/share/forgegate").expanduser())

    @property
    def token_file(self) -> Path:
        return self.root / "admin-token"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def hub(self) -> Path:
        return self.models / "hub"

    @property
    def adapters(self) -> Path:
        return self.root / "adapters"

    @property
    def database(self) -> Path:
        return self.root / "forgegate.db"

    @property
    def benchmarks(self) -> Path:
        return self.root / "benchmarks"

    @property
    def envs(self) -> Path:
        return self.root / "envs"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def run(self) -> Path:
        return self.root / "run"

    def ensure(self) -> None:
        """Make the folders and try to write. Raises HomeError."""
        try:
            for folder in (self.root, self.models, self.logs, self.run):
                folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.run) as file:
                file.write(b"\0" * 4096)
                file.flush()
        except OSError as exc:
            raise self._cannot(exc) from exc

    def admin_token(self) -> str:
        """The admin token, made at first use, readable by its owner only. Raises HomeError."""
        try:
            token = self.read_token()
            return token or self._make_token()
        except OSError as exc:
            raise self._cannot(exc) from exc

    def read_token(self) -> str:
        """Empty where there is none yet."""
        try:
            return self.token_file.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return ""

    def lock(self) -> int:
        """Become the one control process of this home, for as long as the returned descriptor is open. Raises HomeError."""
        fd = os.open(self.run / "serve.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            os.close(fd)
            other = self.running()
            where = f" (pid {other.pid}, {other.url})" if other else ""
            raise HomeError(
                f"forgegate is already running with home {self.root}{where}; stop it, or set {VARIABLE} to another folder"
            ) from exc
        return fd

    def running(self) -> RunInfo | None:
        """The running `forgegate serve` of this home, if there is one."""
        try:
            info = RunInfo(**json.loads((self.run / "serve.json").read_bytes()))
            os.kill(info.pid, 0)
        except (OSError, ValueError, TypeError):
            return None
        return info

    def announce(self, info: RunInfo) -> None:
        """Leave `info` for the other commands. Raises HomeError."""
        try:
            _write_private(self.run / "serve.json", json.dumps(asdict(info)))
        except OSError as exc:
            raise self._cannot(exc) from exc

    def withdraw(self) -> None:
        (self.run / "serve.json").unlink(missing_ok=True)

    def _make_token(self) -> str:
        token = f"fga-{secrets.token_urlsafe(32)}"
        _write_private(self.token_file, token + "\n")
        return token

    def _cannot(self, exc: OSError) -> HomeError:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            return HomeError(
                f"the disk is full: nothing can be written to {self.root}; free some space or set {VARIABLE}"
            )
        return HomeError(
            f"{exc.filename or self.root} cannot be written ({exc.strerror or exc}); set {VARIABLE} to a folder that can"
        )


def _write_private(path: Path, text: str) -> None:
    """Whole or not at all, and never readable by others, not even for a moment."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(name, path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
