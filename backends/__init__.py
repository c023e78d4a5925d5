"""What can answer a completion, and how to run it. Imports nothing of the other packages."""

from backends.registry import build

__all__ = ["build"]
