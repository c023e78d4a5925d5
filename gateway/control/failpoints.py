"""Places where the gateway can be told to die, so that a test can show what it leaves: FORGEGATE_FAILPOINT=<name> in its environment.

It ends itself with SIGKILL there: nothing is flushed, nobody is told. Unset, a failpoint is one comparison.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping

from gateway.exits import UsageError

VARIABLE = "FORGEGATE_FAILPOINT"
POINTS: Mapping[str, str] = {
    "publish.stored": "a new version is on the disk, the database does not know it",
    "publish.recording": "a new version is written into the open transaction",
    "publish.recorded": "a new version is durable, no worker knows it",
    "publish.proven": "a new version is proven, no alias serves it",
    "alias.moving": "half of an alias's move is written into the open transaction",
    "alias.moved": "an alias's move is durable, no worker knows it",
    "alias.told": "every worker decides by an alias's move, whoever asked for it does not know yet",
    "remove.recorded": "a version is forgotten, its files are still there",
    "reconcile.listed": "an engine said what it holds, nothing was changed there",
    "reconcile.evicted": "no worker sends requests to a version any more, its engine still holds it",
    "reconcile.loaded": "an engine holds a version that is not proven",
    "reconcile.proven": "an engine holds a version that is proven, no worker knows it",
}
"""Each stands at one place in the code."""

_chosen = os.environ.get(VARIABLE, "")


def failpoint(name: str) -> None:
    """Die here if that was asked for."""
    if name == _chosen:
        os.kill(os.getpid(), signal.SIGKILL)


def check() -> None:
    """Raises UsageError for a name that stands nowhere: a test that kills nothing shows nothing."""
    if _chosen and _chosen not in POINTS:
        raise UsageError(f"{VARIABLE}={_chosen}: no such failpoint; there are: {', '.join(POINTS)}")
