// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {Primitives} from "./Primitives.sol";

/// @notice The byte names no fold.
error UnknownFold(uint8 fold);
/// @notice Sixteen lane results have 64 bytes.
error InvalidLanesLength(uint256 length);

/// @title How a FOLD node combines its terms (specification, section 2)
/// @notice Each function is one row of the table of folds. `protocol/fold.py` is the same in Python.
library Folds {
    uint8 internal constant DOT = 0;
    uint8 internal constant SUM = 1;
    uint8 internal constant MAX = 2;
    uint8 internal constant ISUM = 3;
    uint8 internal constant IMAX = 4;

    uint32 private constant NEGATIVE_INFINITY = 0xff800000;
    uint32 private constant NEGATIVE_ZERO = 0x80000000;
    uint32 private constant INT_MIN = 0x80000000;
    uint256 private constant LANES = 16;

    /// @notice The accumulator before the first term of every chain.
    function identity(uint8 fold) internal pure returns (uint32) {
        if (fold == MAX) return NEGATIVE_INFINITY;
        if (fold == IMAX) return INT_MIN;
        // INVARIANT: no other fold than the five.
        if (fold > IMAX) revert UnknownFold(fold);
        return 0;
    }

    /// @notice The accumulator after one term; `b` is the second factor of a DOT and otherwise unused.
    function advance(uint8 fold, uint32 accumulator, uint32 a, uint32 b) internal pure returns (uint32) {
        if (fold == DOT) return Primitives.execute(Primitives.FMA, a, b, accumulator);
        return combine(fold, accumulator, a);
    }

    /// @notice Two block or lane results joined, the left one first.
    function combine(uint8 fold, uint32 a, uint32 b) internal pure returns (uint32) {
        if (fold <= SUM) return Primitives.execute(Primitives.ADD, a, b, 0);
        if (fold == MAX) return Primitives.execute(Primitives.MAX, a, b, 0);
        if (fold == ISUM) return Primitives.execute(Primitives.IADD, a, b, 0);
        // INVARIANT: no other fold than the five.
        if (fold != IMAX) revert UnknownFold(fold);
        return int32(a) > int32(b) ? a : b;
    }

    /// @notice The element's value: a sum of -0 becomes +0, so that skipping terms changes no bit.
    function finish(uint8 fold, uint32 s) internal pure returns (uint32) {
        // What +0 + s is: no other value changes, but a NaN becomes canonical.
        if (fold <= SUM) return s == NEGATIVE_ZERO ? 0 : Primitives.execute(Primitives.F2BITS, s, 0, 0);
        // INVARIANT: no other fold than the five.
        if (fold > IMAX) revert UnknownFold(fold);
        return s;
    }

    /// @notice The element's value from sixteen big-endian lane results, and whether each lane that has
    /// none of the `terms` holds the identity.
    function combineLanes(uint8 fold, uint64 terms, bytes calldata lanes)
        internal
        pure
        returns (uint32 value, bool emptyLanesHold)
    {
        // INVARIANT: sixteen lanes, no more and no fewer.
        if (lanes.length != 4 * LANES) revert InvalidLanesLength(lanes.length);
        unchecked {
            uint32 empty = identity(fold);
            emptyLanesHold = true;
            uint32[LANES] memory s;
            for (uint256 lane = 0; lane < LANES; ++lane) {
                s[lane] = uint32(bytes4(lanes[4 * lane:]));
                if (lane >= terms && s[lane] != empty) emptyLanesHold = false;
            }
            for (uint256 half = LANES / 2; half > 0; half /= 2) {
                for (uint256 lane = 0; lane < half; ++lane) s[lane] = combine(fold, s[lane], s[lane + half]);
            }
            value = finish(fold, s[0]);
        }
    }
}
