// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {FoldShape} from "../lib/FoldShape.sol";
import {GameBase} from "./GameBase.sol";
import {Dispute, Phase, Turn} from "./GameTypes.sol";

/// @title The moves inside one element of a FOLD: from its lanes and chains to one term.
abstract contract FoldMoves is GameBase {
    uint256 private constant LANES = 16;

    /// @notice Defendant: open the sixteen lane results of a FOLD, 64 bytes.
    function openLanes(uint256 id, bytes32 answers, bytes calldata lanes) external {
        (Dispute storage dispute, Turn memory turn,) = _enter(id, answers, Phase.Lanes);
        _checkLength(lanes.length, 4 * LANES);
        (uint32 value, bool emptyLanesHold) = REFEREE.combineLanes(dispute.fold, dispute.terms, lanes);
        // INVARIANT: lanes that nobody can point at claim nothing.
        if (!emptyLanesHold) revert EmptyLaneNotZero();
        _checkResult(value, dispute.claimed);
        turn.phase = Phase.PointLane;
        dispute.turn = turn;
        dispute.claim = keccak256(lanes);
        emit LanesOpened(id, lanes);
    }

    /// @notice Challenger: point at a lane that has terms.
    function pointLane(uint256 id, bytes32 answers, bytes calldata lanes, uint8 lane) external {
        (Dispute storage dispute, Turn memory turn, bytes32 claim) = _enter(id, answers, Phase.PointLane);
        _checkPreimage(lanes, claim);
        uint256 terms = dispute.terms;
        _checkIndex(lane, terms < LANES ? terms : LANES);
        turn.lane = lane;
        turn.foldLevel = FoldShape.topLevel(FoldShape.laneTerms(terms, LANES, lane));
        turn.phase = Phase.Fold;
        dispute.turn = turn;
        dispute.claimed = _word(lanes, lane);
        emit LanePointed(id, lane);
    }

    /// @notice Defendant: open all accumulators of the disputed chain. Below the top level, `item` is its
    /// claimed result, which must lead from the accumulator before it to the one after it.
    function openFold(uint256 id, bytes32 answers, uint32 item, bytes calldata accumulators) external {
        (Dispute storage dispute, Turn memory turn,) = _enter(id, answers, Phase.Fold);
        (uint8 fold, uint256 lanes, uint32 claimed) = (dispute.fold, dispute.lanes, dispute.claimed);
        uint256 terms = FoldShape.laneTerms(dispute.terms, lanes, turn.lane);
        uint256 length = FoldShape.chainLength(terms, turn.foldLevel, turn.item);
        _checkLength(accumulators.length, 4 * length);
        uint32 last = _word(accumulators, length - 1);
        if (turn.foldLevel == FoldShape.topLevel(terms)) {
            _checkResult(item, 0);
            // INVARIANT: the chain ends in what is claimed, bit for bit.
            _checkResult(lanes == 1 ? REFEREE.finish(fold, last) : last, claimed);
        } else {
            _checkResult(REFEREE.combine(fold, dispute.accBefore, item), claimed);
            // The claim is now `item`; pointFold replaces it before anyone reads it, so it isn't stored.
            _checkResult(last, item);
        }
        turn.phase = Phase.PointFold;
        dispute.turn = turn;
        dispute.claim = keccak256(accumulators);
        emit FoldOpened(id, item, accumulators);
    }

    /// @notice Challenger: point at an accumulator of the opened chain, the first that is wrong.
    function pointFold(uint256 id, bytes32 answers, bytes calldata accumulators, uint32 index) external {
        (Dispute storage dispute, Turn memory turn, bytes32 claim) = _enter(id, answers, Phase.PointFold);
        _checkPreimage(accumulators, claim);
        _checkIndex(index, accumulators.length / 4);
        uint32 accBefore = index == 0 ? REFEREE.identity(dispute.fold) : _word(accumulators, index - 1);
        uint32 accAfter = _word(accumulators, index);
        turn.item = uint32(FoldShape.CHAIN) * turn.item + index;
        if (turn.foldLevel > 0) {
            // The item is itself the result of a chain one level down.
            turn.foldLevel--;
            turn.phase = Phase.Fold;
        } else {
            // The number of the item in its lane becomes that of the term in the fold.
            turn.item = uint32(dispute.lanes) * turn.item + turn.lane;
            turn.phase = Phase.Values;
        }
        dispute.turn = turn;
        (dispute.accBefore, dispute.claimed) = (accBefore, accAfter);
        emit FoldPointed(id, index, accBefore, accAfter);
    }

    /// @dev Word `index` of a string of big-endian words.
    function _word(bytes calldata words, uint256 index) private pure returns (uint32) {
        return uint32(bytes4(words[4 * index:]));
    }
}
