# SPDX-License-Identifier: GPL-3.0-or-later
"""Whoever posts a task chooses its store: neither its address nor its answers stop an agent."""

from __future__ import annotations

from pathlib import Path
from threading import Event
from typing import Any, NoReturn

import fsspec
import numpy as np
import pytest

from bitcourt.commands import describe
from bitcourt.lab.stage import ETHER, Stage
from protocol.errors import ArtifactError
from protocol.execution import Bits
from protocol.market import Market
from protocol.mirror import Mirror
from protocol.program import DType
from protocol.store import Store
from protocol.task import SeatState, Status
from protocol.transfers import Transfers
from solver.agent import Settings, Solver
from tests.challenging import play_until, registered
from tests.staged import a_solver, a_stage, asking, bundle, end_bidding, make_executor, post, terms

LAYOUT = [(DType.F32, (3,))]
NO_TEXT = b"\xff\x1b[2J"
ERRORS = [RuntimeError("503"), ValueError("no JSON"), EOFError(), OSError("reset")]


def fail(error: Exception) -> Any:
    def raising(*_: object, **__: object) -> NoReturn:
        raise error

    return raising


def some_tensors() -> list[Bits]:
    return [np.arange(3, dtype=np.uint32)]


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return a_stage(tmp_path)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.org/x",
        "webhdfs://example.org/x",
        "reference://x",
        "simplecache::s3://bucket",
        "sftp://example.org",
        "directory\x1b[2J",
    ],
)
def test_a_store_whose_client_may_never_give_up_is_refused_before_it_is_asked(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fsspec.core, "url_to_fs", fail(AssertionError("it was asked")))
    with pytest.raises(ArtifactError, match="as a store: use a directory"):
        Store(url)


def test_to_name_a_store_asks_nobody_and_what_is_kept_needs_no_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Store(str(tmp_path)).put_tensors(some_tensors(), LAYOUT, ())
    connect = fsspec.core.url_to_fs

    def refuses(url: str, **options: Any) -> Any:
        if url.startswith("s3"):
            raise ConnectionRefusedError(111, "refused")
        return connect(url, **options)

    monkeypatch.setattr(fsspec.core, "url_to_fs", refuses)
    store = Mirror("s3://bucket/tasks", tmp_path, Transfers())
    assert np.array_equal(store.get_tensors(root, LAYOUT)[0], some_tensors()[0])
    with pytest.raises(ArtifactError, match="refused"):
        store.get_tensors(bytes(32), LAYOUT)


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("method", ["exists", "size", "open", "makedirs", "mv"])
def test_whatever_a_client_raises_is_an_artifact_error(
    tmp_path: Path, method: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(str(tmp_path))
    root = store.put_tensors(some_tensors(), LAYOUT, ())
    others = [np.ones(3, np.uint32)]
    calls = {
        "exists": lambda: store.has_tensors(root),
        "size": lambda: store.get_tensors(root, LAYOUT),
        "open": lambda: store.get_partial(root, LAYOUT),
        "makedirs": lambda: store.put_tensors(others, LAYOUT, ()),
        "mv": lambda: store.put_tensors(others, LAYOUT, ()),
    }
    monkeypatch.setattr(store._fs, method, fail(error))
    with pytest.raises(ArtifactError, match=r"does not answer|cannot (read|write)"):
        calls[method]()


# Bytes that are no text where the store's address should be.


def post_no_text(stage: Stage, **changes: Any) -> tuple[Market, int]:
    """Posts the small job; the address of its store is not UTF-8."""
    submitter = stage.party("submitter")
    bundle().publish(stage.store)
    spec, mark = terms(submitter, **changes), "XXXX"
    market = submitter.contracts.market
    call = market.encode_abi("post", args=[spec.as_abi(), mark + "?" * (len(NO_TEXT) - 4)])
    data = call.replace((mark + "?" * (len(NO_TEXT) - 4)).encode().hex(), NO_TEXT.hex())

    def build(fields: dict[str, Any]) -> dict[str, Any]:
        return {**fields, "to": market.address, "data": data, "chainId": stage.chain.chain_id}

    stage.chain._transact(submitter.account, build, spec.escrow, gas=1_000_000)
    return submitter, submitter.task_count()


class Insider(Solver):
    """Knows where the bytes are that nobody else can find."""

    place = ""

    def store(self, task: int) -> Mirror:
        return Mirror(self.place, self.folder(task) / "artifacts", self.transfers)


def test_verifiers_leave_a_task_whose_store_has_no_readable_address_and_lose_nothing(
    stage: Stage,
) -> None:
    submitter, task = post_no_text(stage)
    shown = str(describe(submitter, task)["store"])
    assert shown.isprintable()
    assert "ff" in shown
    solver = Insider(stage.party("solver"), make_executor, Settings(stage.directory / "solver"))
    solver.place = stage.store.url
    verifiers = registered(stage)
    assert solver.poll()
    end_bidding(stage, solver)
    play_until(stage, task, [solver, *verifiers], Status.SEALING)
    for _ in range(40):
        if all(seat.state == SeatState.UNAVAILABLE for seat in submitter.seats(task)):
            break
        for verifier in verifiers:
            verifier.poll()
        stage.chain.wait(60)
    assert [seat.state for seat in submitter.seats(task)] == [SeatState.UNAVAILABLE] * 2
    assert not stage.ledger.events("VerifierSlashed")


def test_an_ask_that_was_entered_for_an_unreadable_store_leaves_for_nothing(stage: Stage) -> None:
    submitter, task = post_no_text(stage)
    market = stage.party("solver")
    solver = asking(stage, market)
    submitter.send_for("enterAsk", task, market.address)
    stage.chain.wait(submitter.posted(task).spec.bid_window // 2 + 1)
    assert solver.poll()
    assert int(market.state(task).solver, 16) == 0
    assert market.free_balance() == ETHER


def test_an_upload_that_never_ends_holds_up_no_training(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitter, task = post(stage)
    release, put = Event(), Store.put_tensors
    solver = a_solver(stage.party("solver"), stage.directory)
    own = str((stage.directory / "solver").resolve())

    def hangs(self: Store, *args: Any, **options: Any) -> bytes:
        if not self.url.startswith(own):
            release.wait()
        return put(self, *args, **options)

    solver.poll()
    end_bidding(stage, solver)
    monkeypatch.setattr(Store, "put_tensors", hangs)
    solver.transfers = Transfers(0.1)
    try:
        solver.serve_later(task, [0])
        play_until(stage, task, [solver], Status.COMMITTED, pause=1)
        assert submitter.state(task).log_size == submitter.posted(task).spec.segments + 1
    finally:
        release.set()
