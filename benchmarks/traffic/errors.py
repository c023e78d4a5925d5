"""The one way in which a load can be asked for wrongly."""


class WorkloadError(ValueError):
    """The workload asked for cannot be made; the message says why, and where in which file."""
