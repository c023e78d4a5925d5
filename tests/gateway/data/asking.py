"""Asking a rig for adapters, and reading which version answered."""

from __future__ import annotations

import httpx
import orjson

from tests.gateway.data.rig import ADMIN_TOKEN, Rig

V1, V2 = "support@111111111111", "support@222222222222"
DENIAL = {"error": {"message": "unknown model", "type": "not_found_error", "param": "model", "code": "model_not_found"}}
"""What an engine of ours says of a model that it does not hold."""
ADMIN = {"authorization": f"Bearer {ADMIN_TOKEN.decode()}"}


async def ask(rig: Rig, model: str, headers: dict[str, str] | None = None, **fields: object) -> httpx.Response:
    return await rig.ask({"model": model, **fields}, headers=headers)


def served(response: httpx.Response) -> str:
    """The model that the engine was asked for."""
    name = orjson.loads(response.json()["got"])["model"]
    assert response.headers["x-forgegate-model"] == name
    return str(name)


def code(response: httpx.Response) -> str:
    return str(response.json()["error"]["code"])
