"""Fingerprints of a run's accepted images on disk: what is held in memory while a run closes must not grow with it."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Print = NDArray[np.float16]


class Prints:
    """Fingerprints float16 [D] by index, in a file; as a sequence, those that are there in the order of the index."""

    def __init__(self, path: Path, total: int) -> None:
        self.path, self._there, self._width = path, np.zeros(total, dtype=bool), 0
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)

    def __setitem__(self, index: int, one: Print) -> None:
        self._width = self._width or len(one)
        with open(self.path, "r+b" if self.path.exists() else "w+b") as file:
            file.seek(index * one.nbytes)
            file.write(one.tobytes())
        self._there[index] = True

    def __delitem__(self, index: int) -> None:
        self._there[index] = False

    def __len__(self) -> int:
        return int(self._there.sum())

    @property
    def order(self) -> NDArray[np.intp]:
        """The indices that are there, ascending."""
        return np.flatnonzero(self._there)

    def __getitem__(self, rows: slice) -> Print:
        """Rows [n, D] of the sequence, read from the file."""
        chosen = self.order[rows]
        if not len(chosen):
            return np.zeros((0, self._width), np.float16)
        first, count = int(chosen[0]), int(chosen[-1] - chosen[0]) + 1
        size = self._width * np.dtype(np.float16).itemsize
        with open(self.path, "rb") as file:
            file.seek(first * size)
            return np.frombuffer(file.read(count * size), np.float16).reshape(-1, self._width)[chosen - first]
