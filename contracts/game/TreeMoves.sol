// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {Context, NodeFacts} from "../interfaces/IReferee.sol";
import {FoldShape} from "../lib/FoldShape.sol";
import {Merkle} from "../lib/Merkle.sol";
import {GameBase} from "./GameBase.sol";
import {Dispute, Level, Phase, Turn} from "./GameTypes.sol";

/// @title The moves down the trees: from the segment's steps to one element of one node's tensor.
abstract contract TreeMoves is GameBase {
    uint256 private constant CHUNK_ELEMENTS = 256;
    uint256 private constant CHUNK_BYTES = 1024;
    // Kinds of node (protocol/program.py).
    uint8 private constant INPUT = 0x01;
    uint8 private constant DATA = 0x03;
    uint8 private constant MAP = 0x10;
    uint8 private constant FOLD = 0x11;
    uint8 private constant OUTPUT = 0x20;

    /// @notice Defendant: commit to the state roots after all steps, the last of which is `endRoot`.
    function commitSteps(
        uint256 id,
        bytes32 answers,
        Context calldata context,
        bytes32 logRoot,
        bytes32[] calldata lastProof,
        bytes32[] calldata children
    ) external {
        (Dispute storage dispute, Turn memory turn,) = _enter(id, answers, Phase.Commit);
        _checkContext(dispute, context);
        // INVARIANT: the log ends in the state that the defendant committed to.
        _checkInclusion(logRoot, context.steps, context.steps - 1, context.endRoot, lastProof);
        dispute.tree = logRoot;
        _openTree(dispute, turn, Level.Steps, logRoot, context.steps, children);
        emit StepsCommitted(id, logRoot, children);
    }

    /// @notice Challenger: point at a child of the cursor; `path` are its siblings among the children.
    function point(uint256 id, bytes32 answers, uint32 index, bytes32 child, bytes32[] calldata path) external {
        (Dispute storage dispute, Turn memory turn, bytes32 claim) = _enter(id, answers, Phase.Point);
        _moveCursor(turn, claim, index, child, path);
        if (turn.count > 1) turn.phase = Phase.Open;
        else if (turn.level == Level.Steps) turn.phase = Phase.RevealStep;
        else if (turn.level == Level.State) turn.phase = Phase.RevealTensor;
        else if (turn.level == Level.Chunk) turn.phase = Phase.RevealChunk;
        else revert WrongPointer(turn.level, turn.count);
        dispute.turn = turn;
        dispute.claim = child;
        emit Pointed(id, index, child);
    }

    /// @notice Defendant: open the cursor into its children.
    function open(uint256 id, bytes32 answers, bytes32[] calldata children) external {
        (Dispute storage dispute, Turn memory turn, bytes32 claim) = _enter(id, answers, Phase.Open);
        _checkChildren(claim, turn.count, children);
        turn.phase = Phase.Point;
        dispute.turn = turn;
        emit Opened(id, children);
    }

    /// @notice Defendant: reveal the disputed state root, prove the one before it, open the former.
    function revealStep(
        uint256 id,
        bytes32 answers,
        Context calldata context,
        bytes32 stateAfter,
        bytes32 stateBefore,
        bytes32[] calldata proof,
        bytes32[] calldata children
    ) external {
        (Dispute storage dispute, Turn memory turn, bytes32 claim) = _enter(id, answers, Phase.RevealStep);
        _checkContext(dispute, context);
        _checkLeaf(stateAfter, claim);
        uint32 step = turn.first;
        if (step == 0) {
            // INVARIANT: the first step starts from the agreed state.
            if (stateBefore != context.startRoot) revert WrongStateBefore(stateBefore, context.startRoot);
            if (proof.length != 0) revert WrongLength(proof.length, 0);
        } else {
            _checkInclusion(dispute.tree, context.steps, step - 1, stateBefore, proof);
            dispute.stateBefore = stateBefore;
        }
        dispute.step = step;
        _openTree(dispute, turn, Level.State, stateAfter, context.nState, children);
        emit StepRevealed(id, stateAfter, stateBefore, children);
    }

    /// @notice Defendant: reveal the disputed state tensor's root and open the trace that ends in it.
    function revealTensor(
        uint256 id,
        bytes32 answers,
        Context calldata context,
        bytes32 tensorRoot,
        bytes32 traceRoot,
        bytes32[] calldata proof,
        bytes32[] calldata children
    ) external {
        (Dispute storage dispute, Turn memory turn, bytes32 claim) = _enter(id, answers, Phase.RevealTensor);
        _checkContext(dispute, context);
        _checkLeaf(tensorRoot, claim);
        // INVARIANT: a trace produces the claimed state; which node is the output is the program's choice.
        uint256 output = context.nNodes - context.nState + turn.first;
        _checkInclusion(traceRoot, context.nNodes, output, tensorRoot, proof);
        dispute.tree = traceRoot;
        _openTree(dispute, turn, Level.Trace, traceRoot, context.nNodes, children);
        emit TensorRevealed(id, tensorRoot, traceRoot, children);
    }

    /// @notice Challenger: point at a node of the trace and show which one it is in the program.
    function pointNode(
        uint256 id,
        bytes32 answers,
        Context calldata context,
        uint32 index,
        bytes32 child,
        bytes32[] calldata path,
        bytes calldata node,
        bytes32[] calldata nodeProof
    ) external {
        (Dispute storage dispute, Turn memory turn, bytes32 claim) = _enter(id, answers, Phase.Point);
        bytes32 binding = _checkContext(dispute, context);
        _moveCursor(turn, claim, index, child, path);
        if (turn.level != Level.Trace || turn.count > 1) revert WrongPointer(turn.level, turn.count);
        if (!Merkle.verifyInclusion(context.programRoot, context.nNodes, turn.first, Merkle.leafHash(node), nodeProof)) {
            revert WrongInclusion(context.programRoot, context.nNodes, turn.first);
        }
        NodeFacts memory facts = REFEREE.facts(node);
        if (facts.numel > type(uint32).max || facts.terms > type(uint32).max) {
            revert NodeTooLarge(facts.numel, facts.terms);
        }
        bool alias_ = facts.kind == OUTPUT || (facts.kind >= INPUT && facts.kind <= DATA);
        turn.phase = alias_ ? Phase.ProveRoot : Phase.RevealNode;
        turn.count = uint32((facts.numel + CHUNK_ELEMENTS - 1) / CHUNK_ELEMENTS);
        dispute.turn = turn;
        dispute.claim = child;
        dispute.node = turn.first;
        dispute.kind = facts.kind;
        dispute.fold = facts.fold;
        dispute.lanes = facts.lanes;
        dispute.numel = uint32(facts.numel);
        dispute.terms = uint32(facts.terms);
        dispute.binding = _bind(binding, node);
        emit NodePointed(id, index, child, facts);
    }

    /// @notice Defendant: reveal the root of the disputed node's tensor and open its chunks.
    function revealNode(uint256 id, bytes32 answers, bytes32 tensorRoot, bytes32[] calldata children) external {
        (Dispute storage dispute, Turn memory turn, bytes32 claim) = _enter(id, answers, Phase.RevealNode);
        _checkLeaf(tensorRoot, claim);
        _openTree(dispute, turn, Level.Chunk, tensorRoot, turn.count, children);
        emit NodeRevealed(id, tensorRoot, children);
    }

    /// @notice Defendant: reveal the data of the disputed chunk.
    function revealChunk(uint256 id, bytes32 answers, bytes calldata chunk) external {
        (Dispute storage dispute, Turn memory turn, bytes32 claim) = _enter(id, answers, Phase.RevealChunk);
        uint256 rest = 4 * uint256(dispute.numel) - CHUNK_BYTES * turn.first;
        // INVARIANT: the program decides the length, also of a last chunk.
        _checkLength(chunk.length, rest < CHUNK_BYTES ? rest : CHUNK_BYTES);
        _checkChunk(chunk, claim);
        turn.phase = Phase.PointElement;
        dispute.turn = turn;
        emit ChunkRevealed(id, chunk);
    }

    /// @notice Challenger: point at an element of the revealed chunk.
    function pointElement(uint256 id, bytes32 answers, bytes calldata chunk, uint32 offset) external {
        (Dispute storage dispute, Turn memory turn, bytes32 claim) = _enter(id, answers, Phase.PointElement);
        _checkChunk(chunk, claim);
        _checkIndex(offset, chunk.length / 4);
        uint32 value = _reverse(uint32(bytes4(chunk[4 * offset:])));
        turn.first = uint32(CHUNK_ELEMENTS) * turn.first + offset;
        turn.phase = Phase.Prove;
        if (dispute.kind == MAP) turn.phase = Phase.Values;
        else if (dispute.kind == FOLD) {
            turn.phase = dispute.lanes == 1 ? Phase.Fold : Phase.Lanes;
            if (dispute.lanes == 1) turn.foldLevel = FoldShape.topLevel(dispute.terms);
        }
        dispute.turn = turn;
        dispute.claimed = value;
        emit ElementPointed(id, offset, value);
    }

    function _bind(bytes32 contextHash, bytes calldata node) internal pure returns (bytes32) {
        return keccak256(abi.encodePacked(contextHash, keccak256(node)));
    }

    function _checkContext(Dispute storage dispute, Context calldata context) private view returns (bytes32 hash) {
        hash = keccak256(abi.encode(context));
        if (hash != dispute.binding) revert WrongContext(hash, dispute.binding);
    }

    function _checkInclusion(bytes32 root, uint256 size, uint256 index, bytes32 leaf, bytes32[] calldata proof)
        private
        view
    {
        if (!Merkle.verifyInclusion(root, size, index, Merkle.leafHash32(leaf), proof)) {
            revert WrongInclusion(root, size, index);
        }
    }

    function _checkLeaf(bytes32 root, bytes32 claim) private view {
        bytes32 leaf = Merkle.leafHash32(root);
        if (leaf != claim) revert WrongLeaf(leaf, claim);
    }

    function _checkChunk(bytes calldata chunk, bytes32 claim) private view {
        bytes32 leaf = Merkle.leafHash(chunk);
        if (leaf != claim) revert WrongLeaf(leaf, claim);
    }

    function _checkChildren(bytes32 root, uint256 count, bytes32[] calldata children) private view {
        uint256 expected = Merkle.childCount(count);
        if (children.length != expected) revert WrongChildCount(children.length, expected);
        bytes32 combined = Merkle.combine(children);
        if (combined != root) revert WrongChildren(combined, root);
    }

    /// @dev Put the cursor on a whole tree and open it; a tree of one leaf has no children to open.
    function _openTree(
        Dispute storage dispute,
        Turn memory turn,
        Level level,
        bytes32 root,
        uint32 count,
        bytes32[] calldata children
    ) private {
        turn.level = level;
        (turn.first, turn.count) = (0, count);
        if (count > 1) {
            _checkChildren(root, count, children);
            turn.phase = Phase.Point;
        } else {
            if (children.length != 0) revert WrongChildCount(children.length, 0);
            if (level == Level.Steps) turn.phase = Phase.RevealStep;
            else turn.phase = level == Level.State ? Phase.RevealTensor : Phase.RevealChunk;
        }
        dispute.turn = turn;
        dispute.claim = root;
    }

    function _moveCursor(Turn memory turn, bytes32 claim, uint32 index, bytes32 child, bytes32[] calldata path)
        private
        view
    {
        uint256 count = turn.count;
        if (!Merkle.verifyInclusion(claim, Merkle.childCount(count), index, child, path)) {
            revert WrongChild(index, child);
        }
        turn.first += uint32(index * Merkle.blockSize(count));
        turn.count = uint32(Merkle.childLeafCount(count, index));
    }

    /// @dev Tensor data is little-endian.
    function _reverse(uint32 x) private pure returns (uint32) {
        x = ((x & 0x00ff00ff) << 8) | ((x >> 8) & 0x00ff00ff);
        return (x << 16) | (x >> 16);
    }
}
