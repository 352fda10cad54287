// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {FoldShape} from "../lib/FoldShape.sol";
import {WordTree} from "../lib/WordTree.sol";
import {GameBase} from "./GameBase.sol";
import {Phase, State} from "./GameTypes.sol";

/// @title The moves inside one element of a FOLD: from its lanes and chains to one term.
abstract contract FoldMoves is GameBase {
    uint256 private constant LANES = 16;

    /// @notice Defendant: open the sixteen lane results of a FOLD, 64 bytes.
    function openLanes(uint256 id, State memory state, bytes calldata lanes) external {
        _enter(id, state, Phase.Lanes);
        _checkLength(lanes.length, 4 * LANES);
        (uint32 value, bool emptyLanesHold) = REFEREE.combineLanes(state.fold(), state.terms(), lanes);
        // INVARIANT: lanes that nobody can point at claim nothing.
        if (!emptyLanesHold) revert EmptyLaneNotZero();
        _checkResult(value, state.claimed());
        state.setPhase(Phase.PointLane);
        state.claim = keccak256(lanes);
        emit LanesOpened(id, _store(id, state), lanes);
    }

    /// @notice Challenger: point at a lane that has terms.
    function pointLane(uint256 id, State memory state, bytes calldata lanes, uint8 lane) external {
        _enter(id, state, Phase.PointLane);
        bytes32 given = keccak256(lanes);
        if (given != state.claim) revert WrongPreimage(given, state.claim);
        uint256 terms = state.terms();
        _checkIndex(lane, terms < LANES ? terms : LANES);
        state.setLane(lane);
        state.setFoldLevel(FoldShape.topLevel(FoldShape.laneTerms(terms, LANES, lane)));
        state.setClaimed(0, _word(lanes, lane));
        state.setPhase(Phase.Fold);
        state.claim = 0;
        emit LanePointed(id, _store(id, state), lane);
    }

    /// @notice Defendant: open all accumulators of the disputed chain. The last of them is what is claimed;
    /// below the top level, it must lead from the accumulator before the chain to the one after it.
    function openFold(uint256 id, State memory state, bytes calldata accumulators) external {
        _enter(id, state, Phase.Fold);
        uint256 terms = FoldShape.laneTerms(state.terms(), state.lanes(), state.lane());
        uint256 length = FoldShape.chainLength(terms, state.foldLevel(), state.item());
        _checkLength(accumulators.length, 4 * length);
        uint32 last = _word(accumulators, length - 1);
        // INVARIANT: the chain ends in what is claimed, bit for bit.
        if (state.foldLevel() < FoldShape.topLevel(terms)) {
            _checkResult(REFEREE.combine(state.fold(), state.accBefore(), last), state.claimed());
        } else {
            _checkResult(state.lanes() == 1 ? REFEREE.finish(state.fold(), last) : last, state.claimed());
        }
        uint32 identity = REFEREE.identity(state.fold());
        state.setPhase(Phase.PointFold);
        state.claim = WordTree.root(accumulators, identity);
        emit FoldOpened(id, _store(id, state), identity, accumulators);
    }

    /// @notice Challenger: point at an accumulator of the opened chain, the first that is wrong, and show it in
    /// `eight` words of which `before` is the word before the first (`WordTree`).
    function pointFold(
        uint256 id,
        State memory state,
        uint32 index,
        uint32 before,
        bytes32 eight,
        bytes32[] calldata path
    ) external {
        _enter(id, state, Phase.PointFold);
        uint256 terms = FoldShape.laneTerms(state.terms(), state.lanes(), state.lane());
        uint256 length = FoldShape.chainLength(terms, state.foldLevel(), state.item());
        _checkIndex(index, length);
        (bool valid, uint32 previous, uint32 word) = WordTree.show(state.claim, length, index, before, eight, path);
        if (!valid) revert WrongWords(index, state.claim);
        state.setClaimed(previous, word);
        uint32 item = uint32(FoldShape.CHAIN) * state.item() + index;
        if (state.foldLevel() > 0) {
            // The item is itself the result of a chain one level down.
            state.setFoldLevel(state.foldLevel() - 1);
            state.setPhase(Phase.Fold);
        } else {
            // The number of the item in its lane becomes that of the term in the fold.
            item = uint32(state.lanes()) * item + state.lane();
            state.setPhase(Phase.Values);
        }
        state.setItem(item);
        state.claim = 0;
        emit FoldPointed(id, _store(id, state), index);
    }

    /// @dev Word `index` of a string of big-endian words.
    function _word(bytes calldata words, uint256 index) private pure returns (uint32) {
        return uint32(bytes4(words[4 * index:]));
    }
}
