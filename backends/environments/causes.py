"""Why pip failed, for people: one table over its output, pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

_INDEX = "give the index that pip shall use (--index-url, PIP_INDEX_URL), or a folder of wheels (--find-links)"
_CAUSES: tuple[tuple[str, str, str], ...] = (
    (r"No space left on device|Disk quota exceeded", "the disk is full",
     "free some space, or set FORGEGATE_HOME to another disk (pip builds in TMPDIR)"),
    (r"Killed signal terminated program|signal: Killed|MemoryError", "the build was killed: out of memory",
     "free some memory, or set CMAKE_BUILD_PARALLEL_LEVEL=1"),
    (r"The user requested \(constraint\)",
     "a constraint of pip's configuration excludes a pinned version",
     "see `pip config list`, or set PIP_CONSTRAINT to an empty file"),
    (r"Failed to establish a new connection|NameResolutionError|Temporary failure in name resolution|Max retries exceeded"
     r"|ReadTimeoutError|Network is unreachable|ProxyError|ConnectTimeoutError|connection error", "the package index cannot be reached",
     f"check the network and the proxy variables, or {_INDEX}"),
    (r"CERTIFICATE_VERIFY_FAILED|SSLError", "the certificate of the package index is not trusted",
     "name your certificates in PIP_CERT"),
    (r"40[13] (?:Client )?Error", "the package index refuses the login", "put the login into the index URL or ~/.netrc"),
    (r"HASHES? .*MATCH|THESE PACKAGES DO NOT MATCH THE HASHES", "a package is not what its index lists",
     "try again; `pip cache purge` if it stays"),
    (r"No CMAKE_CXX?_COMPILER could be found|unable to execute '?\S*(?:gcc|cc|g\+\+|c\+\+)"
     r"|command '\S*(?:gcc|cc|g\+\+|c\+\+)' failed: No such file", "there is no C/C++ compiler",
     "Debian, Ubuntu: apt-get install g++; Fedora: dnf install gcc-c++; macOS: xcode-select --install"),
    (r"CMAKE_CXX?_COMPILER|CMake Error|Failed building wheel|ninja: build stopped", "a package could not be built",
     "the log says where; forgegate doctor tells what this machine lacks"),
    (r"ResolutionImpossible|conflicting dependencies", "the packages contradict each other",
     "this is a fault of forgegate's pins, or of a constraint of your own"),
)  # fmt: skip
_NOT_FOUND = re.compile(r"No matching distribution found for (\S+)")
_NO_VERSION = re.compile(r"Could not find a version that satisfies the requirement (\S+)")


def diagnose(lines: Sequence[str]) -> tuple[str, str]:
    """What went wrong and what to do about it, from pip's output."""
    text = "\n".join(lines)
    for pattern, why, fix in _CAUSES:
        if re.search(pattern, text):
            return why, fix
    missing = _NOT_FOUND.search(text) or _NO_VERSION.search(text)
    if missing:
        return f"the package index offers no {missing[1]} for this Python and machine", f"{_INDEX}, or another --python"
    errors = [line.strip() for line in lines if re.search(r"\berror\b", line, re.IGNORECASE)]
    last = (errors or [line for line in lines if line.strip()] or ["it said nothing"])[-1].strip()
    return last[:300], "the log has all of it"
