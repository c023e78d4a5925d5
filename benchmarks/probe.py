"""Is there a server, and which model is asked? Answered before anything is measured."""

import difflib

import orjson

from benchmarks.client import Client
from benchmarks.record import FailureKind
from benchmarks.transcript import error_message


class UnusableError(Exception):
    """The target cannot be measured; one line says why. `is_environment`: it is not there, not merely asked wrongly."""

    def __init__(self, message: str, *, is_environment: bool) -> None:
        super().__init__(message)
        self.is_environment = is_environment


async def find_model(client: Client, wanted: str | None) -> str:
    """The model to ask for, checked against the server's list where it has one; raises UnusableError."""
    url = client.target.url
    exchange = await client.get("/v1/models")
    if exchange.failure is not None:
        hint = "" if exchange.failure.kind is FailureKind.TIMEOUT else "; is a server running there?"
        raise UnusableError(f"{url} does not answer: {exchange.failure.detail}{hint}", is_environment=True)
    if exchange.status in (401, 403):
        raise UnusableError(f"{url} wants another --api-key: {error_message(exchange.body)}", is_environment=False)
    if exchange.status != 200:
        if wanted:
            return wanted
        raise UnusableError(
            f"{url}/v1/models answers {exchange.status}: name the model with --model", is_environment=False
        )
    return _chosen(url, _model_names(exchange.body), wanted)


def _chosen(url: str, names: list[str], wanted: str | None) -> str:
    if wanted is None:
        if len(names) == 1:
            return names[0]
        listed = f"one of {', '.join(names)}" if names else "but the server lists none"
        raise UnusableError(f"{url} needs --model: {listed}", is_environment=False)
    if names and wanted not in names:
        near = difflib.get_close_matches(wanted, names, n=1)
        guess = f", did you mean {near[0]!r}?" if near else ""
        raise UnusableError(f"{url} has no model {wanted!r}{guess}; it lists {', '.join(names)}", is_environment=False)
    return wanted


def _model_names(body: bytes) -> list[str]:
    try:
        found = orjson.loads(body)
        return [str(model["id"]) for model in found["data"]]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return []
