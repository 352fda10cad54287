# SPDX-License-Identifier: GPL-3.0-or-later
"""The drawn runs of one audit, replayed segment by segment. What was done outlives the process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from eth_utils.crypto import keccak

from protocol.bundle import state_layout
from protocol.commitments import state_root
from protocol.errors import ArtifactError
from protocol.execution import Bits, Executor
from protocol.files import write_whole
from protocol.mirror import Mirror
from protocol.program import Program
from protocol.task import Run, TaskSpec


def subject(runs: Sequence[Run], starts: Sequence[bytes]) -> bytes:
    """Names what is replayed of a task: which segments, and from which states."""
    pairs = zip(runs, starts, strict=True)
    words = (run.first.to_bytes(4) + run.count.to_bytes(4) + start for run, start in pairs)
    return bytes(keccak(b"".join(words)))


class Replay:
    """State roots at the ends of some runs. An error leaves all as it was before its segment."""

    def __init__(
        self,
        spec: TaskSpec,
        runs: Sequence[Run],
        starts: Sequence[bytes],
        book: Path,
        store: Mirror,
    ) -> None:
        """`book` is the file that says how far this has come; states are kept by `store`."""
        self.roots: list[bytes] = []
        """Of the runs that are done."""
        self._spec = spec
        self._todo = list(zip(runs, starts, strict=True))
        self._book, self._store = book, store
        self._segment = 0
        """How many of the current run's are done."""
        self.done = 0
        """Steps, those of an unfinished segment included."""
        self._root = b""
        """Of the state after them."""
        self._read()

    @property
    def complete(self) -> bool:
        """True if all runs are done."""
        return len(self.roots) == len(self._todo)

    def advance(
        self,
        program: Program,
        executor: Executor,
        fetch: Callable[[bytes], list[Bits]],
        progress: Callable[[int, int], None],
    ) -> Iterator[None]:
        """Replays the next segment; yields after each step.

        `fetch` gets the state with a root, in arrays of this call's own.
        `progress` is called with the steps that are done, and how many there are in all.
        """
        run, start = self._todo[len(self.roots)]
        current = fetch(self._root if self._segment else start)
        self.done, total = self._finished, self.total
        for step in self._spec.steps_between(run.first + self._segment, 1):
            executor.update(current, step)
            self.done += 1
            progress(self.done, total)
            yield
        if self._segment + 1 < run.count:
            root = self._store.keep(current, state_layout(program))
            self._segment, self._root = self._segment + 1, root
        else:
            self.roots.append(state_root(current))
            self._segment, self._root = 0, b""
        self._write()

    @property
    def total(self) -> int:
        """Steps of all runs."""
        return sum(self._counts)

    @property
    def _counts(self) -> list[int]:
        return [len(self._spec.steps_between(run.first, run.count)) for run, _ in self._todo]

    @property
    def _finished(self) -> int:
        """Steps of the segments that are done."""
        at = len(self.roots)
        done = sum(self._counts[:at])
        if self._segment:
            done += len(self._spec.steps_between(self._todo[at][0].first, self._segment))
        return done

    def _write(self) -> None:
        roots = [root.hex() for root in self.roots]
        done = {"ends": roots, "segments": self._segment, "state": self._root.hex()}
        write_whole(self._book, json.dumps(done).encode())

    def _read(self) -> None:
        """Goes on where another process has stopped, if it has left a book that makes sense."""
        try:
            done = json.loads(self._book.read_bytes())
            self.roots = [bytes.fromhex(root) for root in done["ends"]]
            self._segment, self._root = int(done["segments"]), bytes.fromhex(done["state"])
            self.done = self._finished
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{self._book} is damaged, delete it: {error!r}") from None
