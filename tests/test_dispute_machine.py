# SPDX-License-Identifier: GPL-3.0-or-later
"""The players' state machine and whole disputes before the real referee."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from protocol.dispute import MOVES, next_move, turn_of
from protocol.errors import DisputeError, UsageError
from protocol.execution import Bits
from protocol.game_view import GameView, Level, Phase, Role
from protocol.ops import Op
from protocol.program import INDIRECT, Dim, DType, Flat, Fold, Kind, Node, Program, Term, View
from protocol.reference import ReferenceExecutor
from protocol.witness import ReplayWitness
from tests import liars
from tests.game_driver import Court, Outcome, honest, stops_after
from tests.hand_built import Builder, along, case_of, expression, reduction, sgd_regression
from tests.liars import Story, changes_the_end
from tests.players import garbage, wandering

WIDTH, ROWS = 19, 37


def all_kinds() -> Program:
    """state := sums over lanes and chains, gathers and random numbers: every kind of node."""
    b = Builder()
    weight = b.leaf(Kind.INPUT, (WIDTH,))
    constant = b.leaf(Kind.CONST, (WIDTH,))
    table = b.leaf(Kind.DATA, (ROWS, WIDTH))
    step = b.add(Node(Kind.STEP, DType.I32, ()))
    picked = b.add(Node(Kind.SAMPLE, DType.I32, (WIDTH,), bound=ROWS, stream=3))
    noise = b.add(Node(Kind.RAND, DType.I32, (WIDTH,), stream=4))
    gather = View(table, (Dim(ROWS, (Term(INDIRECT, 1),)), Dim(WIDTH, (Term(0, 1),))))
    row = b.map((WIDTH,), expression([Flat(picked), gather], results=(1,)))
    column = along(table, (ROWS, WIDTH), (1, 0))
    total = b.fold(Fold.SUM, (WIDTH,), (ROWS,), expression([column]), lanes=16)
    dot = b.fold(Fold.DOT, (WIDTH,), (ROWS,), expression([column], results=(0, 0)))
    update = expression(
        [Flat(weight), Flat(constant), Flat(row), Flat(total), Flat(dot), Flat(noise),
         along(step, (), ())],
        (Op.I2F, (5,)), (Op.MUL, (8, 7)), (Op.I2F, (6,)), (Op.ADD, (9, 10)),
        (Op.ADD, (11, 0)), (Op.ADD, (12, 1)), (Op.ADD, (13, 2)), (Op.ADD, (14, 3)),
        (Op.ADD, (15, 4)),
        immediates=[0x30000000],
    )  # fmt: skip
    return b.finish([b.map((WIDTH,), update), constant])


ALL_KINDS = all_kinds()


@pytest.fixture(scope="module")
def court() -> Court:
    return Court("Referee")


@pytest.fixture(scope="module")
def story() -> Story:
    return Story(case_of(ALL_KINDS, seed=1, wild=False), steps=3, first_step=7)


def play(court: Court, story: Story, liar: ReplayWitness) -> Outcome:
    game = court.open(story.context(liar))
    game.pace = 0
    players = honest(liar, Role.DEFENDANT), honest(story.honest, Role.CHALLENGER)
    return game.play(*players)


# Lies --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("node", range(len(ALL_KINDS.nodes)))
def test_one_flipped_element_of_any_node_is_convicted_by_a_proof(
    court: Court, story: Story, node: int
) -> None:
    numel, kind = ALL_KINDS.nodes[node].numel, ALL_KINDS.nodes[node].kind
    # A small lie about a fold is one that fitting lane results can be found for.
    mask = 1 << (8 if kind is Kind.FOLD else 23)
    liar = story.flipped(node, numel // 2, since=1, mask=mask)
    assert changes_the_end(story, liar)
    outcome = play(court, story, liar)
    assert outcome.convicted
    assert not outcome.timed_out, outcome.refusals


@pytest.mark.parametrize(
    ("fold", "lanes", "terms"),
    [
        *[(fold, 1, terms) for fold in Fold for terms in (1, 256, 257, 700)],
        (Fold.SUM, 16, 3), (Fold.SUM, 16, 256),
    ],
)  # fmt: skip
def test_one_unit_in_the_last_place_of_any_fold_is_convicted(
    court: Court, fold: Fold, lanes: int, terms: int
) -> None:
    story = Story(case_of(reduction(fold, terms, lanes), seed=2, wild=False), steps=1)
    outcome = play(court, story, story.flipped(1, mask=1))
    assert outcome.convicted


@pytest.mark.parametrize(
    "make",
    [
        liars.Stubborn, liars.EarlyAccumulators, liars.TrueValues, liars.FalseOperand,
        liars.TooFewValues, liars.TooManyValues,
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", [Kind.MAP, Kind.FOLD])
def test_lies_inside_one_element_are_convicted_by_a_proof(
    court: Court, story: Story, make: type[ReplayWitness], kind: Kind
) -> None:
    node = max(i for i, n in enumerate(ALL_KINDS.nodes) if n.kind is kind)
    outcome = play(court, story, story.flipped(node, 5, since=2, make=make))
    assert outcome.convicted
    assert not outcome.timed_out, outcome.refusals


@pytest.mark.parametrize(
    ("make", "refusal"),
    [
        (liars.FalseState, "WrongInclusion"),
        (liars.UnknownPreimage, "WrongLeaf"),
        (liars.OtherEnd, "WrongLeaf"),
        (liars.TrueLog, "WrongInclusion"),
    ],
)
def test_a_claim_without_what_must_stand_behind_it_loses_by_the_clock(
    court: Court, story: Story, make: type[ReplayWitness], refusal: str
) -> None:
    liar = story.liar(make)
    other_end = make in (liars.OtherEnd, liars.TrueLog)
    game = court.open(story.context(story.flipped(0) if other_end else liar))
    outcome = game.play(honest(liar, Role.DEFENDANT), honest(story.honest, Role.CHALLENGER))
    assert outcome.convicted
    assert outcome.timed_out
    assert outcome.refusals == [refusal]


@pytest.mark.parametrize("since", [0, 1, 2])
def test_a_step_cannot_begin_from_a_foreign_state(court: Court, story: Story, since: int) -> None:
    """The input of a step is what the log has before it, or the agreed start."""
    liar = story.flipped(0, 3, since=since)
    outcome = play(court, story, liar)
    assert outcome.functions[-1] == "proveLeaf"
    assert outcome.convicted
    assert not outcome.timed_out, outcome.refusals


# Honest defendants -------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_an_honest_defendant_never_loses_before_the_real_referee(
    court: Court, story: Story, seed: int
) -> None:
    rng = random.Random(seed)
    challenger = garbage(rng) if seed % 6 == 5 else wandering(story.honest, rng)
    game = court.open(story.context(story.honest))
    game.strict, game.pace = False, 0
    outcome = game.play(honest(story.honest, Role.DEFENDANT), challenger)
    assert not outcome.convicted
    assert outcome.timed_out or outcome.functions[-1] == "show"


def test_an_honest_challenger_finds_nothing_to_dispute(court: Court, story: Story) -> None:
    game = court.open(story.context(story.honest))
    commit = next_move(game.view, story.honest, Role.DEFENDANT)
    assert commit is not None
    game.send(commit)
    with pytest.raises(DisputeError, match="differs"):
        next_move(game.view, story.honest, Role.CHALLENGER)


# The machine -------------------------------------------------------------------------------------


def test_every_live_phase_has_exactly_one_rule() -> None:
    live = set(Phase) - {Phase.NONE, Phase.CONVICTED, Phase.ACQUITTED}
    assert set(MOVES) == live
    assert turn_of(Phase.CONVICTED) is None
    pointing = {phase for phase, rule in MOVES.items() if rule.turn is Role.CHALLENGER}
    assert {phase.name.split("_")[0] for phase in pointing} == {"POINT", "PROVE"}


def test_only_the_party_to_move_has_a_move(court: Court, story: Story) -> None:
    liar = story.flipped(6)
    game = court.open(story.context(liar))
    while not game.view.finished:
        turn = turn_of(game.view.phase)
        assert turn is not None
        witness = liar if turn is Role.DEFENDANT else story.honest
        assert next_move(game.view, witness, Role(1 - turn)) is None
        move = next_move(game.view, witness, turn)
        assert move == next_move(game.view, witness, turn)  # and asking changes nothing
        assert move is not None
        game.send(move)
    for role in Role:
        assert next_move(game.view, story.honest, role) is None


def test_the_challenger_points_at_the_first_difference(court: Court) -> None:
    """Everything before the point is then agreed, which the final proof relies on."""
    case = case_of(sgd_regression(), seed=3, wild=False)
    story = Story(case, steps=40)
    map_node = max(i for i, n in enumerate(case.program.nodes) if n.kind is Kind.MAP)
    for step in (0, 17, 39):
        liar = story.flipped(map_node, 7, since=step, mask=1 << 22)
        game = court.open(story.context(liar))
        game.play(
            stops_after(honest(liar, Role.DEFENDANT), 99), honest(story.honest, Role.CHALLENGER)
        )
        assert game.view.phase is Phase.CONVICTED
        assert (game.view.step, game.view.node, game.view.first) == (step, map_node, 7)


def test_a_view_refuses_events_of_something_else(court: Court, story: Story) -> None:
    view = court.open(story.context(story.honest)).view
    with pytest.raises(DisputeError, match="Transfer"):
        view.apply("Transfer", {})
    assert (view.phase, view.moves, view.level) == (Phase.COMMIT_STEPS, 0, Level.STEPS)
    with pytest.raises(DisputeError, match="node"):
        _ = view.node_facts
    with pytest.raises(DisputeError, match="trace"):
        _ = view.opened_trace


def test_a_view_is_rebuilt_from_named_struct_fields_too(story: Story) -> None:
    context = story.context(story.honest)
    args = {"id": 4, "defendant": "0x1", "challenger": "0x2", "arbiter": "0x3", "turn": 1 << 136}
    plain = GameView.created({**args, "context": context.as_abi()})
    named = GameView.created(
        {**args, "context": dict(zip("abcdefghijkl", context.as_abi(), strict=True))}
    )
    assert plain == named
    assert plain.context == context


# The witness -------------------------------------------------------------------------------------


class Counting(ReferenceExecutor):
    """Counts what it is asked for."""

    steps = 0
    traces: tuple[int, ...] = ()

    def step(self, state: Sequence[Bits], step: int) -> list[Bits]:
        self.steps += 1
        outputs = ReferenceExecutor.trace(self, state, step)
        return [outputs[self.program.output(s)].copy() for s in range(self.program.n_state)]

    def trace(self, state: Sequence[Bits], step: int) -> list[Bits]:
        self.traces = (*self.traces, step)
        return super().trace(state, step)


def test_a_replay_runs_each_step_once_and_traces_only_the_disputed_one(court: Court) -> None:
    case = case_of(sgd_regression(), seed=3, wild=False)
    story = Story(case, steps=9, first_step=100)
    executor = Counting(case.program, case.inputs)
    own = ReplayWitness(case.program, executor, case.inputs, case.state, 100, 9)
    assert (executor.steps, executor.traces) == (0, ())
    own.step_log()
    own.step_log()
    assert (executor.steps, executor.traces) == (9, ())
    liar = story.flipped(6, 1, since=6)
    outcome = court.open(story.context(liar)).play(
        honest(liar, Role.DEFENDANT), honest(own, Role.CHALLENGER)
    )
    assert outcome.convicted
    assert set(executor.traces) == {106}
    assert len(executor.traces) == 1
    assert executor.steps == 9 + 6  # back to the disputed step, once


def test_a_witness_needs_a_step(story: Story) -> None:
    case = story.case
    executor = ReferenceExecutor(case.program, case.inputs)
    with pytest.raises(UsageError, match="at least one step"):
        ReplayWitness(case.program, executor, case.inputs, case.state, 0, 0)
