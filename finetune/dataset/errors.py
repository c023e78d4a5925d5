"""Errors of datasets, each one sentence for the user.

DataError                    exit code of a command that ends with it
|- DataUnusable              2   the file is missing, empty, of a kind nobody reads, or without the columns that are needed
`- DataLacksPackage          3   this environment has not what reads it
"""

from __future__ import annotations


class DataError(Exception):
    """The tree's root."""

    exit_code = 3


class DataUnusable(DataError):
    """What the user gave cannot be used; the message says what would be."""

    exit_code = 2


class DataLacksPackage(DataError):
    """A package is missing that reads this kind of file or model."""
