"""Where requests go."""

from dataclasses import dataclass
from urllib.parse import urlsplit


class TargetError(ValueError):
    """The URL cannot be one of an OpenAI-compatible server."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go. `prefix` is what stands before `/v1`."""

    scheme: str
    host: str
    port: int
    prefix: str = ""
    api_key: str | None = None

    @classmethod
    def from_url(cls, url: str, api_key: str | None = None) -> "Target":
        """`http[s]://host[:port][/prefix][/v1]`; raises TargetError with the reason."""
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https"):
            raise TargetError(f"{url!r} is not an http or https URL")
        try:
            port = parts.port
        except ValueError as exc:
            raise TargetError(f"{url!r}: {exc}") from exc
        if not parts.hostname:
            raise TargetError(f"{url!r} names no host")
        prefix = parts.path.rstrip("/").removesuffix("/v1")
        return cls(parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80), prefix, api_key)

    @property
    def url(self) -> str:
        """For people."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.prefix}"

    def head(self, method: str, path: str, num_body_bytes: int = 0, *, keep_alive: bool = True) -> bytes:
        """The request's head, up to and with the empty line."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        lines = [f"{method} {self.prefix}{path} HTTP/1.1", f"host: {host}:{self.port}", "user-agent: forgegate-bench"]
        if self.api_key:
            lines.append(f"authorization: Bearer {self.api_key}")
        if method in ("POST", "PUT"):
            lines += ["content-type: application/json", f"content-length: {num_body_bytes}"]
        if not keep_alive:
            lines.append("connection: close")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
