// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {Context, IProgramJudge, IReferee, NodeFacts, Proof, Question} from "./interfaces/IReferee.sol";
import {Faults} from "./lib/Faults.sol";
import {Float32} from "./lib/Float32.sol";
import {Folds} from "./lib/Folds.sol";
import {Merkle} from "./lib/Merkle.sol";
import {Operands, Place} from "./lib/Operands.sol";
import {Primitives} from "./lib/Primitives.sol";
import {Layout, Program} from "./lib/Program.sol";
import {Randomness} from "./lib/Randomness.sol";

/// @notice No proof of this kind exists for a node of that kind.
error ProofDoesNotApply(uint8 proofKind, uint256 nodeKind);
/// @notice The disputed element or term is not one of the node's.
error ElementOutOfRange(uint256 element, uint256 numel);
error TermOutOfRange(uint256 term, uint256 terms);
/// @notice The values are not those that the defendant posted.
error ValuesMismatch(bytes32 posted, bytes32 given);
/// @notice The posted values have a wrong length, which is what must be proven (RESULT) first.
error InvalidValuesLength(uint256 expected, uint256 given);
/// @notice The expression has no such instruction.
error InstructionOutOfRange(uint256 instruction, uint256 count);
/// @notice A node refers to itself or to a later node.
error ForwardReference(uint256 source, uint256 node);
/// @notice The chunk is not the one at this index of a tensor of that size.
error InvalidChunkLength(uint256 expected, uint256 given);
/// @notice The chunk is not leaf `index` of the given tensor root.
error InvalidChunkProof(uint256 index, uint256 size);
/// @notice The tensor root is not leaf `index` of a tree of `size` leaves.
error InvalidRootProof(uint256 index, uint256 size);

/// @title The referee: recomputes one primitive, one element or one root
/// @notice The last step of a dispute. All sizes follow from the node and the context, everything else
/// is proven against a root, so an honest defendant can't be convicted by any proof. `protocol/one_step.py`
/// is the same in Python. Parts of a proof that its kind does not use are ignored.
contract Referee is IReferee, IProgramJudge {
    // Kinds of proofs.
    uint8 private constant RESULT = 0;
    uint8 private constant INSTRUCTION = 1;
    uint8 private constant OPERAND = 2;
    uint8 private constant ELEMENT = 3;
    uint8 private constant ROOT = 4;

    uint256 private constant CHUNK_ELEMENTS = 256;

    // What the game asks -----------------------------------------------------------------------------

    /// @inheritdoc IReferee
    function facts(bytes calldata node) external pure returns (NodeFacts memory) {
        Layout memory l = Program.decode(node);
        return NodeFacts(uint8(l.kind), uint8(l.fold), uint8(l.lanes), uint32(l.numel), uint32(l.terms));
    }

    /// @inheritdoc IReferee
    function combine(uint8 fold, uint32 a, uint32 b) external pure returns (uint32) {
        return Folds.combine(fold, a, b);
    }

    /// @inheritdoc IReferee
    function identity(uint8 fold) external pure returns (uint32) {
        return Folds.identity(fold);
    }

    /// @inheritdoc IReferee
    function finish(uint8 fold, uint32 s) external pure returns (uint32) {
        return Folds.finish(fold, s);
    }

    /// @inheritdoc IReferee
    function combineLanes(uint8 fold, uint64 terms, bytes calldata lanes)
        external
        pure
        returns (uint32 value, bool emptyLanesHold)
    {
        return Folds.combineLanes(fold, terms, lanes);
    }

    /// @inheritdoc IProgramJudge
    function isFaulty(
        bytes calldata node,
        uint256 index,
        uint256 nNodes,
        uint256 nState,
        uint256 nConst,
        uint256 nData
    ) external pure returns (bool) {
        Layout memory l = Program.decode(node);
        // INVARIANT: the last nodes are the outputs, and no others are.
        if ((l.kind == Program.OUTPUT) != (index + nState >= nNodes)) return true;
        if (l.kind == Program.INPUT) return Program.u32(node, l.body) >= nState;
        if (l.kind == Program.CONST) return Program.u32(node, l.body) >= nConst;
        if (l.kind == Program.DATA) return Program.u32(node, l.body) >= nData;
        if (l.kind == Program.OUTPUT) return Program.u32(node, l.body) >= index;
        return (l.kind == Program.MAP || l.kind == Program.FOLD) && Faults.inExpression(node, l, index);
    }

    // The verdict ------------------------------------------------------------------------------------

    /// @inheritdoc IReferee
    function convicts(Context calldata ctx, Question calldata q, Proof calldata proof)
        external
        view
        returns (bool)
    {
        Layout memory l = Program.decode(proof.node);
        uint8 kind = proof.kind;
        bool computes = l.kind == Program.MAP || l.kind == Program.FOLD;
        bool generates = l.kind == Program.STEP || l.kind == Program.SAMPLE || l.kind == Program.RAND;
        // INVARIANT: a proof judges what the game asks: the values of an expression, an element that is
        // generated, or else the root of an existing tensor.
        if (kind > ROOT || computes != (kind <= OPERAND) || generates != (kind == ELEMENT)) {
            revert ProofDoesNotApply(kind, l.kind);
        }
        if (kind == ROOT) return _rootDiffers(ctx, q, proof, l);

        // INVARIANT: the game has pointed at an element, and at a term of a fold.
        if (q.element >= l.numel) revert ElementOutOfRange(q.element, l.numel);
        if (kind == ELEMENT) return _generate(ctx, q, proof.node, l) != q.value;
        if (l.kind == Program.FOLD && q.term >= l.terms) revert TermOutOfRange(q.term, l.terms);

        // INVARIANT: the defendant is judged by its own words.
        bytes32 given = keccak256(proof.values);
        if (given != q.valuesHash) revert ValuesMismatch(q.valuesHash, given);
        uint256 expected = Program.valuesLength(l);
        if (proof.values.length != expected) {
            // INVARIANT: values of a wrong length say nothing that could be judged one by one.
            if (kind != RESULT) revert InvalidValuesLength(expected, proof.values.length);
            return true;
        }
        if (kind == RESULT) return _resultDiffers(q, proof, l);
        if (kind == INSTRUCTION) return _instructionDiffers(proof, l);
        return _operandDiffers(ctx, q, proof, l);
    }

    /// @dev The element of a STEP, SAMPLE or RAND node.
    function _generate(Context calldata ctx, Question calldata q, bytes calldata node, Layout memory l)
        private
        pure
        returns (uint32)
    {
        if (l.kind == Program.STEP) return uint32(q.step);
        uint32 first = uint32(Program.u32(node, l.body));
        if (l.kind == Program.RAND) return Randomness.philox(ctx.seed, first, q.step, uint32(q.element));
        uint32 stream = uint32(Program.u32(node, l.body + 4));
        return Randomness.sample(ctx.seed, stream, q.step, uint32(q.element), first);
    }

    /// @dev Whether the result registers do not give what is claimed: a MAP's element, or a fold's step
    /// from one accumulator to the next.
    function _resultDiffers(Question calldata q, Proof calldata proof, Layout memory l)
        private
        pure
        returns (bool)
    {
        uint32 a = _result(proof, l, 0);
        if (l.kind == Program.MAP) return (l.dtype == Program.F32 ? _canonical(a) : a) != q.value;
        uint8 fold = uint8(l.fold);
        uint32 b = fold == Folds.DOT ? _result(proof, l, 1) : 0;
        return Folds.advance(fold, q.accBefore, a, b) != q.accAfter;
    }

    function _result(Proof calldata proof, Layout memory l, uint256 i) private pure returns (uint32) {
        uint256 limit = l.operandCount + l.immediateCount + l.instructionCount;
        uint256 r = Program.u8(proof.node, l.results + i);
        return Program.register(proof.node, l, proof.values, r, limit);
    }

    /// @dev Whether one primitive on its posted operands does not give its posted result.
    function _instructionDiffers(Proof calldata proof, Layout memory l) private pure returns (bool) {
        uint256 i = proof.index;
        // INVARIANT: the instruction exists.
        if (i >= l.instructionCount) revert InstructionOutOfRange(i, l.instructionCount);
        uint256 at = l.instructions + 4 * i;
        uint8 op = uint8(Program.u8(proof.node, at));
        uint256 arity = Primitives.arity(op);
        uint256 own = l.operandCount + l.immediateCount + i;
        uint32[3] memory x;
        for (uint256 j = 0; j < arity; ++j) {
            x[j] = Program.register(proof.node, l, proof.values, Program.u8(proof.node, at + 1 + j), own);
        }
        uint32 posted = Program.register(proof.node, l, proof.values, own, own + 1);
        return Primitives.execute(op, x[0], x[1], x[2]) != posted;
    }

    /// @dev Whether a posted operand is not what the node reads there. An f32 is read canonical.
    function _operandDiffers(Context calldata ctx, Question calldata q, Proof calldata proof, Layout memory l)
        private
        view
        returns (bool)
    {
        uint256 p = proof.index;
        Place memory place = Operands.locate(proof.node, l, proof.values, p, q.element, q.term);
        uint32 posted = uint32(Program.u32(proof.values, 4 * p));
        if (place.iota) return place.value != posted;
        uint32 value = place.inside ? _open(ctx, q, proof, place) : place.value;
        if (Operands.readsInteger(proof.node, l, p)) return value != posted;
        return _canonical(value) != _canonical(posted);
    }

    /// @dev The element that a place names, opened in the defendant's own trace.
    function _open(Context calldata ctx, Question calldata q, Proof calldata proof, Place memory place)
        private
        view
        returns (uint32)
    {
        unchecked {
            // INVARIANT: a node reads earlier nodes only, whose outputs both parties agree on.
            if (place.source >= q.node) revert ForwardReference(place.source, q.node);
            uint256 index = place.index / CHUNK_ELEMENTS;
            uint256 left = place.numel - index * CHUNK_ELEMENTS;
            uint256 length = 4 * (left < CHUNK_ELEMENTS ? left : CHUNK_ELEMENTS);
            // INVARIANT: a chunk has exactly the bytes that its place in the tensor gives it.
            if (proof.chunk.length != length) revert InvalidChunkLength(length, proof.chunk.length);
            uint256 chunks = (place.numel - 1) / CHUNK_ELEMENTS + 1;
            bytes32 leaf = Merkle.leafHash(proof.chunk);
            // INVARIANT: the chunk is part of the tensor.
            if (!Merkle.verifyInclusion(proof.root, chunks, index, leaf, proof.chunkProof)) {
                revert InvalidChunkProof(index, chunks);
            }
            _requireLeaf(q.traceRoot, ctx.nNodes, place.source, proof);
            return _littleEndian(Program.u32(proof.chunk, 4 * (place.index % CHUNK_ELEMENTS)));
        }
    }

    /// @dev Whether the claimed leaf of an INPUT, CONST, DATA or OUTPUT node is not the root of the tensor
    /// that it names.
    function _rootDiffers(Context calldata ctx, Question calldata q, Proof calldata proof, Layout memory l)
        private
        view
        returns (bool)
    {
        uint256 index = Program.u32(proof.node, l.body);
        if (l.kind == Program.INPUT) return _requireLeaf(q.stateBefore, ctx.nState, index, proof) != q.cursor;
        if (l.kind == Program.CONST) return _requireLeaf(ctx.constRoot, ctx.nConst, index, proof) != q.cursor;
        if (l.kind == Program.DATA) return _requireLeaf(ctx.dataRoot, ctx.nData, index, proof) != q.cursor;
        // INVARIANT: an output is the alias of an earlier node.
        if (index >= q.node) revert ForwardReference(index, q.node);
        return _requireLeaf(q.traceRoot, ctx.nNodes, index, proof) != q.cursor;
    }

    /// @dev The leaf hash of the proof's tensor root, which must be leaf `index` of the tree.
    function _requireLeaf(bytes32 root, uint256 size, uint256 index, Proof calldata proof)
        private
        view
        returns (bytes32 leaf)
    {
        leaf = Merkle.leafHash32(proof.root);
        // INVARIANT: the tree has that leaf, at exactly that place.
        if (!Merkle.verifyInclusion(root, size, index, leaf, proof.rootProof)) {
            revert InvalidRootProof(index, size);
        }
    }

    function _canonical(uint32 bits) private pure returns (uint32) {
        return Float32.wrap(bits).canonical().toBits();
    }

    /// @dev Tensor data is little-endian, everything else big-endian.
    function _littleEndian(uint256 word) private pure returns (uint32) {
        return uint32((word >> 24) | ((word >> 8) & 0xff00) | ((word << 8) & 0xff0000) | (word << 24));
    }
}
