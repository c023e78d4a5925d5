"""A pull that is killed at random points, and gone on with: a file is whole or absent.

    python -m tests.backends.hub.campaign --kills 300 --seed 1

Each round: `forgegate models pull` is started as a user starts it, against a hub on this machine, and gets SIGKILL at a point drawn
from the seed: after a drawn number of bytes was sent, or (a third of the rounds) a drawn moment later, which reaches the end of
files, checksums, renames and the manifest. After each kill every file under its final name is held against what the hub has. When a
pull ends by itself, the model is compared, removed, and begun anew.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from backends.hub.choice import INDEX
from backends.hub.names import parse_name
from backends.hub.pulled import find_pulled
from backends.hub.store import Store
from tests.hub_server import HubServer, Pause

ROOT = Path(__file__).resolve().parents[3]
NAMES = ("o/split:Q8_0", "o/folder", "o/single")
LATER_S = 0.1


def make_hub(hub: HubServer, draw: random.Random, scale: int) -> None:
    """Three models, `scale` bytes their unit."""
    parts = {f"big-Q8_0-0000{number}-of-00003.gguf": draw.randbytes(2 * scale) for number in (1, 2, 3)}
    hub.add("o/split", {**parts, "big-Q4_0.gguf": draw.randbytes(100)})
    shards = {f"model-0000{number}-of-00002.safetensors": draw.randbytes(3 * scale) for number in (1, 2)}
    index = {"weight_map": {f"w{number}": name for number, name in enumerate(shards)}}
    small = {"config.json": b"{}", "tokenizer.json": draw.randbytes(scale // 4), INDEX: json.dumps(index).encode()}
    hub.add("o/folder", {**small, **shards})
    hub.add("o/single", {"m-Q4_K_M.gguf": draw.randbytes(5 * scale)})


@dataclass
class Tally:
    num_kills: int = 0
    num_rounds: int = 0
    num_whole_models: int = 0
    num_whole_files: int = 0
    """Found under final names after kills."""
    stages: Counter[str] = field(default_factory=Counter)
    """What lay on disk when it was killed."""
    sent_bytes: int = 0
    needed_bytes: int = 0
    """Of the models that came whole."""
    elapsed_s: float = 0.0


class Campaign:
    def __init__(self, hub: HubServer, home: Path, draw: random.Random) -> None:
        self._hub = hub
        self._home = home
        self._draw = draw
        self._store = Store(home / "models" / "hub")
        self.tally = Tally()

    def run(self, num_kills: int) -> Tally:
        """Raises AssertionError at the first file that is neither whole nor absent."""
        start = time.monotonic()
        while self.tally.num_kills < num_kills:
            self._round(self._draw.choice(NAMES))
        self._hub.pause = None
        for name in NAMES:
            assert self._start(name).wait(60) == 0, name
            self._compare(name)
        self.tally.elapsed_s = time.monotonic() - start
        self.tally.sent_bytes = self._hub.sent_bytes
        return self.tally

    def _round(self, name: str) -> None:
        self.tally.num_rounds += 1
        if find_pulled(self._store, parse_name(name)) is not None:  # killed when all was done
            self._compare(name, is_tidy=False)
            self._remove(name)
        missing_bytes = self._missing_bytes(name)
        is_late = missing_bytes == 0 or self._draw.random() < 1 / 3
        pause = Pause(max(0, missing_bytes - 1) if is_late else self._draw.randrange(missing_bytes))
        self._hub.pause = pause
        process = self._start(name)
        while not pause.has_begun.is_set() and process.poll() is None:
            pause.has_begun.wait(0.01)
        if is_late:
            pause.resumes.set()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(self._draw.uniform(0, LATER_S))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait()
            self.tally.num_kills += 1
            self._look(name)
            return
        assert process.returncode == 0, name
        self._compare(name)
        self._remove(name)

    def _missing_bytes(self, name: str) -> int:
        """What the next pull will ask for, index files that are read twice left aside."""
        for shelf, held in self._store.find_any(parse_name(name)):
            return held.num_bytes - shelf.present_bytes(held)
        repo = self._hub.repos[parse_name(name).repo]
        return sum(len(body) for path, body in repo.commits[repo.branches["main"]].items() if "Q4_0" not in path)

    def _start(self, name: str) -> subprocess.Popen[bytes]:
        env = {
            **os.environ,
            "FORGEGATE_HOME": str(self._home),
            "HF_ENDPOINT": self._hub.url,
            "HF_HOME": str(self._home),
        }
        return subprocess.Popen(
            [sys.executable, "-m", "gateway", "models", "pull", name, "--json"], cwd=ROOT, env=env, stdout=subprocess.DEVNULL
        )  # fmt: skip

    def _look(self, name: str) -> None:
        """After a kill."""
        repo = self._hub.repos[parse_name(name).repo]
        (commit,) = repo.commits
        shelves = [shelf for shelf in self._store.shelves() if shelf.name.startswith(repo.name + ":")]
        found = [path for shelf in shelves for path in (shelf.folder / commit[:12]).rglob("*") if path.is_file()]
        for path in found:
            assert path.read_bytes() == repo.commits[commit][path.name], f"{path} is neither whole nor absent"
        self.tally.num_whole_files += len(found)
        parts = [path.stat().st_size for shelf in shelves for path in shelf.partials.glob("*.part")]
        is_whole = any(shelf.manifest is not None for shelf in shelves)
        stage = "whole" if is_whole else "in a file" if any(parts) else "between files" if found else "at the start"
        self.tally.stages[stage] += 1

    def _compare(self, name: str, is_tidy: bool = True) -> None:
        found = find_pulled(self._store, parse_name(name))
        assert found is not None, name
        shelf, held = found
        body_of = self._hub.repos[held.repo].commits[held.commit]
        for file in held.files:
            assert shelf.path_of(held, file).read_bytes() == body_of[file.path], file.path
        assert not is_tidy or not shelf.partials.exists(), "parts were left"
        self.tally.num_whole_models += 1
        self.tally.needed_bytes += held.num_bytes

    def _remove(self, name: str) -> None:
        for shelf, _ in self._store.find_any(parse_name(name)):
            with shelf.locked():
                shelf.remove()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scale", type=int, default=400_000, help="bytes; the models have 5 to 6 of them")
    args = parser.parse_args()
    draw = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder, HubServer() as hub:
        make_hub(hub, draw, args.scale)
        tally = Campaign(hub, Path(folder), draw).run(args.kills)
    print(
        f"{tally.num_kills} kills in {tally.num_rounds} pulls, {tally.num_whole_models} models whole at their end, "
        f"{tally.num_whole_files} whole files found after kills, none damaged; {tally.elapsed_s:.0f} s\n"
        f"killed: {', '.join(f'{stage} {count}' for stage, count in tally.stages.most_common())}\n"
        f"sent {tally.sent_bytes / 1e6:.1f} MB for {tally.needed_bytes / 1e6:.1f} MB of models"
    )


if __name__ == "__main__":
    main()
