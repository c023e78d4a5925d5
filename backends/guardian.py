"""The guardian: when its parent dies, by any death, it ends every process group that the parent started.

    control --"+<pgid>\\n" / "-<pgid>\\n"--> guardian's stdin; end of file: control is gone

It runs as `python -I -S guardian.py MARKER`, in a session of its own, on the standard library alone: it must cost next to
nothing and outlive everything. Processes that left their group (setsid) are found by the marker in their environment, where
the system shows it (/proc); the marker also covers a child that was started but not yet announced.
"""

import os
import signal
import sys
import time

MARKER_VARIABLE = "FORGEGATE_LAUNCH"
SWEEPS = 30
SWEEP_PAUSE_S = 0.05


def kill_group(pgid: int) -> bool:
    """SIGKILL a process group; whether it still had a member."""
    try:
        os.killpg(pgid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    except PermissionError:
        return False  # macOS: only zombies are left in it
    return True


def kill_marked(marker: str) -> bool:
    """SIGKILL every process whose environment carries a launch marker that starts with `marker`; whether there was one."""
    wanted = f"{MARKER_VARIABLE}={marker}".encode()
    found = False
    for pid in _pids():
        if pid != os.getpid() and any(item.startswith(wanted) for item in _environment(pid)):
            found = _kill(pid) or found
    return found


def _pids() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []


def _environment(pid: int) -> list[bytes]:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read().split(b"\0")
    except OSError:
        return []  # gone, or another user's


def _kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        return False
    return True


def watch(marker: str) -> None:
    """Follow the parent's announcements until it is gone, then end what it left."""
    groups: set[int] = set()
    for line in sys.stdin.buffer:
        pgid = int(line[1:])
        if line[:1] == b"+":
            groups.add(pgid)
        else:
            groups.discard(pgid)
    for _ in range(SWEEPS):
        had_members = [kill_group(pgid) for pgid in groups]
        # A group of the dead that nobody has reaped has members, too. No process escapes the signal by forking, so that
        # the groups need a second look only where others cannot be seen.
        if not (kill_marked(marker) or (any(had_members) and not _pids())):
            return
        time.sleep(SWEEP_PAUSE_S)


if __name__ == "__main__":
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    watch(sys.argv[1])
