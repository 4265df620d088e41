"""Names that no training image may show and no training caption may hold, given by their hashes alone.

A list has one SHA-256 in hexadecimal a line, of a name in lower case with every run of characters other than a-z and
0-9 as one blank; lines that begin with # are remarks. A text holds a reserved name where the hash of any run of its
words is in the list.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from zoo.schema.errors import ConfigError
from zoo.schema.files import read_plain

LONGEST = 6  # words of a name
LARGEST = 64 * 2**20  # bytes of a list


def normalised(text: str) -> str:
    """Lower case, everything but a-z and 0-9 as single blanks: "Cat, 3D style" -> "cat 3d style"."""
    return re.sub("[^a-z0-9]+", " ", text.lower()).strip()


class ReservedNames:
    """Reserved names of one or several lists.

    Args:
        paths: files of hashes. ConfigError for one that is missing or has a line that is no hash.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self.hashes: set[str] = set()
        self._known: dict[str, bool] = {}  # runs of words, of which captions share most
        for path in paths:
            try:
                content = read_plain(path, LARGEST)
                if len(content) > LARGEST:
                    raise ValueError(f"it has over {LARGEST} bytes")
                lines = content.decode("utf-8").splitlines()
            except (OSError, ValueError) as error:
                raise ConfigError(
                    f"the list of reserved names '{path}' can't be read ({error}); fix its path",
                    code="reserved-list-unreadable",
                ) from error
            for number, line in enumerate(lines, 1):
                if not line.strip() or line.startswith("#"):
                    continue
                if not re.fullmatch("[0-9a-f]{64}", line.strip()):
                    raise ConfigError(
                        f"line {number} of the reserved names '{path}' is no SHA-256; write 64 hex digits",
                        code="reserved-list-unreadable",
                    )
                self.hashes.add(line.strip())

    def holds(self, text: str) -> bool:
        """Whether any run of 1 to 6 words of the text is a reserved name."""
        words = normalised(text).split()
        runs = (" ".join(words[i:j]) for i in range(len(words)) for j in range(i + 1, min(i + LONGEST, len(words)) + 1))
        return any(map(self._is_one, runs))

    def _is_one(self, run: str) -> bool:
        if run not in self._known:
            self._known[run] = hashlib.sha256(run.encode()).hexdigest() in self.hashes
        return self._known[run]
