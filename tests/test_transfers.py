# SPDX-License-Identifier: GPL-3.0-or-later
"""Slow stores hold nobody up."""

from __future__ import annotations

from pathlib import Path
from threading import Event

import pytest

from protocol import transfers
from protocol.errors import ArtifactError
from protocol.store import Store
from protocol.task import Status
from protocol.transfers import Transfers, Underway
from tests.staged import a_solver, a_stage, bundle, make_executor, post, terms
from verifier.agent import Verifier


class Slow:
    """A transfer that ends when it is let go."""

    def __init__(self) -> None:
        self.begun, self.go = 0, Event()

    def __call__(self) -> int:
        self.begun += 1
        self.go.wait()
        return self.begun


def finish(slow: Slow, running: Transfers, key: str) -> int:
    slow.go.set()
    while True:
        try:
            running.run(key, slow)
        except Underway:
            continue
        return slow.begun


def test_a_transfer_gives_what_it_was_to_give_or_raises_what_it_raised() -> None:
    running = Transfers()
    assert running.run("a", lambda: 7) == 7

    def fail() -> int:
        raise ArtifactError("is not there")

    for _ in range(2):
        with pytest.raises(ArtifactError, match="is not there"):
            running.run("b", fail)
    assert running.run("b", lambda: 8) == 8


def test_a_slow_transfer_is_begun_once_and_asked_for_again() -> None:
    slow, running = Slow(), Transfers(0.01)
    for _ in range(3):
        running.begin()
        with pytest.raises(Underway, match="still on its way"):
            running.run("a", slow)
    assert running.run("b", lambda: 1) == 1  # which waits for itself only
    assert finish(slow, running, "a") == 1


def test_what_nobody_asks_for_any_more_is_dropped() -> None:
    slow, running = Slow(), Transfers(0.0)
    with pytest.raises(Underway):
        running.run("a", slow)
    slow.go.set()
    while "a" in running._begun:
        running.begin()
    assert slow.begun == 1


def test_transfers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfers, "MOST", 2)
    slow, running = Slow(), Transfers(0.0)
    for key in ("a", "b"):
        with pytest.raises(Underway, match="still on its way"):
            running.run(key, slow)
    with pytest.raises(Underway, match="no more yet"):
        running.run("c", lambda: 1)
    slow.go.set()


def test_a_store_that_never_answers_keeps_no_other_task_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = a_stage(tmp_path)
    submitter, task = post(stage)
    mute = stage.party("mute")
    junk = mute.post(terms(mute, bid_window=86_400), str(tmp_path / "mute"))
    stage.post(mute, bundle(), terms(mute, bid_window=86_401))  # and one that can be read
    release, read = Event(), Store.get_encodings

    def answers(self: Store, root: bytes) -> list[bytes]:
        if self.url.endswith("mute"):
            release.wait()
        return read(self, root)

    monkeypatch.setattr(Store, "get_encodings", answers)
    solver = a_solver(stage.party("solver"), stage.directory)
    verifiers = [Verifier(stage.party(f"verifier {i}"), make_executor) for i in (1, 2)]
    for verifier in verifiers:
        verifier.register()
    agents = [solver, *verifiers]
    for agent in agents:
        agent.transfers = Transfers(0.2)
    try:
        state = stage.play(task, submitter, agents, stage.party("keeper"))
        assert state.status == Status.SETTLED
        bids = [event["id"] for event in stage.ledger.events("BidSealed")]
        assert len(bids) == 2
        assert junk not in bids
    finally:
        release.set()
