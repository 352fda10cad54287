// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {Context, IReferee, NodeFacts, Proof, Question} from "../interfaces/IReferee.sol";
import {Merkle} from "../lib/Merkle.sol";

/// @title A referee for tests of the game alone, with trivial arithmetic: `tests/toy.py` is the same in Python.
/// @notice A node is `u8 kind, u8 fold, u8 lanes, u32 numel, u32 terms, u32 index` (big-endian). Term k of element
/// e of a MAP or FOLD i is a sum of multiples of these; an element that is generated depends on the step and the
/// seed as well. A fold adds modulo 2^32, beginning with 7, and is finished by flipping all bits. A MAP posts its value, a FOLD
/// its term, so RESULT compares with the claim and OPERAND with the truth.
contract ToyReferee is IReferee {
    uint32 private constant IDENTITY = 7;
    uint8 private constant RESULT = 0;
    uint8 private constant OPERAND = 2;
    uint8 private constant ELEMENT = 3;
    uint8 private constant ROOT = 4;
    uint8 private constant INPUT = 0x01;
    uint8 private constant STEP = 0x04;
    uint8 private constant RAND = 0x06;
    uint8 private constant MAP = 0x10;
    uint8 private constant FOLD = 0x11;
    uint8 private constant OUTPUT = 0x20;

    error MalformedNode(uint256 length);
    error MalformedProof(uint8 kind);

    function facts(bytes calldata node) public pure returns (NodeFacts memory) {
        if (node.length != 15) revert MalformedNode(node.length);
        return NodeFacts({
            kind: uint8(node[0]),
            fold: uint8(node[1]),
            lanes: uint8(node[2]),
            numel: uint32(bytes4(node[3:7])),
            terms: uint32(bytes4(node[7:11]))
        });
    }

    function combine(uint8, uint32 a, uint32 b) public pure returns (uint32) {
        unchecked {
            return a + b;
        }
    }

    function identity(uint8) external pure returns (uint32) {
        return IDENTITY;
    }

    function finish(uint8, uint32 s) public pure returns (uint32) {
        return ~s;
    }

    function combineLanes(uint8 fold, uint64 terms, bytes calldata lanes) external pure returns (uint32, bool) {
        uint32 sum = 0;
        bool holds = true;
        for (uint256 lane = 0; lane < 16; lane++) {
            uint32 value = uint32(bytes4(lanes[4 * lane:]));
            sum = combine(fold, sum, value);
            if (lane >= terms && value != IDENTITY) holds = false;
        }
        return (finish(fold, sum), holds);
    }

    function convicts(Context calldata context, Question calldata q, Proof calldata proof)
        external
        view
        returns (bool)
    {
        uint8 kind = facts(proof.node).kind;
        bool computes = kind == MAP || kind == FOLD;
        bool generates = kind >= STEP && kind <= RAND;
        if (computes != (proof.kind <= OPERAND) || generates != (proof.kind == ELEMENT)) {
            revert MalformedProof(proof.kind);
        }
        if (proof.kind == ROOT) return _rootDiffers(context, q, proof, kind);
        uint32 truth = _truth(generates ? context.seed : bytes32(0), q);
        if (generates) return truth != q.value;
        if (keccak256(proof.values) != q.valuesHash) revert MalformedProof(proof.kind);
        if (proof.values.length != 4) return proof.kind == RESULT;
        uint32 posted = uint32(bytes4(proof.values));
        if (proof.kind == OPERAND) return posted != truth;
        if (proof.kind != RESULT) revert MalformedProof(proof.kind);
        return kind == MAP ? posted != q.value : combine(0, q.accBefore, posted) != q.accAfter;
    }

    function _truth(bytes32 seed, Question calldata q) private pure returns (uint32) {
        unchecked {
            uint256 mixed = uint256(seed) + 0x9E3779B1 * uint256(q.step) + 0x85EBCA6B * uint256(q.node);
            return uint32(mixed + 0xC2B2AE35 * uint256(q.element) + 0x27D4EB2F * uint256(q.term));
        }
    }

    function _rootDiffers(Context calldata context, Question calldata q, Proof calldata proof, uint8 kind)
        private
        view
        returns (bool)
    {
        uint256 index = uint32(bytes4(proof.node[11:15]));
        bytes32 leaf = Merkle.leafHash32(proof.root);
        (bytes32 tree, uint256 size) = (context.dataRoot, context.nData);
        if (kind == INPUT) (tree, size) = (q.stateBefore, context.nState);
        else if (kind == OUTPUT) (tree, size) = (q.traceRoot, context.nNodes);
        if (!Merkle.verifyInclusion(tree, size, index, leaf, proof.rootProof)) revert MalformedProof(proof.kind);
        return leaf != q.cursor;
    }
}
