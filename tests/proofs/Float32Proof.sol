// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {Float32, LibFloat32} from "../../contracts/lib/Float32.sol";
import {Proof} from "./Proof.sol";

/// @title Sign, order and conversions, for every pattern of 32 bits.
contract Float32Proof is Proof {
    uint32 private constant NAN = 0x7fc00000;

    function _isNan(uint32 x) private pure returns (bool) {
        return (x >> 23) & 0xff == 0xff && x & 0x7fffff != 0;
    }

    function _negative(uint32 x) private pure returns (bool) {
        return x >> 31 == 1;
    }

    function _minus(uint32 x) private pure returns (uint32) {
        unchecked {
            return 0 - x;
        }
    }

    /// Of two numbers, by sign and magnitude; -0 is less than +0 if zeros are told apart.
    function _less(uint32 x, uint32 y, bool zerosDiffer) private pure returns (bool) {
        uint32 a = x & 0x7fffffff;
        uint32 b = y & 0x7fffffff;
        if (a == 0 && b == 0) return zerosDiffer && _negative(x) && !_negative(y);
        if (_negative(x) != _negative(y)) return _negative(x);
        return _negative(x) ? b < a : a < b;
    }

    function check_canonical_neg_and_abs(uint32 x) external pure {
        Float32 f = Float32.wrap(x);
        bool nan = _isNan(x);
        assert(f.canonical().toBits() == (nan ? NAN : x));
        assert(f.neg().toBits() == (nan ? NAN : _negative(x) ? x - 0x80000000 : x + 0x80000000));
        assert(f.absolute().toBits() == (nan ? NAN : _negative(x) ? x - 0x80000000 : x));
    }

    function check_comparisons_are_the_order_of_numbers(uint32 x, uint32 y) external pure {
        (Float32 f, Float32 g) = (Float32.wrap(x), Float32.wrap(y));
        bool ordered = !_isNan(x) && !_isNan(y);
        bool less = _less(x, y, false);
        bool greater = _less(y, x, false);
        assert(f.lt(g) == (ordered && less));
        assert(f.le(g) == (ordered && !greater));
        assert(f.eq(g) == (ordered && !less && !greater));
    }

    function check_maximum_and_minimum(uint32 x, uint32 y) external pure {
        (Float32 f, Float32 g) = (Float32.wrap(x), Float32.wrap(y));
        bool nan = _isNan(x) || _isNan(y);
        bool less = _less(x, y, true);
        assert(f.maximum(g).toBits() == (nan ? NAN : less ? y : x));
        assert(f.minimum(g).toBits() == (nan ? NAN : less ? x : y));
    }

    /// Truncation: the integer between zero and x, less than one away from it.
    function check_f2i_truncates_and_saturates(uint32 x) external pure {
        uint32 integer = Float32.wrap(x).f2i();
        uint32 magnitude = x & 0x7fffffff;
        if (_isNan(x)) {
            assert(integer == 0);
        } else if (magnitude >= 0x4f000000) {
            assert(integer == (_negative(x) ? 0x80000000 : 0x7fffffff));
        } else {
            uint256 size = _negative(x) ? _minus(integer) : integer;
            uint256 field = magnitude >> 23;
            uint256 significand = field == 0 ? magnitude : (magnitude & 0x7fffff) | 0x800000;
            // |x| * 2**149, exactly
            uint256 scaled = significand << (field == 0 ? 0 : field - 1);
            assert(size << 149 <= scaled && scaled < (size + 1) << 149);
        }
    }

    /// Rounding to nearest even: no more than half a last place away, a quarter just below a power of two.
    function check_i2f_rounds_to_nearest_even(uint32 x) external pure {
        uint32 y = LibFloat32.i2f(x).toBits();
        if (x == 0) {
            assert(y == 0);
            return;
        }
        assert(_negative(y) == _negative(x));
        uint256 size = _negative(x) ? _minus(x) : x;
        uint256 field = (y & 0x7fffffff) >> 23;
        uint256 significand = (y & 0x7fffff) | 0x800000;
        assert(field >= 127 && field <= 158);
        // Both times 2**25, so that a quarter of a last place is an integer.
        uint256 exact = size << 25;
        uint256 place = field - 125; // that of the last place
        uint256 rounded = significand << place;
        if (rounded >= exact) {
            uint256 error = rounded - exact;
            uint256 half = significand == 0x800000 ? (1 << place) >> 2 : (1 << place) >> 1;
            assert(error < half || (error == half && significand & 1 == 0));
        } else {
            uint256 error = exact - rounded;
            uint256 half = (1 << place) >> 1;
            assert(error < half || (error == half && significand & 1 == 0));
        }
    }
}
