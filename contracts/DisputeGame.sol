// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {FoldMoves} from "./game/FoldMoves.sol";
import {GameBase} from "./game/GameBase.sol";
import {History, Level, Phase, Segment, State} from "./game/GameTypes.sol";
import {NodeMoves} from "./game/NodeMoves.sol";
import {IDisputeGame} from "./interfaces/IDisputeGame.sol";
import {Context, IReferee, Proof, Question} from "./interfaces/IReferee.sol";
import {Merkle} from "./lib/Merkle.sol";

/// @title The dispute game (specification, section 6; `protocol/dispute.py` is the same in Python).
/// @notice Two parties disagree about the state after some training steps. The defendant claims, the
/// challenger points, until one operation on one element is left, which the referee recomputes.
///
/// Nothing is stored that calldata can prove again: a dispute is one hash of its whole state, and every move
/// brings the state that it answers. A move can therefore be made once, and never lands on another claim or
/// point than its author saw, be it after a reorganization or from copied calldata.
/// @dev Knows no money: the creator of a dispute is its arbiter and acts on the verdict.
contract DisputeGame is IDisputeGame, NodeMoves, FoldMoves {
    uint256 private constant MAX_VALUES_BYTES = 288;

    constructor(IReferee referee) GameBase(referee) {}

    /// @notice Open a dispute; the sender becomes its arbiter and must have checked that the parties do
    /// disagree about `endRoot` and agree about everything else in the context.
    function create(
        Context calldata context,
        address defendant,
        address challenger,
        uint32 defendantClock,
        uint32 challengerClock
    ) external override returns (uint256 id) {
        if (
            context.startRoot == 0 || context.endRoot == 0 || context.steps == 0 || context.nState == 0
                || context.nNodes <= context.nState
        ) revert InvalidContext(context);
        if (defendant == challenger || defendant == address(0) || challenger == address(0)) {
            revert InvalidParties(defendant, challenger);
        }
        if (defendantClock == 0 || challengerClock == 0) revert InvalidClocks(defendantClock, challengerClock);

        id = _nextId++;
        State memory state;
        History memory history;
        Phase phase = Phase.CommitSteps;
        if (context.steps == 1) {
            // The log of one step is known: its only leaf is its root.
            phase = Phase.CommitTrace;
            state.claim = history.tree = Merkle.leafHash32(context.endRoot);
        }
        state.begin(defendantClock, challengerClock, phase, context.steps);
        state.setDefendant(defendant, context.nState, context.nNodes);
        state.challenge = uint160(challenger);
        history.arbiter = msg.sender;
        history.origin = keccak256(abi.encode(context));
        state.past = _past(context.programRoot, history);
        emit DisputeCreated(id, defendant, challenger, msg.sender, _store(id, state), context);
    }

    /// @notice Defendant: post the operands' values and the result of every instruction.
    function postValues(uint256 id, State memory state, bytes calldata values) external {
        _enter(id, state, Phase.Values);
        if (values.length > MAX_VALUES_BYTES) revert WrongLength(values.length, MAX_VALUES_BYTES);
        state.setPhase(Phase.Prove);
        state.claim = keccak256(values);
        emit ValuesPosted(id, _store(id, state), values);
    }

    /// @notice Challenger: the one-step proof about the posted values of a MAP or FOLD. It convicts or reverts.
    function prove(uint256 id, State memory state, History calldata history, Proof calldata proof) external {
        _enter(id, state, Phase.Prove);
        _checkPast(state, keccak256(proof.node), history);
        // Of the context, such a proof needs only the size of the trace.
        Context memory context;
        context.nNodes = state.nNodes();
        Question memory question = _question(state, history);
        question.valuesHash = state.claim;
        _judge(id, history.arbiter, context, question, proof);
    }

    /// @notice Challenger: the one-step proof about any other node, an element that is generated or a tensor that
    /// is another one. It convicts or reverts.
    function proveLeaf(
        uint256 id,
        State memory state,
        History calldata history,
        Context calldata context,
        Segment calldata segment,
        Proof calldata proof
    ) external {
        _enter(id, state, Phase.ProveLeaf);
        _checkPast(state, keccak256(proof.node), history);
        bytes32 origin = _origin(keccak256(abi.encode(context)), segment.logRoot, segment.stepLeaf);
        if (origin != history.origin) revert WrongContext(origin, history.origin);
        Question memory question = _question(state, history);
        question.cursor = state.claim;
        question.step = context.firstStep + state.step();
        if (state.kind() == INPUT) question.stateBefore = _stateBefore(state.step(), context, segment);
        _judge(id, history.arbiter, context, question, proof);
    }

    function _question(State memory state, History calldata history) private pure returns (Question memory question) {
        question.traceRoot = history.tree;
        (question.node, question.element, question.term) = (state.node(), state.first(), state.item());
        (question.value, question.accBefore, question.accAfter) = (state.claimed(), state.accBefore(), state.claimed());
    }

    function _stateBefore(uint256 step, Context calldata context, Segment calldata segment)
        private
        view
        returns (bytes32)
    {
        // INVARIANT: the first step starts from the agreed state, every other from the leaf before it.
        if (step == 0) return context.startRoot;
        bytes32 leaf = Merkle.leafHash32(segment.stateBefore);
        if (!Merkle.verifyInclusion(segment.logRoot, context.steps, step - 1, leaf, segment.proof)) {
            revert WrongInclusion(segment.logRoot, context.steps, step - 1);
        }
        return segment.stateBefore;
    }

    function _judge(
        uint256 id,
        address arbiter,
        Context memory context,
        Question memory question,
        Proof calldata proof
    ) private {
        if (!REFEREE.convicts(context, question, proof)) revert ProofRejected(proof.kind, proof.index);
        _finish(id, arbiter, true, false);
    }
}
