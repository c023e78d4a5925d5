"""One file of a repository: asked for, resumed, asked for again, until it is whole and right."""

from __future__ import annotations

import random
from pathlib import Path

from backends.hub.client import Body, HubClient, RangeRefused
from backends.hub.errors import Corrupt, Transient, Unreachable
from backends.hub.events import Advanced, Checking, Downloading, Retrying, Stored, Tell
from backends.hub.listing import RemoteFile
from backends.hub.partial import Partial
from backends.hub.retry import Backoff

HEADWAY_BYTES = 1 << 20
"""An attempt that brought so much starts the count of failures anew."""
FILES = Backoff(max_failures=8)
"""Outlives a network that is away for more than a minute."""
MAX_WRONG = 2
"""So often the whole file may turn out wrong."""


class Download:
    """Fetches files of one commit into one folder for partial files."""

    def __init__(
        self, client: HubClient, repo: str, commit: str, partials: Path, tell: Tell, backoff: Backoff = FILES
    ) -> None:
        self._client = client
        self._repo = repo
        self._commit = commit
        self._partials = partials
        self._tell = tell
        self._backoff = backoff

    def fetch(self, file: RemoteFile, target: Path) -> None:
        """Until `target` is there, whole and checked. Raises HubError; then what came so far stays, and the next call goes on."""
        with Partial(self._partials, file) as partial:
            if partial.present_bytes:
                self._tell(Checking(file.path, partial.present_bytes))
                partial.take_in()
            num_wrong = 0
            while not self._complete(partial):
                num_wrong += 1
                fault = f"{file.path} came whole, but {partial.fault}"
                partial.restart()
                if num_wrong >= MAX_WRONG:
                    raise Corrupt(f"{fault}; it was fetched {num_wrong} times and is not kept")
                self._tell(Retrying(file.path, fault, 0.0))
            partial.become(target)
        self._tell(Stored(file.path, file.size_bytes))

    def _complete(self, partial: Partial) -> bool:
        """All its bytes are here; whether they are right."""
        failures, best = 0, partial.num_bytes
        while not partial.is_full:
            try:
                self._receive(partial)
            except Transient as exc:
                # Headway is what no attempt before has reached: a server that begins anew each time is given up, too.
                failures = 1 if partial.num_bytes - best >= HEADWAY_BYTES else failures + 1
                best = max(best, partial.num_bytes)
                if isinstance(exc, RangeRefused):
                    partial.restart()
                self._wait(partial, failures, exc)
        return partial.is_right

    def _receive(self, partial: Partial) -> None:
        """What one answer brings. Raises HubError."""
        file = partial.file
        self._tell(Downloading(file.path, file.size_bytes, partial.num_bytes))
        with self._client.open(self._repo, self._commit, file, partial.num_bytes, partial.etag) as body:
            if body.start != partial.num_bytes:
                partial.restart()  # it does not do ranges, or has other content than before
                self._tell(Retrying(file.path, "the server sends the file from its beginning", 0.0))
            partial.note_etag(body.etag)
            self._take(body, partial)
        if partial.num_bytes < body.end:
            raise Transient(f"the answer ended after {partial.num_bytes:,} of {file.size_bytes:,} bytes")

    def _take(self, body: Body, partial: Partial) -> None:
        for chunk in body.chunks:
            if partial.num_bytes + len(chunk) > body.end:
                partial.restart()
                raise Corrupt(
                    f"{partial.file.path}: the server sends more than the {body.end:,} bytes that it announced"
                )
            partial.write(chunk)
            self._tell(Advanced(partial.file.path, partial.num_bytes))

    def _wait(self, partial: Partial, failures: int, exc: Transient) -> None:
        """Before the next attempt. Raises Unreachable when there should be none."""
        delay_s = self._backoff.delay_s(failures, exc.retry_after_s, random.random)
        if delay_s is None:
            raise Unreachable(
                f"{partial.file.path}: {exc}; gave up after {failures} attempts in a row, {partial.num_bytes:,} of "
                f"{partial.file.size_bytes:,} bytes are here: the next pull goes on from there"
            ) from exc
        self._tell(Retrying(partial.file.path, str(exc), delay_s))
        self._client.sleep(delay_s)
