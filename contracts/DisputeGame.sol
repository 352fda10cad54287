// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {FoldMoves} from "./game/FoldMoves.sol";
import {GameBase} from "./game/GameBase.sol";
import {Dispute, Phase, Turn} from "./game/GameTypes.sol";
import {TreeMoves} from "./game/TreeMoves.sol";
import {IDisputeGame} from "./interfaces/IDisputeGame.sol";
import {Context, IReferee, Proof, Question} from "./interfaces/IReferee.sol";

/// @title The dispute game (specification, section 6; `protocol/dispute.py` is the same in Python).
/// @notice Two parties disagree about the state after some training steps. The defendant claims, the
/// challenger points, until one operation on one element is left, which the referee recomputes.
///
/// Every move names what it answers: `answers` must be `position(id)`, a digest of all that is in dispute
/// and of the number of moves made. A move can therefore be made once, and never lands on another claim
/// or point than its author saw, be it after a reorganization or from copied calldata.
/// @dev Knows no money: the creator of a dispute is its arbiter and acts on the verdict.
contract DisputeGame is IDisputeGame, TreeMoves, FoldMoves {
    uint256 private constant MAX_VALUES_BYTES = 288;
    uint8 private constant PROOF_ROOT = 4;

    constructor(IReferee referee) GameBase(referee) {}

    /// @notice Open a dispute; the sender becomes its arbiter and must have checked that the parties do
    /// disagree about `endRoot` and agree about everything else in the context.
    /// @dev The slots that later moves overwrite are filled here, so that opening a dispute costs its
    /// creator more and answering costs the defendant less.
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

        id = ++disputeCount;
        Dispute storage dispute = _disputes[id];
        Turn memory turn;
        turn.movedAt = uint40(block.timestamp);
        turn.defendantClock = defendantClock;
        turn.challengerClock = challengerClock;
        turn.phase = Phase.Commit;
        dispute.turn = turn;
        dispute.claim = context.endRoot;
        dispute.defendant = defendant;
        dispute.challenger = challenger;
        dispute.arbiter = msg.sender;
        dispute.binding = keccak256(abi.encode(context));
        dispute.stateBefore = context.startRoot;
        dispute.tree = context.endRoot; // commitSteps replaces it
        emit DisputeCreated(id, defendant, challenger, msg.sender, defendantClock, challengerClock, context);
    }

    /// @notice Defendant: post the operands' values and the result of every instruction.
    function postValues(uint256 id, bytes32 answers, bytes calldata values) external {
        (Dispute storage dispute, Turn memory turn,) = _enter(id, answers, Phase.Values);
        if (values.length > MAX_VALUES_BYTES) revert WrongLength(values.length, MAX_VALUES_BYTES);
        turn.phase = Phase.Prove;
        dispute.turn = turn;
        dispute.claim = keccak256(values);
        emit ValuesPosted(id, values);
    }

    /// @notice Challenger: the one-step proof. It convicts or reverts; there is no other way to win than
    /// this and the defendant's clock.
    function prove(uint256 id, bytes32 answers, Context calldata context, Proof calldata proof) external {
        // INVARIANT: a root is judged where a root was claimed, an element where an element was.
        Phase phase = proof.kind == PROOF_ROOT ? Phase.ProveRoot : Phase.Prove;
        (Dispute storage dispute, Turn memory turn, bytes32 claim) = _enter(id, answers, phase);
        bytes32 binding = _bind(keccak256(abi.encode(context)), proof.node);
        if (binding != dispute.binding) revert WrongNode(binding, dispute.binding);
        Question memory question = Question({
            stateBefore: dispute.stateBefore,
            traceRoot: dispute.tree,
            cursor: phase == Phase.ProveRoot ? claim : bytes32(0),
            valuesHash: phase == Phase.Prove ? claim : bytes32(0),
            step: context.firstStep + dispute.step,
            element: turn.first,
            term: turn.item,
            node: dispute.node,
            value: dispute.claimed,
            accBefore: dispute.accBefore,
            accAfter: dispute.claimed
        });
        if (!REFEREE.convicts(context, question, proof)) revert ProofRejected(proof.kind, proof.index);
        _finish(id, dispute, turn, true, false);
    }
}
