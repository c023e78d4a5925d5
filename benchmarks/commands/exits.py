"""How a command ends."""

import sys

EXIT_DONE, EXIT_NEGATIVE, EXIT_USAGE, EXIT_ENVIRONMENT = range(4)


def refuse(message: str, code: int) -> int:
    """One line on stderr; the code."""
    sys.stderr.write(f"error: {message}\n")
    return code
