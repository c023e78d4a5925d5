"""A small client of /admin/v1, for the command line, the trainer and tests."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from backends.adapter.pack import Pack, pack
from backends.errors import AdminError

TIMEOUT_S = 10.0
CHANGE_TIMEOUT_S = 660.0
"""Of what loads an adapter on engines and proves it there."""
BENCHMARK_TIMEOUT_S = 60.0
"""Of what waits for the first word of a benchmark, or for its end."""
SILENCE_S = 60.0
"""A publication tells every few seconds that it goes on."""
Sent = Callable[[int, int], None]
"""Takes the bytes sent so far, and all that there are."""


class ProofNegative(AdminError):
    """The adapter was taken, and engines were found not to serve it: a verdict, not a mistake of the caller."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message, status)
        self.exit_code = 1


class AdminClient:
    """Blocking; every method raises AdminError when the gateway cannot be reached or refuses."""

    def __init__(self, url: str, token: str, transport: httpx.BaseTransport | None = None) -> None:
        self._url = url
        self._client = httpx.Client(
            base_url=url,
            headers={"authorization": f"Bearer {token}"},
            timeout=TIMEOUT_S,
            transport=transport,
            trust_env=False,
        )

    def engines(self) -> list[dict[str, Any]]:
        return self._list("/admin/v1/engines")

    def models(self) -> list[dict[str, Any]]:
        return self._list("/admin/v1/models")

    def logs(self, engine_id: str, num_lines: int) -> list[str]:
        """The newest lines, oldest first."""
        reply = self._call("GET", f"/admin/v1/engines/{_segment(engine_id)}/logs", params={"lines": num_lines})
        return [str(line) for line in reply["lines"]]

    def restart(self, engine_id: str) -> dict[str, Any]:
        return self._command(engine_id, "restart")

    def drain(self, engine_id: str) -> dict[str, Any]:
        """It takes no new requests from here on; it stops by and by."""
        return self._command(engine_id, "drain")

    def sleep(self, engine_id: str, level: int) -> dict[str, Any]:
        """It takes no new requests from here on; it falls asleep by and by."""
        return self._command(engine_id, "sleep", level=level)

    def wake(self, engine_id: str) -> dict[str, Any]:
        """It is on its way."""
        return self._command(engine_id, "wake")

    def _command(self, engine_id: str, name: str, **params: int) -> dict[str, Any]:
        return self._call("POST", f"/admin/v1/engines/{_segment(engine_id)}/{name}", params=params)

    def tune(
        self, engine_id: str, order: Mapping[str, Any], on_event: Callable[[dict[str, Any]], None] = lambda _: None
    ) -> dict[str, Any]:
        """Measure an engine's speculation and follow that; returns the last event. Whoever leaves ends it."""
        path = f"/admin/v1/engines/{_segment(engine_id)}/tune"
        with self._reaching():
            request = self._client.build_request("POST", path, json=dict(order), timeout=SILENCE_S)
            return self._followed(request, "tuned", on_event)

    # Adapters ---------------------------------------------------------------------------------------------------------

    def publish(
        self,
        folder: Path,
        name: str,
        *,
        model: str = "",
        who: str = "",
        is_candidate_only: bool = False,
        force: str = "",
        on_event: Callable[[dict[str, Any]], None] = lambda _: None,
        on_sent: Sent = lambda *_: None,
    ) -> dict[str, Any]:
        """Send the adapter in `folder` and follow its way; returns the last event. Raises NotAnAdapter, before anything is sent."""
        packed = pack(folder)
        given = {"name": name, "model": model, "who": who, "force": force}
        params = {key: value for key, value in given.items() if value}
        if is_candidate_only:
            params["candidate_only"] = "true"
        headers = {"content-type": "application/x-tar", "content-length": str(packed.num_bytes)}
        with self._reaching():
            request = self._client.build_request(
                "POST", "/admin/v1/adapters", params=params, headers=headers, content=_told(packed, on_sent),
                timeout=httpx.Timeout(TIMEOUT_S, read=SILENCE_S, write=SILENCE_S),
            )  # fmt: skip
            return self._followed(request, "published", on_event)

    def adapters(self) -> list[dict[str, Any]]:
        """Every version."""
        return self._list("/admin/v1/adapters")

    def adapter(self, name: str) -> dict[str, Any]:
        """A version, or an alias with its versions and history."""
        return self._call("GET", f"/admin/v1/adapters/{_segment(name)}")

    def change_adapter(self, version: str, action: str) -> dict[str, Any]:
        """`pin`, `unpin` or `unload` it."""
        return self._call("POST", f"/admin/v1/adapters/{_segment(version)}/{action}", timeout=CHANGE_TIMEOUT_S)

    def remove_adapter(self, version: str) -> dict[str, Any]:
        return self._call("DELETE", f"/admin/v1/adapters/{_segment(version)}", timeout=CHANGE_TIMEOUT_S)

    def aliases(self) -> list[dict[str, Any]]:
        return self._list("/admin/v1/aliases")

    def point(
        self, alias: str, shares: Mapping[str, int], who: str = "", force: str = "", verdict: str = "", reason: str = ""
    ) -> dict[str, Any]:
        """Flip to the one version, or split over several by weight; returns once every worker decides so.

        `verdict`: digest of the one that allows it; else the gateway looks for one that fits. `force`: a reason to do without.
        """
        body: dict[str, Any] = {
            "shares": [{"adapter": name, "weight": weight} for name, weight in shares.items()],
            "who": who,
            "force": force,
        }
        body |= {key: value for key, value in (("reason", reason), ("verdict", verdict)) if value}
        return self._call("PUT", f"/admin/v1/aliases/{_segment(alias)}", json=body, timeout=CHANGE_TIMEOUT_S)

    def rollback(self, alias: str, who: str = "") -> dict[str, Any]:
        """To what it served before."""
        return self._call(
            "POST", f"/admin/v1/aliases/{_segment(alias)}/rollback", json={"who": who}, timeout=CHANGE_TIMEOUT_S
        )

    def remove_alias(self, alias: str, who: str = "") -> dict[str, Any]:
        return self._call("DELETE", f"/admin/v1/aliases/{_segment(alias)}", params={"who": who} if who else {})

    def watch(self, alias: str, rule: Mapping[str, float], who: str = "") -> dict[str, Any]:
        """Roll it back by itself where the rule (max_error_share, max_ttft_ratio, min_requests, window_s) is broken; returns the alias."""
        return self._call("POST", f"/admin/v1/aliases/{_segment(alias)}/watch", json={**rule, "who": who})

    def unwatch(self, alias: str) -> dict[str, Any]:
        return self._call("POST", f"/admin/v1/aliases/{_segment(alias)}/unwatch")

    # Verdicts and votes -----------------------------------------------------------------------------------------------

    def add_verdict(self, document: Mapping[str, Any]) -> str:
        """Its digest, `sha256:<hex>`. The same document twice is one verdict."""
        return str(self._call("POST", "/admin/v1/verdicts", json=dict(document))["digest"])

    def verdicts(self, candidate: str = "") -> list[dict[str, Any]]:
        """Newest first, each with its `digest` and its `document`; of one version, or all."""
        return self._list("/admin/v1/verdicts", {"candidate": candidate} if candidate else {})

    def add_vote(
        self, session: str, candidate: str, live: str, prompt_digest: str, choice: str, who: str = ""
    ) -> dict[str, Any]:
        """`choice`: `candidate`, `live` or `tie`. A later vote of the same session on the same prompt takes its place."""
        body = {
            "session": session, "candidate": candidate, "live": live, "prompt_digest": prompt_digest, "choice": choice,
            "who": who,
        }  # fmt: skip
        return self._call("POST", "/admin/v1/votes", json=body)

    def votes(self, candidate: str = "", live: str = "", session: str = "") -> list[dict[str, Any]]:
        """Oldest first; those that fit what is named."""
        given = {"candidate": candidate, "live": live, "session": session}
        return self._list("/admin/v1/votes", {key: value for key, value in given.items() if value})

    # Benchmarks -------------------------------------------------------------------------------------------------------

    def start_benchmark(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """The run, under way; `order` names the model."""
        return self._call("POST", "/admin/v1/benchmarks", json=dict(order), timeout=BENCHMARK_TIMEOUT_S)

    def benchmarks(self) -> list[dict[str, Any]]:
        """Newest first."""
        return self._list("/admin/v1/benchmarks")

    def benchmark(self, run_id: str) -> dict[str, Any]:
        """How far it is, or what came of it."""
        return self._call("GET", f"/admin/v1/benchmarks/{_segment(run_id)}")

    def benchmark_report(self, run_id: str, form: str) -> bytes:
        """The whole result; `form`: `json` or `html`."""
        with self._reaching():
            reply = self._client.get(f"/admin/v1/benchmarks/{_segment(run_id)}/report", params={"format": form})
        if reply.is_error:
            self._content(reply)
        return reply.content

    def stop_benchmark(self, run_id: str) -> dict[str, Any]:
        """Returns once it has ended; one that has ended already stays as it is."""
        return self._call("DELETE", f"/admin/v1/benchmarks/{_segment(run_id)}", timeout=BENCHMARK_TIMEOUT_S)

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _list(self, path: str, params: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        data = self._call("GET", path, params=params)["data"]
        assert isinstance(data, list)
        return data

    def _call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        with self._reaching():
            reply = self._client.request(method, path, **options)
        return self._content(reply)

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise AdminError(
                f"the admin API at {self._url} cannot be reached: {str(exc) or type(exc).__name__}"
            ) from exc

    def _content(self, reply: httpx.Response) -> dict[str, Any]:
        try:
            content = reply.json()
        except ValueError as exc:
            raise self._strange(reply) from exc
        if reply.is_error or not isinstance(content, dict):
            error = content.get("error") if isinstance(content, dict) else None
            message = error.get("message") if isinstance(error, dict) else f"status {reply.status_code}"
            raise AdminError(str(message), reply.status_code)
        return content

    def _followed(self, request: httpx.Request, end: str, on_event: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        reply = self._client.send(request, stream=True)
        try:
            if reply.is_error:
                reply.read()
                self._content(reply)
            return self._last(reply, end, on_event)
        finally:
            reply.close()

    def _last(self, reply: httpx.Response, end: str, on_event: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """The event called `end`; the others are told."""
        for line in reply.iter_lines():
            try:
                event = json.loads(line)
            except ValueError as exc:
                raise self._strange(reply) from exc
            if event.get("event") == "error":
                error = event["error"]
                kind = ProofNegative if error.get("code") == "proof_failed" else AdminError
                raise kind(str(error["message"]), int(event["status"]))
            if event.get("event") == end:
                return dict(event)
            on_event(event)
        raise AdminError(f"{self._url} ended its answer early: was the gateway stopped? Do it again")

    def _strange(self, reply: httpx.Response) -> AdminError:
        return AdminError(f"{self._url} does not answer as forgegate's admin API (status {reply.status_code})")


def _segment(name: str) -> str:
    """As one segment of a path. Raises AdminError for what would lead to another one."""
    if not name or not {".", ".."}.isdisjoint(name.split("/")):
        raise AdminError(f"{name!r} names nothing here", 404)
    return quote(name, safe="")


def _told(packed: Pack, on_sent: Sent) -> Iterator[bytes]:
    num_sent, num_bytes = 0, packed.num_bytes
    for chunk in packed.chunks():
        yield chunk
        num_sent += len(chunk)
        on_sent(num_sent, num_bytes)
