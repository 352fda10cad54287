// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {NodeFacts} from "../interfaces/IReferee.sol";
import {FoldShape} from "../lib/FoldShape.sol";
import {Merkle} from "../lib/Merkle.sol";
import {WordTree} from "../lib/WordTree.sol";
import {Level, Phase, State} from "./GameTypes.sol";
import {TreeMoves} from "./TreeMoves.sol";

/// @title The moves from a node of the trace to one element of its tensor.
abstract contract NodeMoves is TreeMoves {
    uint256 private constant CHUNK_ELEMENTS = 256;
    uint256 private constant CHUNK_BYTES = 1024;
    // Kinds of node (protocol/program.py).
    uint8 internal constant INPUT = 0x01;
    uint8 private constant DATA = 0x03;
    uint8 private constant MAP = 0x10;
    uint8 private constant FOLD = 0x11;
    uint8 private constant OUTPUT = 0x20;

    /// @notice Challenger: point at a node of the trace and show which one it is in the program, whose root and
    /// history's hash make up the past.
    function pointNode(
        uint256 id,
        State memory state,
        bytes32 program,
        bytes32 historyHash,
        uint32 index,
        bytes32 child,
        bytes32[] calldata path,
        bytes calldata node,
        bytes32[] calldata nodeProof
    ) external {
        _enterPoint(id, state, Level.Trace);
        bytes32 past = _pair(program, historyHash);
        if (past != state.past) revert WrongPast(past, state.past);
        (uint32 number, uint32 count) = _child(state, index, child, path);
        if (count > 1) revert WrongPointer(Level.Trace, count);
        if (!Merkle.verifyInclusion(program, state.nNodes(), number, Merkle.leafHash(node), nodeProof)) {
            revert WrongInclusion(program, state.nNodes(), number);
        }
        NodeFacts memory facts = REFEREE.facts(node);
        state.setNode(number, facts);
        bytes32 nodeHash = keccak256(node);
        state.claim = child;
        state.past = _pair(nodeHash, historyHash);
        bool alias_ = facts.kind == OUTPUT || (facts.kind >= INPUT && facts.kind <= DATA);
        if (alias_) {
            state.setCursor(Phase.ProveLeaf, Level.Trace, number, 1);
        } else {
            uint256 chunks = (facts.numel + CHUNK_ELEMENTS - 1) / CHUNK_ELEMENTS;
            // A tensor of one chunk has nothing to point at: the chunk itself is revealed.
            state.setCursor(chunks > 1 ? Phase.Reveal : Phase.RevealChunk, Level.Chunk, 0, uint32(chunks));
        }
        emit NodePointed(id, _store(id, state), state.element, nodeHash);
    }

    /// @notice Defendant: reveal the data of the disputed chunk.
    function revealChunk(uint256 id, State memory state, bytes calldata chunk) external {
        _enter(id, state, Phase.RevealChunk);
        // INVARIANT: the program decides the length, also of a last chunk.
        _checkLength(chunk.length, 4 * _elements(state));
        bytes32 leaf = Merkle.leafHash(chunk);
        // The cursor of a tensor of one chunk is still the node's leaf in the trace, which holds the root.
        if (state.numel() <= CHUNK_ELEMENTS) leaf = Merkle.leafHash32(leaf);
        if (leaf != state.claim) revert WrongLeaf(leaf, state.claim);
        state.setPhase(Phase.PointElement);
        state.claim = WordTree.root(chunk, 0);
        emit ChunkRevealed(id, _store(id, state), chunk);
    }

    /// @notice Challenger: point at an element of the revealed chunk, and show it in `eight` of its words, of
    /// which `before` is the word before the first (`WordTree`).
    function pointElement(
        uint256 id,
        State memory state,
        uint32 offset,
        uint32 before,
        bytes32 eight,
        bytes32[] calldata path
    ) external {
        _enter(id, state, Phase.PointElement);
        uint256 elements = _elements(state);
        _checkIndex(offset, elements);
        (bool valid,, uint32 word) = WordTree.show(state.claim, elements, offset, before, eight, path);
        if (!valid) revert WrongWords(offset, state.claim);
        state.setClaimed(0, _reverse(word));
        state.setCursor(uint32(CHUNK_ELEMENTS) * state.first() + offset, state.count());
        state.setPhase(Phase.ProveLeaf);
        if (state.kind() == MAP) state.setPhase(Phase.Values);
        else if (state.kind() == FOLD) {
            state.setPhase(state.lanes() == 1 ? Phase.Fold : Phase.Lanes);
            if (state.lanes() == 1) state.setFoldLevel(FoldShape.topLevel(state.terms()));
        }
        state.claim = 0;
        emit ElementPointed(id, _store(id, state), offset);
    }

    /// @dev How many elements the disputed chunk has.
    function _elements(State memory state) private pure returns (uint256) {
        uint256 rest = uint256(state.numel()) - CHUNK_ELEMENTS * state.first();
        return rest < CHUNK_ELEMENTS ? rest : CHUNK_ELEMENTS;
    }

    /// @dev Tensor data is little-endian.
    function _reverse(uint32 x) private pure returns (uint32) {
        x = ((x & 0x00ff00ff) << 8) | ((x >> 8) & 0x00ff00ff);
        return (x << 16) | (x >> 16);
    }
}
