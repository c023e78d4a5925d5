"""Versions, aliases, their history and verdicts as `forgegate adapters` prints them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from backends.plan import size_words
from gateway.table import print_table

SHOWN_DIGITS = 12
"""Of a digest, enough to name it."""


def alias_row(alias: Mapping[str, Any]) -> tuple[str, ...]:
    return alias["name"], alias["model"], shares_words(alias["shares"]), alias["gate"] or "-"


def shares_words(shares: Sequence[Mapping[str, Any]]) -> str:
    if len(shares) == 1:
        return str(shares[0]["adapter"])
    total = sum(share["weight"] for share in shares) or 1
    return ", ".join(f"{share['adapter']} {share['weight'] / total:.0%}" for share in shares)


def version_row(version: Mapping[str, Any]) -> tuple[str, ...]:
    engines = ", ".join(engine["engine"] for engine in version["engines"] if engine["is_resident"]) or "-"
    return (
        version["name"],
        version["model"],
        version["state"] + (", pinned" if version["is_pinned"] else ""),
        version["proof"] or "-",
        engines,
        str(version["rank"] or "-"),
        size_words(version["size_bytes"]) if version["size_bytes"] else "-",
        _age(version["created"]),
    )


def show_alias(found: Mapping[str, Any]) -> None:
    alias = found["alias"]
    print(
        f"{alias['name']}: an alias of model {alias['model']}, serves {shares_words(alias['shares'])}{gate_words(alias['gate'])}"
    )
    for version in found["versions"]:
        print()
        _print_version(version)
    print()
    if alias["watch"]:
        print(f"watch: {watch_words(alias['watch'])}; set by {alias['watch']['who']}")
    if found["figures"]:
        print_table(("lately", "requests", "errors", "ttft"), [_figures_row(figures) for figures in found["figures"]])
        print()
    heads = ("when", "who", "change", "serves", "gate", "verdict", "reason")
    print_table(heads, [_change_row(change) for change in found["history"]])


def show_version(found: Mapping[str, Any]) -> None:
    (version,) = found["versions"]
    _print_version(version)
    serving = ", ".join(version["aliases"])
    print(f"served by: {serving}" if serving else "served by no alias")


def _print_version(version: Mapping[str, Any]) -> None:
    words = f"{version['name']}: {version['state']}, for model {version['model']}"
    if version["rank"]:
        words += f", rank {version['rank']}, {size_words(version['size_bytes'])}"
    print(f"{words}{', pinned' if version['is_pinned'] else ''}{gate_words(version['gate'])}")
    print(f"published {_time(version['created'])} by {version['who'] or 'unknown'}; digest {version['digest']}")
    if version["problem"]:
        print(f"no engine will hold it: {version['problem']}")
    if version["engines"]:
        heads = ("engine", "loaded", "proof", "detail")
        print_table(heads, [_engine_row(engine) for engine in version["engines"]])


def _engine_row(engine: Mapping[str, Any]) -> tuple[str, ...]:
    return engine["engine"], "yes" if engine["is_resident"] else "no", engine["proof"] or "-", engine["detail"] or "-"


def _change_row(change: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        _time(change["at"]),
        change["who"] or "-",
        change["kind"],
        shares_words(change["shares"]) or "-",
        change["gate"] or "-",
        _verdicts(change["verdict"], change["outcome"]) or "-",
        change["reason"] or "-",
    )


def _verdicts(digests: str, outcomes: str) -> str:
    """As `GO 1f2e3d4c5b6a`."""
    pairs = zip(outcomes.split(", "), digests.split(", "), strict=True)
    return ", ".join(f"{outcome} {short(digest)}" for outcome, digest in pairs if digest)


def short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:SHOWN_DIGITS]


def verdict_row(verdict: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        short(verdict["digest"]),
        verdict["outcome"],
        verdict["candidate"],
        shares_words(verdict["live"]) or verdict["base"],
        verdict["rule"],
        short(verdict["suite"]),
        _time(verdict["at"]),
        verdict["who"],
        "; ".join(verdict["reasons"]) or "-",
    )


def watch_words(watch: Mapping[str, Any]) -> str:
    return (
        f"goes back by itself where errors are above {watch['max_error_share']:.4g} or the median time to first byte above "
        f"{watch['max_ttft_ratio']:.4g} times that of before, from {watch['min_requests']} requests in {watch['window_s']:.4g} s"
    )


def _figures_row(figures: Mapping[str, Any]) -> tuple[str, ...]:
    num, bad, ttft_s = figures["num_requests"], figures["num_errors"], figures["ttft_s"]
    time_words = "-" if ttft_s is None else f"{ttft_s * 1000:.1f} ms"
    return figures["adapter"], str(num), f"{bad} ({bad / num:.1%})", time_words


def gate_words(gate: str) -> str:
    return f", {gate}" if gate else ""


def _time(unix_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix_s))


def _age(unix_s: float) -> str:
    seconds = max(0, int(time.time() - unix_s))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
