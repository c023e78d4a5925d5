"""Holds an upload against all rules. Pure: it reads, and tells all that it finds at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.adapter.base import Base
from backends.adapter.config_rules import CONFIG_RULES
from backends.adapter.problem import Problem, UploadRefused, shorten
from backends.adapter.subject import ENGINES, Subject
from backends.adapter.tensor_rules import MATCHING_RULES, TENSOR_RULES
from backends.adapter.upload import CONFIG, MANIFEST, WEIGHTS, Upload
from backends.adapter.weights import Weights, read_weights

BASE_DIGEST_KEY = "forgegate.base_source_digest"
"""In the metadata of a safetensors file that our trainers write."""
_OWN_TEMPLATE = ("chat_template.jinja", "tokenizer.json", "tokenizer_config.json", "added_tokens.json")


@dataclass(frozen=True, slots=True)
class Linted:
    """An upload without faults."""

    subject: Subject
    warnings: tuple[Problem, ...]


class PatternsTooSlow(Exception):
    """Raised by a guard within which an upload's regular expressions have run for too long."""


Guard = Callable[[], AbstractContextManager[object]]


def lint(upload: Upload, base: Base, engines: Sequence[str], guard: Guard = nullcontext) -> Linted:
    """Raises UploadRefused with all problems; ValueError for an engine kind that is not known.

    The upload's own regular expressions are matched inside `guard`, which may raise PatternsTooSlow.
    """
    if unknown := sorted(set(engines) - ENGINES.keys()):
        raise ValueError(f"unknown engine kind {unknown[0]!r}; known are {', '.join(ENGINES)}")
    weights = read_weights(upload.folder / WEIGHTS)
    config = _read_object(upload.folder / CONFIG)
    if isinstance(config, Problem):
        raise UploadRefused([config, *shorten(weights.problems)])
    subject = Subject(config, weights, base, tuple(engines), _declared(upload, weights))
    found = [*_findings(subject, guard), *_beside(upload)]
    faults = [problem for problem in found if not problem.is_warning]
    if faults:
        raise UploadRefused(shorten(faults))
    return Linted(subject, tuple(shorten(found)))


def _findings(subject: Subject, guard: Guard) -> Iterable[Problem]:
    about_config = [problem for rule in CONFIG_RULES.values() for problem in rule(subject)]
    yield from about_config
    yield from subject.weights.problems
    for rule in TENSOR_RULES.values():
        yield from rule(subject)
    if any(problem.rule in ("pattern", "rank", "alpha") for problem in about_config):
        return
    try:
        with guard():
            subject.matches  # noqa: B018
    except PatternsTooSlow:
        words = "the regular expressions in adapter_config.json take too long to match"
        yield Problem("pattern", "target_modules", words, "write the modules' names out")
        return
    for rule in MATCHING_RULES.values():
        yield from rule(subject)


def _beside(upload: Upload) -> Iterable[Problem]:
    own = [name for name in upload.dropped if name.rsplit("/", 1)[-1] in _OWN_TEMPLATE]
    if own:
        words = f"it brings {', '.join(own)}, which are left out: the base's chat template and tokenizer are used"
        fix = "check that it was trained with those of the base"
        yield Problem("own-tokenizer", own[0], words, fix, is_warning=True)


def _declared(upload: Upload, weights: Weights) -> Mapping[str, str]:
    """What the upload itself says of its base: in the weights' metadata, and in a manifest that lies beside them."""
    told = {f"{BASE_DIGEST_KEY} in {WEIGHTS}": weights.metadata.get(BASE_DIGEST_KEY)}
    manifest = _read_object(upload.folder / MANIFEST) if MANIFEST in upload.digests else {}
    if not isinstance(manifest, Problem):
        base = manifest.get("base")
        told[f"base.source_digest in {MANIFEST}"] = base.get("source_digest") if isinstance(base, dict) else None
    return {where: digest for where, digest in told.items() if isinstance(digest, str)}


def _read_object(path: Path) -> dict[str, Any] | Problem:
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as exc:
        content = exc
    if isinstance(content, dict):
        return content
    why = str(content) if isinstance(content, Exception) else f"it holds a {type(content).__name__}"
    fix = "save the adapter anew with save_pretrained"
    return Problem("config", path.name, f"{path.name} is not a JSON object: {why}", fix)
