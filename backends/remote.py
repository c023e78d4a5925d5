"""An engine that somebody else runs: any OpenAI-compatible URL. It is probed and routed to, never started."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from backends.base import (
    ENDPOINTS,
    Address,
    BackendDefaults,
    Facts,
    Fetch,
    Identity,
    LaunchSpec,
    Load,
    Places,
    PoolSpec,
    Reply,
    Tell,
    untold,
)
from backends.errors import BadSpec
from backends.restart import RestartPolicy
from backends.status import Timing

if TYPE_CHECKING:
    from backends.process import Launcher

DEFAULT_CAPABILITIES = ("chat", "completions")


class Remote(BackendDefaults):
    kind = "remote"
    title = "remote"
    ready_path = "/v1/models"
    timing = Timing(start_timeout_s=5.0, start_poll_s=0.5, probe_interval_s=5.0, stop_grace_s=0.0)
    # Nothing of ours can mend it, so it is asked for as long as it is configured.
    policy = RestartPolicy(first_delay_s=1.0, max_delay_s=15.0, max_early_deaths=None)
    adapters = None  # files here cannot be loaded there

    def __init__(self, spec: PoolSpec, places: Places) -> None:
        self._spec = spec
        self._address = parse_base_url(spec.base_url or "")
        unknown = sorted(set(spec.capabilities) - set(ENDPOINTS))
        if unknown:
            raise BadSpec([f"capabilities: {', '.join(unknown)} unknown; known: {', '.join(ENDPOINTS)}"])
        self.capabilities = spec.capabilities or DEFAULT_CAPABILITIES

    def check(self, tell: Tell = untold) -> str:
        return f"remote engine at {self._address.url}/v1"

    def plan(self, taken: Mapping[str, int]) -> None:
        return None

    async def prepare(self, launcher: Launcher, tell: Tell) -> Identity:
        return Identity()

    def launch(self, port: int) -> LaunchSpec | None:
        return None

    def address(self, port: int) -> Address:
        return self._address

    def secret_for(self, launch_secret: str) -> str:
        return self._spec.api_key

    def refusal(self, reply: Reply) -> str:
        return f"{self._address.url} refuses the api_key ({reply.status})" if reply.status in (401, 403) else ""

    async def inspect(self, fetch: Fetch) -> Facts:
        models = listed_models(await fetch("/v1/models"))
        bases = [model for model in models if not model.get("parent")]
        name = self._spec.model or (str(bases[0].get("id", "")) if len(bases) == 1 else self._spec.served_name)
        listed = next((model for model in models if model.get("id") == name), {})
        length = listed.get("max_model_len")
        return Facts(
            description=f"remote {self._address.url}",
            context_length=length if isinstance(length, int) else None,
            model=name,
            capabilities=self._spec.capabilities or listed_capabilities(listed),
        )

    async def load(self, fetch: Fetch) -> Load | None:
        return None


def listed_models(reply: Reply) -> list[dict[str, Any]]:
    """The model objects of a `/v1/models` answer; what is not one is left out."""
    try:
        data = msgspec.json.decode(reply.body).get("data", [])
    except (msgspec.DecodeError, AttributeError):
        return []
    return [item for item in data if isinstance(item, dict)] if isinstance(data, list) else []


def listed_capabilities(model: dict[str, Any]) -> tuple[str, ...]:
    """What a model object says that it answers. Engines of ours and other forgegates say it; where others have a list of that
    name it is of something else, and says nothing here.
    """
    found = model.get("capabilities")
    names = tuple(item for item in found if isinstance(item, str)) if isinstance(found, list) else ()
    return names if any(name in ENDPOINTS for name in names) else ()


def parse_base_url(text: str) -> Address:
    """`https://host[:port][/prefix][/v1]`. Raises BadSpec."""
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError as exc:
        raise BadSpec([f"base_url: {text!r}: {exc}"]) from exc
    if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment or url.username:
        raise BadSpec([f"base_url: expected http(s)://host[:port][/path], got {text!r}"])
    is_tls = url.scheme == "https"
    path = url.path.rstrip("/").removesuffix("/v1")
    return Address(url.hostname, port or (443 if is_tls else 80), is_tls, path)
