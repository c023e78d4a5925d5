"""A small client of /admin/v1, for the command line, the trainer and tests."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from backends.errors import AdminError

TIMEOUT_S = 10.0


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
        reply = self._call("GET", f"/admin/v1/engines/{quote(engine_id)}/logs", params={"lines": num_lines})
        return [str(line) for line in reply["lines"]]

    def restart(self, engine_id: str) -> None:
        self._call("POST", f"/admin/v1/engines/{quote(engine_id)}/restart")

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _list(self, path: str) -> list[dict[str, Any]]:
        data = self._call("GET", path)["data"]
        assert isinstance(data, list)
        return data

    def _call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        try:
            reply = self._client.request(method, path, **options)
            content = reply.json()
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise AdminError(
                f"the admin API at {self._url} cannot be reached: {str(exc) or type(exc).__name__}"
            ) from exc
        except ValueError as exc:
            raise AdminError(
                f"{self._url} does not answer as forgegate's admin API (status {reply.status_code})"
            ) from exc
        if reply.is_error or not isinstance(content, dict):
            error = content.get("error") if isinstance(content, dict) else None
            message = error.get("message") if isinstance(error, dict) else f"status {reply.status_code}"
            raise AdminError(str(message), reply.status_code)
        return content
