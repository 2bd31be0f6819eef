"""A long text on disk, in a file without a name, which goes with this process."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

LENGTH_BYTES = 4


class Spool:
    """Take the pieces of a text once, and give them in order; see `types.LongText`."""

    def __init__(self, folder: Path | None = None) -> None:
        """Keep them in `folder`, or where the system keeps temporary files."""
        self._file = tempfile.TemporaryFile(dir=folder, prefix=".text-")  # noqa: SIM115
        self._length = self.size_bytes = 0

    @property
    def length(self) -> int:
        """Characters of all pieces."""
        return self._length

    def add(self, piece: str) -> None:
        """Append a piece."""
        content = piece.encode()
        self._file.write(len(content).to_bytes(LENGTH_BYTES, "big") + content)
        self._length += len(piece)
        self.size_bytes += len(content)

    def pieces(self) -> Iterator[str]:
        """Yield the pieces, those without a character left out."""
        self._file.flush()
        place, end = 0, os.fstat(self._file.fileno()).st_size
        while place < end:
            # By place, so that nobody moves what another one reads.
            head = os.pread(self._file.fileno(), LENGTH_BYTES, place)
            size = int.from_bytes(head, "big")
            if size:
                yield os.pread(self._file.fileno(), size, place + LENGTH_BYTES).decode()
            place += LENGTH_BYTES + size

    def close(self) -> None:
        """Give back the room on disk."""
        self._file.close()
