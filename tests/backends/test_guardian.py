"""The guardian on its own."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from backends import guardian


@pytest.mark.skipif(not guardian._pids(), reason="without /proc the dead cannot be told from the living")
def test_the_dead_that_nobody_has_reaped_do_not_keep_it() -> None:
    dead = subprocess.Popen([sys.executable, "-S", "-c", ""], start_new_session=True)
    watcher = subprocess.Popen(
        [sys.executable, "-I", "-S", guardian.__file__, "no-such-run."], stdin=subprocess.PIPE, start_new_session=True
    )
    assert watcher.stdin is not None
    watcher.stdin.write(b"+%d\n" % dead.pid)
    watcher.stdin.flush()
    time.sleep(0.5)  # it has ended, and is a zombie until we wait for it
    begun = time.monotonic()
    watcher.stdin.close()
    assert watcher.wait(10) == 0
    assert time.monotonic() - begun < guardian.SWEEPS * guardian.SWEEP_PAUSE_S / 2
    assert dead.wait() == 0
