"""The gateway that runs on this machine, by what `forgegate serve` left in its home; or one that is named."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from finetune.errors import RecipeUnusable
from finetune.recipe.folders import home_of

URL = "FORGEGATE_URL"
TOKEN, KEY = "FORGEGATE_ADMIN_TOKEN", "FORGEGATE_API_KEY"


@dataclass(frozen=True, slots=True)
class Gateway:
    """`url` is where clients ask, `admin_url` where versions are published."""

    url: str
    admin_url: str
    token: str = field(repr=False)


def find(admin_url: str | None = None, token: str | None = None, env: Mapping[str, str] = os.environ) -> Gateway:
    """What is not given is taken from the environment, else from the gateway that runs here. Raises RecipeUnusable."""
    home = home_of(env)
    here = running(home)
    is_here = here is not None and admin_url in (None, here["admin_url"])
    found_admin = admin_url or (here or {}).get("admin_url", "")
    if not found_admin:
        raise RecipeUnusable(
            f"no forgegate is running with home {home}: start one with `forgegate serve`, or name one with --url and its token in {TOKEN}"
        )
    found_url = env.get(URL) or (here["url"] if is_here and here else "")
    if not found_url:
        raise RecipeUnusable(
            f"where do clients reach the gateway of {found_admin}? Say it in {URL}, as http://gpu-1:8080"
        )
    found_token = token or env.get(TOKEN) or (_token(home) if is_here else "")
    if not found_token:
        raise RecipeUnusable(
            f"no admin token for {found_admin}: set {TOKEN} to what that gateway's admin-token file holds"
        )
    return Gateway(_address(found_url), _address(found_admin), found_token)


def endpoint(url: str, env: Mapping[str, str] = os.environ) -> tuple[str, str]:
    """Where a client asks, and its key, empty for none: the admin token, which also reaches candidates, where it is known.

    Only the gateway that runs here is shown the token of this home. Raises RecipeUnusable.
    """
    home = home_of(env)
    here = running(home)
    found = (url or env.get(URL) or (here["url"] if here else "")).rstrip("/").removesuffix("/v1")
    if not found:
        raise RecipeUnusable(f"no forgegate is running with home {home}: name the endpoint with --url, or in {URL}")
    own = _token(home) if here and here["url"] == found else ""
    return _address(found), env.get(TOKEN) or env.get(KEY) or own


def running(home: Path) -> dict[str, str] | None:
    """Its `url` and `admin_url`; None where none runs."""
    try:
        told = json.loads((home / "run" / "serve.json").read_bytes())
        os.kill(int(told["pid"]), 0)
        return {"url": str(told["url"]), "admin_url": str(told["admin_url"])}
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _address(url: str) -> str:
    """As it is. Raises RecipeUnusable where no client could ask there."""
    try:
        found = urlsplit(url)
        is_one = found.scheme in ("http", "https") and bool(found.hostname) and found.port != 0
    except ValueError:  # a port that is no number, brackets that stay open
        is_one = False
    if not is_one:
        raise RecipeUnusable(f"{url} is no address: write it as http://gpu-1:8080")
    return url


def _token(home: Path) -> str:
    """Empty where it cannot be read."""
    try:
        return (home / "admin-token").read_text(encoding="utf-8").strip()
    except OSError:
        return ""
