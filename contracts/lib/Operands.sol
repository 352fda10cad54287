// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {Folds} from "./Folds.sol";
import {Primitives} from "./Primitives.sol";
import {Layout, MalformedNode, Program} from "./Program.sol";

/// @notice What an operand reads at one element (and term).
struct Place {
    bool inside; // false: `value` is all there is
    bool iota; // `value` is computed, and is an i32 whatever reads it
    uint32 value; // the computed value or the fill
    uint256 source; // node that is read
    uint256 index; // flat index of the element that is read
    uint256 numel; // number of elements of the source
}

/// @notice An operand is not one of the expression's.
error OperandOutOfRange(uint256 operand, uint256 count);

/// @title Where the operands of a decoded node read, and as what (specification, section 2, "Operand")
/// @notice `protocol/views.py` is the same in Python.
library Operands {
    /// @dev Axis number of the value of operand 0.
    uint256 private constant INDIRECT = 0x80;

    /// @notice Whether operand `p` is read as an i32: by an instruction, as the result, or as an index.
    /// All uses in a valid program agree, so the first one decides. One that nothing reads counts as f32, which
    /// only makes its NaNs equal.
    function readsInteger(bytes calldata node, Layout memory l, uint256 p) internal pure returns (bool) {
        unchecked {
            for (uint256 at = l.instructions; at < l.results; at += 4) {
                uint256 word = Program.u32(node, at);
                uint256 op = word >> 24;
                uint256 arity = Primitives.arity(uint8(op));
                for (uint256 i = 0; i < arity; ++i) {
                    if ((word >> (16 - 8 * i)) & 0xff == p) return _takesInteger(op, i);
                }
            }
            // The second result of a DOT is f32, as is what nothing else claims.
            if (Program.u8(node, l.results) == p) {
                return l.kind == Program.MAP ? l.dtype != Program.F32 : l.fold > Folds.MAX;
            }
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
                uint256 mode = Program.u8(node, at);
                if (mode == Program.FLAT) {
                    at += 5;
                    continue;
                }
                uint256 affines = mode == Program.IOTA ? 1 : Program.u8(node, at + 9);
                at += mode == Program.IOTA ? 1 : 10;
                for (uint256 j = 0; j < affines; ++j) {
                    if (mode == Program.VIEW) at += 16;
                    uint256 end = at + 5 + 5 * Program.u8(node, at + 4);
                    for (at += 5; at < end; at += 5) {
                        if (Program.u8(node, at) == INDIRECT + p) return true;
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
            for (uint256 i = 0; i < p; ++i) at = Program.skipOperand(node, at);
            uint256 mode = Program.u8(node, at++);
            if (mode == Program.FLAT) {
                // INVARIANT: only a Program.MAP has as many elements as its operand.
                if (l.kind != Program.MAP) revert MalformedNode(at - 1);
                return Place(true, false, 0, Program.u32(node, at), element, l.numel);
            }
            int256[16] memory x;
            _unravel(node, 3, l.rank, element, x, 0);
            _unravel(node, l.reduce, l.reduceRank, term, x, l.rank);
            uint256 axes = l.rank + l.reduceRank;
            if (mode == Program.IOTA) {
                place.iota = true;
                (int256 sum,) = _affine(node, at, x, axes, values, p);
                place.value = uint32(uint256(sum));
            } else {
                place.source = Program.u32(node, at);
                place.value = uint32(Program.u32(node, at + 4));
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
                uint256 size = Program.u32(node, dims + 4 * d);
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
            sum = Program.i32(node, at);
            end = at + 5 + 5 * Program.u8(node, at + 4);
            for (at += 5; at < end; at += 5) {
                uint256 axis = Program.u8(node, at);
                if (axis < axes) {
                    sum += Program.i32(node, at + 1) * x[axis];
                } else {
                    // INVARIANT: an index is an operand that comes earlier.
                    if (axis < INDIRECT || axis >= INDIRECT + p) revert MalformedNode(at);
                    sum += Program.i32(node, at + 1) * Program.i32(values, 4 * (axis - INDIRECT));
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
            uint256 dims = Program.u8(node, at++);
            for (uint256 d = 0; d < dims; ++d) {
                (uint256 size, uint256 dilation) = (Program.u32(node, at), Program.u32(node, at + 12));
                (uint256 lo, uint256 hi) = (Program.u32(node, at + 4), Program.u32(node, at + 8));
                numel *= size; // below 2**63
                // INVARIANT: sizes factor a tensor, bounds lie inside them and the dilation divides.
                if (numel == 0 || numel >= Program.NUMEL_LIMIT || lo >= hi || hi > size || dilation == 0) {
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
