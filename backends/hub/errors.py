"""What can go wrong between a model's name and its files.

BackendError
`- HubError                  3   the tree's root here
   |- BadName                2   not a model's name
   |- NoSuchModel            2   the hub has no such model, revision or file
   |- NoChoice               2   no file fits the name, or several do; lists what there is
   |- AccessDenied           2   gated, private, or a token that is refused
   |- ModelInUse             2   a running gateway serves it, or a pull is at it
   |- NotPulled              3   it is not on this disk, and the hub may not be asked
   |- Unreachable            3   no hub answers, or what answers is none
   |- Transient              3   may go better next time; raised to the user only when it never did
   |- Corrupt                3   what came has not the digest that the hub lists
   `- StoreFailed            3   the disk is full, or the folder cannot be written
"""

from __future__ import annotations

from backends.errors import BackendError


class HubError(BackendError):
    """The tree's root here."""


class BadName(HubError):
    """Not a model's name."""

    exit_code = 2


class NoSuchModel(HubError):
    """The hub has no such model, revision or file."""

    exit_code = 2


class NoChoice(HubError):
    """No file fits the name, or several do."""

    exit_code = 2


class AccessDenied(HubError):
    """Gated, private, or a token that is refused."""

    exit_code = 2


class ModelInUse(HubError):
    """A running gateway serves it, or a pull is at it."""

    exit_code = 2


class NotPulled(HubError):
    """It is not on this disk, and the hub may not be asked."""


class Unreachable(HubError):
    """No hub answers, or what answers is none."""


class Transient(HubError):
    """May go better next time; `retry_after_s` is what the server asks for."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Corrupt(HubError):
    """What came has not the digest that the hub lists."""


class StoreFailed(HubError):
    """The disk is full, or the folder cannot be written."""
