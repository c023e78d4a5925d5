"""Records that have been read, on disk: files are parsed once, memory holds eight bytes a row."""

from __future__ import annotations

import marshal
import tempfile
from array import array
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self


class Spool:
    """Append while reading, then get any of them by its index. The file has no name and goes when it is closed."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="forgegate-data-")  # noqa: SIM115 - closed by __exit__
        self._starts = array("Q", [0])

    def append(self, record: Any) -> None:
        self._starts.append(self._starts[-1] + self._file.write(marshal.dumps(record)))

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: int) -> Any:
        start, end = self._starts[index], self._starts[index + 1]
        self._file.seek(start)
        return marshal.loads(self._file.read(end - start))

    def __iter__(self) -> Iterator[Any]:
        self._file.seek(0)
        for index in range(len(self)):
            yield marshal.loads(self._file.read(self._starts[index + 1] - self._starts[index]))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
