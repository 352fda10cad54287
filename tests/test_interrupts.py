# SPDX-License-Identifier: GPL-3.0-or-later
"""Ctrl-C waits for the end of a step."""

from __future__ import annotations

import signal
import threading
from contextlib import suppress

import pytest

from bitcourt.interrupts import Interrupts


def run(*, within: int = 0, after: int = 0) -> list[str]:
    """Say what is done in a held block, and after it, where so many interrupts come."""
    done = []
    with suppress(KeyboardInterrupt), Interrupts() as interrupts:
        with interrupts.held:
            for _ in range(within):
                signal.raise_signal(signal.SIGINT)
            done.append("step")
        for _ in range(after):
            signal.raise_signal(signal.SIGINT)
        done.append("more")
    return done


@pytest.mark.parametrize(
    ("interrupts", "done"),
    [({}, ["step", "more"]), ({"within": 2}, ["step"]), ({"after": 1}, ["step"])],
)
def test_an_interrupt_comes_at_once_or_at_the_end_of_a_held_block(
    interrupts: dict[str, int], done: list[str]
) -> None:
    before = signal.getsignal(signal.SIGINT)
    assert run(**interrupts) == done
    assert signal.getsignal(signal.SIGINT) is before


def test_what_ignores_interrupts_goes_on_ignoring_them() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts, interrupts.held:
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_get_no_signals_and_change_nothing() -> None:
    handlers = []

    def work() -> None:
        with Interrupts() as interrupts, interrupts.held:
            handlers.append(signal.getsignal(signal.SIGINT))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [before]
