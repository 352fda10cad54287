// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {Folds} from "./Folds.sol";
import {Primitives} from "./Primitives.sol";

/// @notice Where the parts of an encoded node lie, and what follows from its header. Fields that the
/// node's kind does not have are zero.
struct Layout {
    uint256 kind;
    uint256 dtype;
    uint256 rank;
    uint256 numel; // product of the shape
    uint256 body; // offset of what follows the shape
    uint256 fold;
    uint256 lanes;
    uint256 reduceRank;
    uint256 reduce; // offset of the reduce dims
    uint256 terms; // product of the reduce dims
    uint256 operandCount;
    uint256 operands; // offset of the first operand
    uint256 immediateCount;
    uint256 immediates; // offset of the first immediate
    uint256 instructionCount;
    uint256 instructions; // offset of the first instruction
    uint256 results; // offset of the result registers
}

/// @notice The encoding of a node breaks a rule in the field at this offset.
error MalformedNode(uint256 offset);
/// @notice The fields of a node end elsewhere than its encoding, or it has over 1,024 bytes.
error InvalidNodeLength(uint256 end, uint256 length);
/// @notice A register is read that holds nothing yet.
error RegisterOutOfRange(uint256 register, uint256 limit);

/// @title One encoded node, read in place from calldata (specification, section 2)
/// @notice `decode` walks over every field once and checks codes, counts and the exact length, so that
/// what reads at its offsets afterwards stays inside the node. `protocol/encoding.py` is the same in
/// Python; what the fields mean together, such as types, is the business of `protocol/validate.py`.
/// @dev The walk itself may read behind the node's end, into other calldata: it is bounded by the
/// limits of all counts, and its last check throws away whatever it saw there.
library Program {
    uint256 internal constant INPUT = 0x01;
    uint256 internal constant CONST = 0x02;
    uint256 internal constant DATA = 0x03;
    uint256 internal constant STEP = 0x04;
    uint256 internal constant SAMPLE = 0x05;
    uint256 internal constant RAND = 0x06;
    uint256 internal constant MAP = 0x10;
    uint256 internal constant FOLD = 0x11;
    uint256 internal constant OUTPUT = 0x20;

    uint256 internal constant F32 = 0;

    // Modes of operands.
    uint256 internal constant FLAT = 0;
    uint256 internal constant VIEW = 1;
    uint256 internal constant IOTA = 2;

    uint256 private constant MAX_NODE_BYTES = 1024;
    uint256 private constant MAX_RANK = 8;
    uint256 private constant MAX_OPERANDS = 8;
    uint256 private constant MAX_IMMEDIATES = 32;
    uint256 private constant MAX_INSTRUCTIONS = 64;
    uint256 private constant MAX_DIMS = 8;
    uint256 private constant MAX_TERMS = 16;
    uint256 internal constant NUMEL_LIMIT = 1 << 31;

    // Fields -----------------------------------------------------------------------------------------

    /// @notice The byte at an offset.
    function u8(bytes calldata node, uint256 at) internal pure returns (uint256 value) {
        assembly ("memory-safe") {
            value := byte(0, calldataload(add(node.offset, at)))
        }
    }

    /// @notice The big-endian uint32 at an offset.
    function u32(bytes calldata node, uint256 at) internal pure returns (uint256 value) {
        assembly ("memory-safe") {
            value := shr(224, calldataload(add(node.offset, at)))
        }
    }

    /// @notice The two's complement int32 at an offset.
    function i32(bytes calldata node, uint256 at) internal pure returns (int256 value) {
        assembly ("memory-safe") {
            value := sar(224, calldataload(add(node.offset, at)))
        }
    }

    function _count(bytes calldata node, uint256 at, uint256 limit) private pure returns (uint256 count) {
        count = u8(node, at);
        // INVARIANT: no list is longer than its limit.
        if (count > limit) revert MalformedNode(at);
    }

    // Layout -----------------------------------------------------------------------------------------

    /// @notice Find the parts of a node. Reverts with MalformedNode, InvalidNodeLength or
    /// UnknownPrimitive on bytes that are not an encoding.
    function decode(bytes calldata node) internal pure returns (Layout memory l) {
        unchecked {
            l.kind = u8(node, 0);
            l.dtype = u8(node, 1);
            // INVARIANT: an element is an f32 or an i32.
            if (l.dtype > 1) revert MalformedNode(1);
            l.rank = _count(node, 2, MAX_RANK);
            uint256 at;
            (l.numel, at) = _product(node, 3, l.rank);
            l.body = at;
            if (l.kind == MAP) {
                at = _expression(node, at, 1, l);
            } else if (l.kind == FOLD) {
                at = _foldHeader(node, at, l);
                at = _expression(node, at, l.fold == Folds.DOT ? 2 : 1, l);
            } else if (l.kind - INPUT <= DATA - INPUT || l.kind == RAND || l.kind == OUTPUT) {
                at += 4;
            } else if (l.kind == SAMPLE) {
                // INVARIANT: an index below no bound does not exist.
                if (u32(node, at) == 0) revert MalformedNode(at);
                at += 8;
            } else if (l.kind != STEP) {
                revert MalformedNode(0);
            }
            // INVARIANT: one node has one encoding: nothing is missing and nothing follows.
            if (at != node.length || at > MAX_NODE_BYTES) revert InvalidNodeLength(at, node.length);
        }
    }

    /// @dev Product of `count` dims, each at least 1, below 2**31; and the offset behind them.
    function _product(bytes calldata node, uint256 at, uint256 count)
        private
        pure
        returns (uint256 product, uint256 end)
    {
        unchecked {
            product = 1;
            end = at + 4 * count;
            for (; at < end; at += 4) {
                product *= u32(node, at); // below 2**63
                // INVARIANT: sizes are positive and a tensor has fewer than 2**31 elements.
                if (product == 0 || product >= NUMEL_LIMIT) revert MalformedNode(at);
            }
        }
    }

    function _foldHeader(bytes calldata node, uint256 at, Layout memory l) private pure returns (uint256 end) {
        unchecked {
            l.fold = u8(node, at);
            // INVARIANT: the fold is one of the five.
            if (l.fold > Folds.IMAX) revert MalformedNode(at);
            l.lanes = u8(node, at + 1);
            // INVARIANT: one lane, or sixteen of a SUM.
            if (l.lanes != 1 && (l.lanes != 16 || l.fold != Folds.SUM)) revert MalformedNode(at + 1);
            l.reduceRank = _count(node, at + 2, MAX_RANK);
            // INVARIANT: a fold runs over at least one dim.
            if (l.reduceRank == 0) revert MalformedNode(at + 2);
            l.reduce = at + 3;
            (l.terms, end) = _product(node, at + 3, l.reduceRank);
        }
    }

    function _expression(bytes calldata node, uint256 at, uint256 resultCount, Layout memory l)
        private
        pure
        returns (uint256)
    {
        unchecked {
            l.operandCount = _count(node, at++, MAX_OPERANDS);
            l.operands = at;
            for (uint256 i = 0; i < l.operandCount; ++i) at = skipOperand(node, at);
            l.immediateCount = _count(node, at++, MAX_IMMEDIATES);
            l.immediates = at;
            at += 4 * l.immediateCount;
            l.instructionCount = _count(node, at++, MAX_INSTRUCTIONS);
            l.instructions = at;
            for (uint256 i = 0; i < l.instructionCount; ++i) {
                uint256 word = u32(node, at);
                uint256 arity = Primitives.arity(uint8(word >> 24));
                // INVARIANT: unused register bytes are zero.
                if (word & (0xffffff >> (8 * arity)) != 0) revert MalformedNode(at);
                at += 4;
            }
            l.results = at;
            return at + resultCount;
        }
    }

    /// @notice The offset behind the operand at an offset.
    function skipOperand(bytes calldata node, uint256 at) internal pure returns (uint256) {
        unchecked {
            uint256 mode = u8(node, at);
            if (mode == FLAT) return at + 5;
            if (mode == IOTA) return at + 6 + 5 * _count(node, at + 5, MAX_TERMS);
            // INVARIANT: there is no fourth mode.
            if (mode != VIEW) revert MalformedNode(at);
            uint256 dims = _count(node, at + 9, MAX_DIMS);
            at += 10;
            for (uint256 i = 0; i < dims; ++i) at += 21 + 5 * _count(node, at + 20, MAX_TERMS);
            return at;
        }
    }

    // Registers --------------------------------------------------------------------------------------

    /// @notice Number of bytes that a defendant posts for one element or term.
    function valuesLength(Layout memory l) internal pure returns (uint256) {
        unchecked {
            return 4 * (l.operandCount + l.instructionCount);
        }
    }

    /// @notice Value of a register below `limit`: posted, or an immediate of the node.
    /// @param values As many bytes as `valuesLength` says.
    function register(bytes calldata node, Layout memory l, bytes calldata values, uint256 r, uint256 limit)
        internal
        pure
        returns (uint32)
    {
        unchecked {
            // INVARIANT: code reads only what was computed before it.
            if (r >= limit) revert RegisterOutOfRange(r, limit);
            if (r < l.operandCount) return uint32(u32(values, 4 * r));
            uint256 immediate = r - l.operandCount;
            if (immediate < l.immediateCount) return uint32(u32(node, l.immediates + 4 * immediate));
            return uint32(u32(values, 4 * (r - l.immediateCount)));
        }
    }
}
