// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

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

/// @notice What an operand reads at one element (and term).
struct Place {
    bool inside; // false: `value` is all there is
    bool iota; // `value` is computed, and is an i32 whatever reads it
    uint32 value; // the computed value or the fill
    uint256 source; // node that is read
    uint256 index; // flat index of the element that is read
    uint256 numel; // number of elements of the source
}

/// @notice The encoding of a node breaks a rule in the field at this offset.
error MalformedNode(uint256 offset);
/// @notice The fields of a node end elsewhere than its encoding, or it has over 1,024 bytes.
error InvalidNodeLength(uint256 end, uint256 length);
/// @notice An operand is not one of the expression's.
error OperandOutOfRange(uint256 operand, uint256 count);
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

    uint256 private constant FLAT = 0;
    uint256 private constant VIEW = 1;
    uint256 private constant IOTA = 2;
    uint256 private constant INDIRECT = 0x80;

    uint256 private constant DOT = 0;
    uint256 private constant SUM = 1;
    uint256 private constant MAX = 2;
    uint256 private constant IMAX = 4;

    uint256 private constant MAX_NODE_BYTES = 1024;
    uint256 private constant MAX_RANK = 8;
    uint256 private constant MAX_OPERANDS = 8;
    uint256 private constant MAX_IMMEDIATES = 32;
    uint256 private constant MAX_INSTRUCTIONS = 64;
    uint256 private constant MAX_DIMS = 8;
    uint256 private constant MAX_TERMS = 16;
    uint256 private constant NUMEL_LIMIT = 1 << 31;

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

    function _i32(bytes calldata node, uint256 at) private pure returns (int256 value) {
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
                at = _expression(node, at, l.fold == DOT ? 2 : 1, l);
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
            if (l.fold > IMAX) revert MalformedNode(at);
            l.lanes = u8(node, at + 1);
            // INVARIANT: one lane, or sixteen of a SUM.
            if (l.lanes != 1 && (l.lanes != 16 || l.fold != SUM)) revert MalformedNode(at + 1);
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
            for (uint256 i = 0; i < l.operandCount; ++i) at = _skipOperand(node, at);
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

    function _skipOperand(bytes calldata node, uint256 at) private pure returns (uint256) {
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

    /// @notice Whether operand `p` is read as an i32: by an instruction, as the result, or as an index.
    /// All uses in a valid program agree, so the first one decides. One that nothing reads counts as f32, which
    /// only makes its NaNs equal.
    function readsInteger(bytes calldata node, Layout memory l, uint256 p) internal pure returns (bool) {
        unchecked {
            for (uint256 at = l.instructions; at < l.results; at += 4) {
                uint256 word = u32(node, at);
                uint256 op = word >> 24;
                uint256 arity = Primitives.arity(uint8(op));
                for (uint256 i = 0; i < arity; ++i) {
                    if ((word >> (16 - 8 * i)) & 0xff == p) return _takesInteger(op, i);
                }
            }
            // The second result of a DOT is f32, as is what nothing else claims.
            if (u8(node, l.results) == p) return l.kind == MAP ? l.dtype != F32 : l.fold > MAX;
            return _isIndex(node, l, p);
        }
    }

    /// @dev The operand types of `ops.SIGNATURES`.
    function _takesInteger(uint256 op, uint256 position) private pure returns (bool) {
        return op >= Primitives.IADD || op == Primitives.I2F || op == Primitives.BITS2F
            || (op == Primitives.WHERE && position == 0);
    }

    /// @dev Whether a term of a later operand names the axis 0x80 + p.
    function _isIndex(bytes calldata node, Layout memory l, uint256 p) private pure returns (bool) {
        unchecked {
            uint256 at = l.operands;
            for (uint256 i = 0; i < l.operandCount; ++i) {
                uint256 mode = u8(node, at);
                if (mode == FLAT) {
                    at += 5;
                    continue;
                }
                uint256 affines = mode == IOTA ? 1 : u8(node, at + 9);
                at += mode == IOTA ? 1 : 10;
                for (uint256 j = 0; j < affines; ++j) {
                    if (mode == VIEW) at += 16;
                    uint256 end = at + 5 + 5 * u8(node, at + 4);
                    for (at += 5; at < end; at += 5) {
                        if (u8(node, at) == INDIRECT + p) return true;
                    }
                }
            }
            return false;
        }
    }

    // Operands ---------------------------------------------------------------------------------------

    /// @notice Where operand `p` reads at (element, term), or what value it computes.
    /// @param values Posted values, whose first words are those of the operands before `p`.
    function locate(
        bytes calldata node,
        Layout memory l,
        bytes calldata values,
        uint256 p,
        uint256 element,
        uint256 term
    ) internal pure returns (Place memory place) {
        unchecked {
            // INVARIANT: the operand exists.
            if (p >= l.operandCount) revert OperandOutOfRange(p, l.operandCount);
            uint256 at = l.operands;
            for (uint256 i = 0; i < p; ++i) at = _skipOperand(node, at);
            uint256 mode = u8(node, at++);
            if (mode == FLAT) {
                // INVARIANT: only a MAP has as many elements as its operand.
                if (l.kind != MAP) revert MalformedNode(at - 1);
                return Place(true, false, 0, u32(node, at), element, l.numel);
            }
            int256[16] memory x;
            _unravel(node, 3, l.rank, element, x, 0);
            _unravel(node, l.reduce, l.reduceRank, term, x, l.rank);
            uint256 axes = l.rank + l.reduceRank;
            if (mode == IOTA) {
                place.iota = true;
                (int256 sum,) = _affine(node, at, x, axes, values, p);
                place.value = uint32(uint256(sum));
            } else {
                place.source = u32(node, at);
                place.value = uint32(u32(node, at + 4));
                _view(node, at + 8, x, axes, values, p, place);
            }
        }
    }

    /// @dev Row-major coordinates of a flat index, written from `x[first]` on.
    function _unravel(
        bytes calldata node,
        uint256 dims,
        uint256 rank,
        uint256 index,
        int256[16] memory x,
        uint256 first
    ) private pure {
        unchecked {
            for (uint256 d = rank; d > 0;) {
                --d;
                uint256 size = u32(node, dims + 4 * d);
                x[first + d] = int256(index % size);
                index /= size;
            }
        }
    }

    /// @dev Sum of an offset and terms in exact integers: 17 summands below 2**63 each. Axes are those of the element,
    /// then of the term, then values of earlier operands.
    function _affine(
        bytes calldata node,
        uint256 at,
        int256[16] memory x,
        uint256 axes,
        bytes calldata values,
        uint256 p
    ) private pure returns (int256 sum, uint256 end) {
        unchecked {
            sum = _i32(node, at);
            end = at + 5 + 5 * u8(node, at + 4);
            for (at += 5; at < end; at += 5) {
                uint256 axis = u8(node, at);
                if (axis < axes) {
                    sum += _i32(node, at + 1) * x[axis];
                } else {
                    // INVARIANT: an index is an operand that comes earlier.
                    if (axis < INDIRECT || axis >= INDIRECT + p) revert MalformedNode(at);
                    sum += _i32(node, at + 1) * _i32(values, 4 * (axis - INDIRECT));
                }
            }
        }
    }

    /// @dev Coordinates from affine sums. Returns with `inside` false at the first one that is outside.
    function _view(
        bytes calldata node,
        uint256 at,
        int256[16] memory x,
        uint256 axes,
        bytes calldata values,
        uint256 p,
        Place memory place
    ) private pure {
        unchecked {
            uint256 numel = 1;
            uint256 index = 0;
            uint256 dims = u8(node, at++);
            for (uint256 d = 0; d < dims; ++d) {
                (uint256 size, uint256 lo, uint256 hi, uint256 dilation) =
                    (u32(node, at), u32(node, at + 4), u32(node, at + 8), u32(node, at + 12));
                numel *= size; // below 2**63
                // INVARIANT: sizes factor a tensor, bounds lie inside them and the dilation divides.
                if (numel == 0 || numel >= NUMEL_LIMIT || lo >= hi || hi > size || dilation == 0) {
                    revert MalformedNode(at);
                }
                int256 sum;
                (sum, at) = _affine(node, at + 16, x, axes, values, p);
                if (sum < 0 || uint256(sum) % dilation != 0) return;
                uint256 coordinate = uint256(sum) / dilation;
                if (coordinate < lo || coordinate >= hi) return;
                index = index * size + coordinate;
            }
            place.inside = true;
            place.index = index;
            place.numel = numel;
        }
    }
}
