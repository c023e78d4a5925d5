"""Errors of backends, each with a message fit for the user who wrote the configuration.

BackendError                 exit code of a command that ends with it
|- BadSpec                   2   the pool's description is wrong (unknown engine, option, address)
|- ModelUnusable             2   the model file or folder is missing, corrupt, or not for this engine
|- EngineUnavailable         3   no interpreter here can run the engine
|- NoRoom                    3   the engine would take more memory than is free
|- PrepareFailed             3   deriving what the engine loads (a GGUF) did not succeed
|- SpawnFailed               3   the operating system did not start the child
|- ProbeFailed               3   an engine could not be asked (refused, timed out, answered no HTTP)
|- EngineRefused             3   an engine does not sleep or wake
|- AdapterRefused            3   an engine does not load, free or score an adapter
|  `- NoSlot                 3   it holds as many as it can
`- AdminError                3   the admin API could not be reached; 2 where it refused what was asked (status 4xx, a wrong token apart)
"""

from __future__ import annotations


class BackendError(Exception):
    """The tree's root; `exit_code` is what a command returns that ends with it."""

    exit_code = 3


class BadSpec(BackendError):
    """The pool's description is wrong; `problems` has one sentence for each fault."""

    exit_code = 2

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class ModelUnusable(BackendError):
    """The model is missing, corrupt, or not for this engine."""

    exit_code = 2


class EngineUnavailable(BackendError):
    """No interpreter on this machine can run the engine."""


class NoRoom(BackendError):
    """The engine would take more memory than is free."""


class PrepareFailed(BackendError):
    """What the engine loads could not be derived from the model."""


class SpawnFailed(BackendError):
    """The operating system did not start the child."""


class ProbeFailed(BackendError):
    """An engine could not be asked."""


class EngineRefused(BackendError):
    """An engine does not do what it was told (sleep, wake); the message is its own reason."""


class AdapterRefused(BackendError):
    """An engine does not load, free or score an adapter; the message is the engine's own reason."""


class NoSlot(AdapterRefused):
    """The engine holds as many adapters as it can."""


class AdminError(BackendError):
    """The admin API could not be reached or refused; `status` is its HTTP status, 0 where there was no answer."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status
        if 400 <= status < 500 and status not in (401, 403):
            self.exit_code = 2
