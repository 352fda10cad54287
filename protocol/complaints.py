# SPDX-License-Identifier: GPL-3.0-or-later
"""Duties that must not stand in each other's way: what goes wrong in one is said, once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from protocol.errors import (
    BitcourtError,
    ChainError,
    InsufficientFunds,
    NotConfirmed,
    TransactionReverted,
)
from protocol.transfers import Underway

log = logging.getLogger("bitcourt")


class Complaints:
    """What went wrong last in each duty of each task."""

    def __init__(self) -> None:
        self._said: dict[tuple[int, str], str] = {}

    def attempt(self, task: int, duty: str, make: Callable[[], bool]) -> bool:
        """Does a duty and returns whether it moved anything; False if it failed.

        Raises ChainError if the chain itself does not answer.
        """
        moved = False
        with self.said_once(task, duty):
            moved |= make()
        return moved

    @contextmanager
    def said_once(self, task: int, duty: str) -> Iterator[None]:
        """Logs an error in the block, once, instead of raising it.

        ChainError is raised, unless the chain has answered and refused what was asked of it.
        What is not confirmed yet, or still on its way from a store, is no error.
        """
        try:
            yield
            self._said.pop((task, duty), None)
        except (NotConfirmed, Underway) as error:
            log.info("task %s: %s", task, error)  # looked at again by the next poll
        except (TransactionReverted, InsufficientFunds) as error:
            self.say(task, duty, error)
        except ChainError:
            raise
        except Exception as error:  # a hostile task may break anything that reads it
            self.say(task, duty, error)

    def say(self, task: int, duty: str, error: Exception) -> None:
        """Logs what went wrong in a duty, unless that was the last thing said of it."""
        known = isinstance(error, BitcourtError)
        text = f"task {task}: {error}" if known else f"task {task}: {type(error).__name__}: {error}"
        if self._said.get((task, duty)) != text:
            self._said[task, duty] = text
            log.warning(text, exc_info=None if known else error)
