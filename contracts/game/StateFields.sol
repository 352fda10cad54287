// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {NodeFacts} from "../interfaces/IReferee.sol";
import {Level, Phase, State} from "./GameTypes.sol";

/// @title The fields of a dispute's state, big-endian in its words, the last of each word in the lowest bits.
/// @dev A move touches few of them, so they stay packed: taking all apart and together again costs 5,000 gas.
library StateFields {
    /// @return digest the hash by which the game knows a state. The six words of a struct in memory are in a row.
    function hash(State memory s) internal pure returns (bytes32 digest) {
        assembly ("memory-safe") {
            digest := keccak256(s, 192)
        }
    }

    // turn -------------------------------------------------------------------------------------------

    /// @dev Time of the last move.
    function movedAt(State memory s) internal pure returns (uint40) {
        return uint40(s.turn >> 208);
    }

    /// @dev Seconds left at that time.
    function defendantClock(State memory s) internal pure returns (uint32) {
        return uint32(s.turn >> 176);
    }

    function challengerClock(State memory s) internal pure returns (uint32) {
        return uint32(s.turn >> 144);
    }

    function isPhase(State memory s, Phase phase_) internal pure returns (bool) {
        return uint8(s.turn >> 136) == uint8(phase_);
    }

    function phase(State memory s) internal pure returns (Phase) {
        return Phase(uint8(s.turn >> 136));
    }

    function setPhase(State memory s, Phase value) internal pure {
        s.turn = _put(s.turn, 136, 8, uint256(value));
    }

    function level(State memory s) internal pure returns (Level) {
        return Level(uint8(s.turn >> 128));
    }

    /// @dev The cursor's first leaf; from pointElement on the disputed element.
    function first(State memory s) internal pure returns (uint32) {
        return uint32(s.turn >> 80);
    }

    /// @dev The cursor's leaves; from pointNode on those of the node's tensor.
    function count(State memory s) internal pure returns (uint32) {
        return uint32(s.turn >> 48);
    }

    /// @dev The disputed lane of a FOLD.
    function lane(State memory s) internal pure returns (uint8) {
        return uint8(s.turn >> 40);
    }

    function setLane(State memory s, uint8 value) internal pure {
        s.turn = _put(s.turn, 40, 8, value);
    }

    /// @dev 0 has terms, each level above it has the results of the chains below.
    function foldLevel(State memory s) internal pure returns (uint8) {
        return uint8(s.turn >> 32);
    }

    function setFoldLevel(State memory s, uint8 value) internal pure {
        s.turn = _put(s.turn, 32, 8, value);
    }

    /// @dev FOLD: number of the chain in its level; then, in VALUES, the disputed term.
    function item(State memory s) internal pure returns (uint32) {
        return uint32(s.turn);
    }

    function setItem(State memory s, uint32 value) internal pure {
        s.turn = _put(s.turn, 0, 32, value);
    }

    function begin(State memory s, uint32 defendantClock_, uint32 challengerClock_, Phase phase_, uint32 count_)
        internal
        view
    {
        uint256 clocks = uint256(defendantClock_) << 32 | challengerClock_;
        s.turn = uint256(uint40(block.timestamp)) << 208 | clocks << 144;
        setCursor(s, phase_, Level.Steps, 0, count_);
    }

    /// @dev The number of moves, 2 bytes at bit 112, is only counted: it tells apart what would else be equal.
    /// One move more, made now, and what it has left of its party's clock.
    function countMove(State memory s, bool defendants, uint32 left) internal view {
        uint256 turn = _put(s.turn, defendants ? 176 : 144, 32, left);
        unchecked {
            s.turn = _put(turn, 208, 40, uint40(block.timestamp)) + (1 << 112);
        }
    }

    function setCursor(State memory s, uint32 first_, uint32 count_) internal pure {
        s.turn = _put(s.turn, 48, 64, uint256(first_) << 32 | count_);
    }

    function setCursor(State memory s, Phase phase_, Level level_, uint32 first_, uint32 count_) internal pure {
        uint256 turn = _put(s.turn, 128, 16, uint256(phase_) << 8 | uint256(level_));
        s.turn = _put(turn, 48, 64, uint256(first_) << 32 | count_);
    }

    // defence ----------------------------------------------------------------------------------------

    function defendant(State memory s) internal pure returns (address) {
        return address(uint160(s.defence >> 96));
    }

    /// @dev Disputed step, counted in the segment.
    function step(State memory s) internal pure returns (uint32) {
        return uint32(s.defence >> 64);
    }

    function setStep(State memory s, uint32 value) internal pure {
        s.defence = _put(s.defence, 64, 32, value);
    }

    /// @dev State tensors and nodes of the context.
    function nState(State memory s) internal pure returns (uint32) {
        return uint32(s.defence >> 32);
    }

    function nNodes(State memory s) internal pure returns (uint32) {
        return uint32(s.defence);
    }

    function setDefendant(State memory s, address party, uint32 nState_, uint32 nNodes_) internal pure {
        s.defence = uint256(uint160(party)) << 96 | uint256(nState_) << 32 | nNodes_;
    }

    // challenge ---------------------------------------------------------------------------------------

    function challenger(State memory s) internal pure returns (address) {
        return address(uint160(s.challenge));
    }

    // element -----------------------------------------------------------------------------------------

    /// @dev Kind of the disputed node.
    function kind(State memory s) internal pure returns (uint8) {
        return uint8(s.element >> 176);
    }

    function fold(State memory s) internal pure returns (uint8) {
        return uint8(s.element >> 168);
    }

    function lanes(State memory s) internal pure returns (uint8) {
        return uint8(s.element >> 160);
    }

    /// @dev The disputed node.
    function node(State memory s) internal pure returns (uint32) {
        return uint32(s.element >> 128);
    }

    /// @dev Elements of its tensor.
    function numel(State memory s) internal pure returns (uint32) {
        return uint32(s.element >> 96);
    }

    /// @dev Terms of a FOLD, else 0.
    function terms(State memory s) internal pure returns (uint32) {
        return uint32(s.element >> 64);
    }

    /// @dev Value of the element, lane or accumulator in dispute.
    function claimed(State memory s) internal pure returns (uint32) {
        return uint32(s.element >> 32);
    }

    /// @dev FOLD: agreed accumulator before the disputed item.
    function accBefore(State memory s) internal pure returns (uint32) {
        return uint32(s.element);
    }

    function setNode(State memory s, uint32 node_, NodeFacts memory facts) internal pure {
        uint256 kinds = uint256(facts.kind) << 16 | uint256(facts.fold) << 8 | facts.lanes;
        s.element = kinds << 160 | uint256(node_) << 128 | uint256(facts.numel) << 96 | uint256(facts.terms) << 64;
    }

    function setClaimed(State memory s, uint32 accBefore_, uint32 claimed_) internal pure {
        s.element = _put(s.element, 0, 64, uint256(claimed_) << 32 | accBefore_);
    }

    /// @dev `word` with other `bits` bits at `shift`; the value has no more.
    function _put(uint256 word, uint256 shift, uint256 bits, uint256 value) private pure returns (uint256) {
        unchecked {
            return (word & ~(((1 << bits) - 1) << shift)) | (value << shift);
        }
    }
}
