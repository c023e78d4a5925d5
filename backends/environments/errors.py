"""What installing an environment raises. All are BackendErrors: they end a command with one message.

EnvironmentRefused  2   no such environment, an interpreter that cannot be used, a folder that is in the way
InstallFailed       3   pip, the disk or the packages themselves; what was there before still works
"""

from __future__ import annotations

from backends.errors import BackendError


class EnvironmentRefused(BackendError):
    exit_code = 2


class InstallFailed(BackendError):
    pass
