"""The running forgegate as a wheel, made without a build backend: of a checkout, or of what is installed (by its RECORD)."""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import tomllib
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from backends.environments.errors import InstallFailed

NAME = "forgegate"
WHEEL_WORDS = "Wheel-Version: 1.0\nGenerator: forgegate\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The same files give the same bytes."""
_ROOT = Path(__file__).resolve().parents[2]
_KEPT = ("METADATA", "entry_points.txt", "licenses/*")
"""Of an installed `.dist-info`; the rest is about that installation."""


@dataclass(frozen=True, slots=True)
class Package:
    version: str
    files: Mapping[str, Path]
    """Name in the wheel -> file."""
    texts: Mapping[str, str]
    """Name in the wheel -> content, for what is written anew."""
    digest: str
    """sha256 over names and contents of all of it."""
    is_checkout: bool = False
    """Then children are told to import the checkout, so that what an environment holds of forgegate need not be the newest."""


def running_package(root: Path = _ROOT) -> Package:
    """The code that runs now, `root` being the folder that holds its packages. Raises InstallFailed."""
    try:
        return _of_checkout(root) if is_checkout(root) else _of_installation(root)
    except (OSError, tomllib.TOMLDecodeError, KeyError) as exc:
        raise InstallFailed(f"forgegate's own files in {root} cannot be read: {exc}; reinstall forgegate") from exc


def is_checkout(root: Path = _ROOT) -> bool:
    try:
        return bool(_project(root)["name"] == NAME)
    except (OSError, tomllib.TOMLDecodeError, KeyError):
        return False


def write_wheel(package: Package, folder: Path) -> Path:
    """Raises OSError."""
    path = folder / f"{NAME}-{package.version}-py3-none-any.whl"
    record = f"{_info(package.version)}/RECORD"
    rows = []
    with zipfile.ZipFile(path, "w") as wheel:
        for name, content in _contents(package.files, package.texts):
            wheel.writestr(_entry(name), content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            rows.append(f"{_quoted(name)},sha256={digest},{len(content)}")
        wheel.writestr(_entry(record), "\n".join([*rows, f"{record},,", ""]))
    return path


def _contents(files: Mapping[str, Path], texts: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
    for name in sorted([*files, *texts]):
        yield name, texts[name].encode() if name in texts else files[name].read_bytes()


def _package(version: str, files: Mapping[str, Path], texts: Mapping[str, str]) -> Package:
    total = hashlib.sha256()
    for name, content in _contents(files, texts):
        total.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
    return Package(version, files, texts, f"sha256:{total.hexdigest()}")


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, EPOCH)
    entry.external_attr = 0o100644 << 16
    return entry


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"' if set(name) & set(',"') else name


def _info(version: str) -> str:
    return f"{NAME}-{version}.dist-info"


# A checkout -----------------------------------------------------------------------------------------------------------


def _project(root: Path) -> Mapping[str, object]:
    project: Mapping[str, object] = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project


def _of_checkout(root: Path) -> Package:
    content = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    project, wheel = content["project"], content["tool"]["hatch"]["build"]["targets"]["wheel"]
    hidden = tuple(pattern.strip("/") for pattern in wheel.get("exclude", ()))
    files = {
        path.relative_to(root).as_posix(): path
        for package in wheel["packages"]
        for path in sorted((root / package).rglob("*"))
        if path.is_file() and not _is_left_out(path.relative_to(root), hidden)
    }
    scripts = "".join(f"{name} = {target}\n" for name, target in project.get("scripts", {}).items())
    info = _info(project["version"])
    texts = {
        f"{info}/METADATA": _metadata_of(project),
        f"{info}/WHEEL": WHEEL_WORDS,
        f"{info}/entry_points.txt": f"[console_scripts]\n{scripts}",
    }
    return replace(_package(project["version"], files, texts), is_checkout=True)


def _is_left_out(path: Path, hidden: tuple[str, ...]) -> bool:
    if "__pycache__" in path.parts or path.suffix == ".pyc" or any(part.startswith(".") for part in path.parts):
        return True
    return any(path.is_relative_to(pattern) for pattern in hidden)


def _metadata_of(project: Mapping[str, object]) -> str:
    dependencies = project.get("dependencies", ())
    assert isinstance(dependencies, list)
    fields = [
        "Metadata-Version: 2.1",
        f"Name: {project['name']}",
        f"Version: {project['version']}",
        f"Summary: {project['description']}",
        f"Requires-Python: {project['requires-python']}",
        *(f"Requires-Dist: {dependency}" for dependency in dependencies),
    ]
    return "\n".join(fields) + "\n"


# An installation ------------------------------------------------------------------------------------------------------


def _of_installation(root: Path) -> Package:
    try:
        installed = metadata.distribution(NAME)
    except metadata.PackageNotFoundError as exc:
        raise InstallFailed(f"{root} is neither a checkout of forgegate nor an installation of it") from exc
    info = _info(installed.version)
    files = {}
    for listed in installed.files or ():
        name, path = listed.as_posix(), Path(str(installed.locate_file(listed)))
        if not name.endswith(".pyc") and not name.startswith("..") and _is_wanted(name, info):
            files[name] = path
    if "backends/__init__.py" not in files:
        raise InstallFailed(f"the RECORD of forgegate in {root} does not list its files; reinstall forgegate")
    return _package(installed.version, files, {f"{info}/WHEEL": WHEEL_WORDS})


def _is_wanted(name: str, info: str) -> bool:
    folder, _, inner = name.partition("/")
    if not folder.endswith(".dist-info"):
        return True
    return folder == info and any(fnmatch.fnmatchcase(inner, pattern) for pattern in _KEPT)
