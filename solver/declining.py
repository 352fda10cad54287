# SPDX-License-Identifier: GPL-3.0-or-later
"""Giving back a task that somebody entered this solver's standing ask for."""

from __future__ import annotations

import logging

from protocol.errors import InfeasibleError, said
from protocol.market import Market
from protocol.task import Status, TaskState

log = logging.getLogger("bitcourt")


def may_decline(market: Market, task: int, state: TaskState) -> bool:
    """True while a task that this solver's ask has won can be given back for nothing."""
    if state.status == Status.BIDDING:
        return state.by_ask
    half = market.posted(task).spec.train_window // 2
    in_time = market.chain.now <= state.deadline - half
    return state.by_ask and state.log_size == 0 and in_time


def decline(market: Market, task: int, state: TaskState, error: Exception) -> bool:
    """Gives back a task that `error` keeps this solver from training; True if it moved.

    It may pass: a quarter of the training window is waited for that, unless the error says that
    this machine can never do it.
    """
    if state.status == Status.BIDDING:
        market.send_for("assign", task)
        return True
    left = state.deadline - market.chain.now
    passes = not isinstance(error, InfeasibleError)
    if passes and 4 * left > 3 * market.posted(task).spec.train_window:
        return False
    log.warning("task %s: declined: %s", task, said(error))
    market.send_for("decline", task)
    return True
