// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {IntegerRoot} from "./IntegerRoot.sol";

/// @notice IEEE-754 binary32, carried as its bit pattern.
type Float32 is uint32;

using LibFloat32 for Float32 global;

/// @title Arithmetic on Float32, the mirror of `protocol/float32.py`
/// @notice Rounding is to nearest, ties to even, with gradual underflow. An operand that is a NaN is
/// read as 0x7fc00000 and so is every result that is a NaN (IEEE 754-2019, section 6.2.3).
/// @dev A finite number is split into `significand * 2**(place - 149)`, both never negative; an
/// operation works on those integers without loss, and `_round` rounds once at the end. Where the
/// Python definition uses integers of any size, a comment here says why 256 bits are enough.
/// Words are uint256 inside, because the compiler masks every narrower type.
library LibFloat32 {
    uint256 private constant NAN = 0x7fc00000;
    uint256 private constant INFINITY = 0x7f800000;
    uint256 private constant MAGNITUDE = 0x7fffffff;
    uint256 private constant SIGN = 0x80000000;
    uint256 private constant ONE = 0x3f800000;
    uint256 private constant HIDDEN = 0x00800000;
    uint256 private constant FRACTION = 0x007fffff;
    /// @dev The magnitude of the largest finite number less HIDDEN.
    uint256 private constant NORMAL = 0x7effffff;
    /// @dev Byte n is the number of the highest bit of n.
    uint256 private constant HIGHEST_BIT = 0x0000010102020202030303030303030304040404040404040404040404040404;
    /// @dev Nibble n, of 32 nibbles from the lowest, is the same.
    uint256 private constant NIBBLES = 0x44444444444444443333333322221100;

    /// @dev Extra bits of a quotient: enough to round with a sticky bit.
    uint256 private constant SPARE = 64;
    /// @dev Extra bits of a radicand; its root then has at least 26 bits. Must be even.
    uint256 private constant ROOT_SPARE = 52;
    /// @dev Two terms whose last places are further apart than this meet as "large and a bit": the small
    /// one, of 48 bits at most, cannot reach the 24 bits that are kept of the large one. A zero product
    /// is never the large one (its place is at most 253 - 149); a zero addend may be, but the product is
    /// then so small that it rounds to zero with or without its true size.
    int256 private constant FAR = 112;

    // Representation ---------------------------------------------------------------------------------

    /// @notice The pattern as it is.
    function toBits(Float32 x) internal pure returns (uint32) {
        return Float32.unwrap(x);
    }

    /// @notice `x`, or the one NaN of the protocol if it is any NaN.
    function canonical(Float32 x) internal pure returns (Float32) {
        return _isNan(_word(x)) ? _float(NAN) : x;
    }

    function _word(Float32 x) private pure returns (uint256) {
        return Float32.unwrap(x);
    }

    function _float(uint256 word) private pure returns (Float32) {
        return Float32.wrap(uint32(word));
    }

    function _isNan(uint256 x) private pure returns (bool) {
        return x & MAGNITUDE > INFINITY;
    }

    function _isInfinite(uint256 x) private pure returns (bool) {
        return x & MAGNITUDE == INFINITY;
    }

    function _isZero(uint256 x) private pure returns (bool) {
        return x & MAGNITUDE == 0;
    }

    /// @dev The magnitude of a finite x is `significand * 2**(place - 149)` (section 3.4). A subnormal
    /// number has field 0, no hidden bit, and the same place as field 1.
    function _exact(uint256 x) private pure returns (uint256 significand, uint256 place) {
        assembly ("memory-safe") {
            x := and(x, MAGNITUDE)
            place := shr(23, x)
            place := sub(place, gt(place, 0))
            significand := sub(x, shl(23, place)) // what is left of the field is the hidden bit
        }
    }

    /// @dev Rounds `significand * 2**(place - 149)` (sections 4.3.1, 7.4, 7.5); zero gives a zero.
    ///
    /// The last place that is kept is that of the 24th significant bit but never below place 0: that is
    /// gradual underflow. Adding the significand to the exponent field lets its hidden bit and a carry
    /// of the rounding step into the next binade by themselves; past the largest binade is infinity.
    /// At least one bit is always dropped, so there is no case to tell apart.
    /// @param sign In bit 31, the only one looked at.
    /// @param significand Below 2**160; if inexact, its lowest bit is sticky and it has 26 bits or more.
    /// @param place At least -220, so that at most 244 bits are dropped.
    /// @param guess A bit, 24 or above, that is the highest or up to two below it, unless all from it on are
    /// zero: then the highest is searched for, always with 160. Operations on normal numbers nearly always know it.
    function _round(uint256 sign, uint256 significand, int256 place, uint256 guess)
        private
        pure
        returns (uint256 result)
    {
        assembly ("memory-safe") {
            let top := shr(guess, significand)
            switch top
            case 0 {
                // Halve the range 160, 80, 40 ... down to 5 bits and a table.
                top := mul(80, lt(0xffffffffffffffffffff, significand))
                top := add(top, mul(40, lt(0xffffffffff, shr(top, significand))))
                top := add(top, mul(20, lt(0xfffff, shr(top, significand))))
                top := add(top, mul(10, lt(0x3ff, shr(top, significand))))
                top := add(top, mul(5, lt(0x1f, shr(top, significand))))
                // One of few bits gets 24 zero bits after it, which are then dropped.
                top := add(add(top, byte(shr(top, significand), HIGHEST_BIT)), 24)
                // Zero counts as one at the lowest place.
                place := sub(mul(place, gt(significand, 0)), 24)
                significand := shl(24, significand)
            }
            default { top := add(guess, add(gt(top, 1), gt(top, 3))) }

            let dropped := sub(top, 23)
            let kept := add(dropped, place) // the last place kept ...
            if slt(kept, 0) {
                dropped := sub(dropped, kept) // ... is never below 0
                kept := 0
            }
            // Half a unit of the last place kept, less a bit where a tie must round down to stay even.
            let half := sub(shl(sub(dropped, 1), 1), iszero(and(shr(dropped, significand), 1)))
            result := add(shl(23, kept), shr(dropped, add(significand, half)))
            if gt(result, INFINITY) { result := INFINITY }
            result := or(result, and(sign, SIGN))
        }
    }

    // Arithmetic -------------------------------------------------------------------------------------

    /// @notice x + y (section 5.4.1), which is x * 1 + y. Opposite infinities give NaN; x + (-x) is +0.
    function add(Float32 x, Float32 y) internal pure returns (Float32) {
        return fma(x, _float(ONE), y);
    }

    /// @notice x - y (section 5.4.1), which is x + (-y).
    function sub(Float32 x, Float32 y) internal pure returns (Float32) {
        return fma(x, _float(ONE), _float(_word(y) ^ SIGN));
    }

    /// @notice x * y (section 5.4.1). Zero times infinity is NaN.
    function mul(Float32 x, Float32 y) internal pure returns (Float32) {
        unchecked {
            (uint256 a, uint256 b) = (_word(x), _word(y));
            uint256 sign = (a ^ b) & SIGN;
            a &= MAGNITUDE;
            b &= MAGNITUDE;
            if (((a + HIDDEN) | (b + HIDDEN)) & SIGN != 0) return _float(_fmaSpecial(sign, a, b, sign, 0));
            uint256 place;
            uint256 bPlace;
            (a, place) = _exact(a);
            (b, bPlace) = _exact(b);
            return _float(_round(sign, a * b, int256(place + bPlace) - 149, 46));
        }
    }

    /// @notice x * y + z, rounded once (section 5.4.1). Zero times infinity plus anything is NaN.
    /// @dev Of normal operands and a normal result, unless nearly all of it cancels, without a search or a
    /// call; what `_fma` and `_round` say explains it. All else leaves `result` zero, which is none of those.
    function fma(Float32 x, Float32 y, Float32 z) internal pure returns (Float32 result) {
        assembly ("memory-safe") {
            // A field of 0 borrows and one of 255 stays above; what is left of the others is the place.
            let a := sub(and(x, MAGNITUDE), HIDDEN)
            let b := sub(and(y, MAGNITUDE), HIDDEN)
            let c := sub(and(z, MAGNITUDE), HIDDEN)
            let slow := or(or(gt(a, NORMAL), gt(b, NORMAL)), gt(c, NORMAL))
            let place := add(shr(23, a), shr(23, b))
            a := mul(or(and(a, FRACTION), HIDDEN), or(and(b, FRACTION), HIDDEN))
            // The product has 64 zero bits appended and the addend what brings it to the same place.
            let shift := add(sub(shr(23, c), place), 213)
            c := shl(shift, or(and(c, FRACTION), HIDDEN))
            a := shl(64, a)
            let sign := xor(x, y)
            switch and(xor(sign, z), SIGN)
            case 0 { a := add(a, c) }
            default {
                a := sub(a, c)
                if slt(a, 0) {
                    a := sub(0, a)
                    sign := z
                }
            }
            // From two bits below the highest of the larger term on, no more than 23 is left.
            let dropped := add(85, mul(gt(shift, 87), sub(shift, 87)))
            let top := shr(add(dropped, 23), a)
            dropped := add(dropped, and(shr(shl(2, top), NIBBLES), 7))
            place := add(dropped, sub(place, 213)) // the last that is kept
            slow := or(slow, iszero(and(and(lt(place, 254), lt(shift, 177)), gt(top, 0))))
            let half := sub(shl(sub(dropped, 1), 1), iszero(and(shr(dropped, a), 1)))
            result := or(add(shl(23, place), shr(dropped, add(a, half))), and(sign, SIGN))
            result := mul(result, iszero(slow))
        }
        if (Float32.unwrap(result) == 0) return _fma(x, y, z);
    }

    /// @dev x * y + z for whatever operands.
    function _fma(Float32 x, Float32 y, Float32 z) private pure returns (Float32) {
        (uint256 a, uint256 b, uint256 c) = (_word(x) & MAGNITUDE, _word(y) & MAGNITUDE, _word(z) & MAGNITUDE);
        // One more in its field carries a NaN or infinity into bit 31.
        if (((a + HIDDEN) | (b + HIDDEN) | (c + HIDDEN)) & SIGN != 0) {
            return _float(_fmaSpecial((_word(x) ^ _word(y)) & SIGN, a, b, _word(z) & SIGN, c));
        }
        uint256 sign;
        int256 place;
        uint256 guess;
        assembly ("memory-safe") {
            // Three times `_exact`, because a call would cost more than the work.
            place := shr(23, a)
            place := sub(place, gt(place, 0))
            a := sub(a, shl(23, place))
            let cPlace := shr(23, b)
            cPlace := sub(cPlace, gt(cPlace, 0))
            a := mul(a, sub(b, shl(23, cPlace))) // the product
            place := sub(add(place, cPlace), 149)
            cPlace := shr(23, c)
            cPlace := sub(cPlace, gt(cPlace, 0))
            c := sub(c, shl(23, cPlace))

            // Both terms at the lower of the two places. A product of normal numbers has 47 or 48 bits
            // and a normal addend 24, so unless they cancel the sum has the larger one's highest bit or
            // one of the next two.
            let apart := sub(place, cPlace)
            switch slt(apart, 0)
            case 0 {
                if gt(apart, FAR) {
                    apart := FAR
                    c := gt(c, 0)
                }
                a := shl(apart, a)
                place := sub(place, apart)
                guess := add(apart, 46)
            }
            default {
                apart := sub(0, apart)
                if gt(apart, FAR) {
                    apart := FAR
                    a := gt(a, 0)
                    place := sub(cPlace, FAR)
                }
                c := shl(apart, c)
                guess := 46
                if gt(apart, 23) { guess := add(apart, 23) }
            }

            sign := xor(x, y)
            switch and(xor(sign, z), SIGN)
            case 0 { a := add(a, c) }
            default {
                a := sub(a, c)
                if iszero(sgt(a, 0)) {
                    a := sub(0, a)
                    sign := mul(z, gt(a, 0)) // x - x is +0
                }
            }
        }
        return _float(_round(sign, a, place, guess));
    }

    /// @dev At least one of the magnitudes a, b, c is a NaN or infinite.
    function _fmaSpecial(uint256 sign, uint256 a, uint256 b, uint256 cSign, uint256 c)
        private
        pure
        returns (uint256)
    {
        if (a > INFINITY || b > INFINITY || c > INFINITY) return NAN;
        if (a != INFINITY && b != INFINITY) return cSign | INFINITY;
        if (a == 0 || b == 0) return NAN;
        return c == INFINITY && cSign != sign ? NAN : sign | INFINITY;
    }

    /// @notice x / y (section 5.4.1). Zero by zero and infinity by infinity are NaN.
    function div(Float32 x, Float32 y) internal pure returns (Float32) {
        unchecked {
            (uint256 a, uint256 b) = (_word(x), _word(y));
            if (_isNan(a) || _isNan(b)) return _float(NAN);
            uint256 sign = (a ^ b) & SIGN;
            if (_isInfinite(a)) return _float(_isInfinite(b) ? NAN : sign | INFINITY);
            if (_isInfinite(b)) return _float(sign);
            if (_isZero(b)) return _float(_isZero(a) ? NAN : sign | INFINITY);
            if (_isZero(a)) return _float(sign);
            (uint256 aSignificand, uint256 aPlace) = _exact(a);
            (uint256 bSignificand, uint256 bPlace) = _exact(b);
            uint256 dividend = aSignificand << SPARE;
            uint256 quotient = dividend / bSignificand;
            uint256 sticky = quotient * bSignificand == dividend ? 0 : 1;
            int256 place = int256(aPlace) - int256(bPlace) + 149 - int256(SPARE);
            // By a subnormal number the quotient may be far longer: no guess.
            uint256 guess = bSignificand < HIDDEN ? 160 : SPARE - 1;
            return _float(_round(sign, quotient | sticky, place, guess));
        }
    }

    /// @notice Square root (section 5.4.1). That of -0 is -0, of any other negative number NaN.
    function sqrt(Float32 x) internal pure returns (Float32) {
        unchecked {
            uint256 a = _word(x);
            if (_isNan(a)) return _float(NAN);
            if (_isZero(a)) return x;
            if (a & SIGN != 0) return _float(NAN);
            if (_isInfinite(a)) return x;
            (uint256 significand, uint256 place) = _exact(a);
            int256 exponent = int256(place) - 149;
            for (; significand < 1 << 23; --exponent) significand <<= 1; // a subnormal number
            uint256 odd = uint256(exponent) & 1;
            uint256 radicand = significand << (ROOT_SPARE + odd);
            uint256 root = IntegerRoot.floor(radicand);
            uint256 sticky = root * root == radicand ? 0 : 1;
            exponent = (exponent - int256(odd) - int256(ROOT_SPARE)) / 2;
            return _float(_round(0, root | sticky, exponent + 149, 37));
        }
    }

    // Sign and order ---------------------------------------------------------------------------------

    /// @notice x with its sign flipped (section 5.5.1), but a NaN stays canonical.
    function neg(Float32 x) internal pure returns (Float32) {
        return _isNan(_word(x)) ? _float(NAN) : _float(_word(x) ^ SIGN);
    }

    /// @notice x with its sign cleared (section 5.5.1).
    function absolute(Float32 x) internal pure returns (Float32) {
        return _isNan(_word(x)) ? _float(NAN) : _float(_word(x) & MAGNITUDE);
    }

    /// @dev Maps a word that is no NaN to an integer of the same order, -0 just below +0.
    function _order(uint256 x) private pure returns (int256) {
        return x & SIGN == 0 ? int256(x) : ~int256(x & MAGNITUDE);
    }

    /// @dev Maps a word that is no NaN to an integer of the same order, both zeros to 0.
    function _valueOrder(uint256 x) private pure returns (int256) {
        unchecked {
            return x & SIGN == 0 ? int256(x) : -int256(x & MAGNITUDE);
        }
    }

    function _unordered(Float32 x, Float32 y) private pure returns (bool) {
        return _isNan(_word(x)) || _isNan(_word(y));
    }

    /// @notice The larger (section 9.6, maximum). NaN wins over everything and -0 < +0.
    function maximum(Float32 x, Float32 y) internal pure returns (Float32) {
        if (_unordered(x, y)) return _float(NAN);
        return _order(_word(x)) >= _order(_word(y)) ? x : y;
    }

    /// @notice The smaller (section 9.6, minimum). NaN wins over everything and -0 < +0.
    function minimum(Float32 x, Float32 y) internal pure returns (Float32) {
        if (_unordered(x, y)) return _float(NAN);
        return _order(_word(x)) <= _order(_word(y)) ? x : y;
    }

    /// @notice Whether x == y (section 5.11). A NaN equals nothing; -0 equals +0.
    function eq(Float32 x, Float32 y) internal pure returns (bool) {
        return !_unordered(x, y) && _valueOrder(_word(x)) == _valueOrder(_word(y));
    }

    /// @notice Whether x < y (section 5.11). False with a NaN.
    function lt(Float32 x, Float32 y) internal pure returns (bool) {
        return !_unordered(x, y) && _valueOrder(_word(x)) < _valueOrder(_word(y));
    }

    /// @notice Whether x <= y (section 5.11). False with a NaN.
    function le(Float32 x, Float32 y) internal pure returns (bool) {
        return !_unordered(x, y) && _valueOrder(_word(x)) <= _valueOrder(_word(y));
    }

    // Conversions ------------------------------------------------------------------------------------

    /// @notice x truncated toward zero (section 5.8), saturated at both ends; NaN gives 0.
    /// @return The two's complement pattern.
    function f2i(Float32 x) internal pure returns (uint32) {
        unchecked {
            uint256 a = _word(x);
            if (_isNan(a)) return 0;
            uint256 sign = a & SIGN;
            if (a & MAGNITUDE >= 0x4f000000) return uint32(MAGNITUDE + (sign >> 31)); // 2**31 and above
            (uint256 significand, uint256 place) = _exact(a);
            uint256 truncated = (significand << place) >> 149; // place <= 156: at most 180 bits
            return uint32(sign == 0 ? truncated : 0 - truncated);
        }
    }

    /// @notice The signed integer whose two's complement pattern is x, rounded to nearest even.
    function i2f(uint32 x) internal pure returns (Float32) {
        unchecked {
            if (x == 0) return _float(0);
            uint256 sign = x & SIGN;
            uint256 magnitude = sign == 0 ? x : (1 << 32) - uint256(x);
            return _float(_round(sign, magnitude, 149, 160));
        }
    }
}
