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
    /// @dev The largest finite number.
    uint256 private constant FINITE = 0x7f7fffff;
    /// @dev Byte n is the number of the highest bit of n; byte 0 is more than any.
    uint256 private constant HIGHEST_BIT = 0x4000010102020202030303030303030304040404040404040404040404040404;

    /// @dev Extra bits of a quotient: enough to round with a sticky bit.
    uint256 private constant SPARE = 64;
    /// @dev Extra bits of a radicand; its root then has at least 26 bits. Must be even.
    uint256 private constant ROOT_SPARE = 52;

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

    /// @dev Of a word below 2**32, which a cast would mask again.
    function _float(uint256 word) private pure returns (Float32 x) {
        assembly ("memory-safe") {
            x := word
        }
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

    /// @dev The number of the highest bit of a significand in [1, 2**160): halves the range 160, 80, 40 ... down
    /// to 5 bits and a table.
    function _highestBit(uint256 significand) private pure returns (uint256 top) {
        assembly ("memory-safe") {
            top := mul(80, lt(0xffffffffffffffffffff, significand))
            top := add(top, mul(40, lt(0xffffffffff, shr(top, significand))))
            top := add(top, mul(20, lt(0xfffff, shr(top, significand))))
            top := add(top, mul(10, lt(0x3ff, shr(top, significand))))
            top := add(top, mul(5, lt(0x1f, shr(top, significand))))
            top := add(top, byte(shr(top, significand), HIGHEST_BIT))
        }
    }

    /// @dev Rounds `significand * 2**(place - 149)` (sections 4.3.1, 7.4, 7.5).
    ///
    /// The last place that is kept is that of the 24th significant bit but never below place 0: that is
    /// gradual underflow. Adding the significand to the exponent field lets its hidden bit and a carry
    /// of the rounding step into the next binade by themselves; past the largest binade is infinity.
    /// At least one bit is always dropped, so there is no case to tell apart.
    /// @param sign In bit 31, the only one looked at.
    /// @param significand Below 2**184; if inexact, its lowest bit is sticky and it has 26 bits or more.
    /// @param place At least -237, so that no more bits are dropped than a word has.
    /// @param top The number of the significand's highest bit, 24 or above.
    function _round(uint256 sign, uint256 significand, int256 place, uint256 top)
        private
        pure
        returns (uint256 result)
    {
        assembly ("memory-safe") {
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
            a *= b;
            place += bPlace - 149;
            if (a >> 46 != 0) return _float(_round(sign, a, int256(place), 46 + (a >> 47)));
            if (a == 0) return _float(sign);
            // An operand is subnormal. 24 more zero bits, so that one is always dropped.
            return _float(_round(sign, a << 24, int256(place) - 24, _highestBit(a) + 24));
        }
    }

    /// @notice x * y + z, rounded once (section 5.4.1). Zero times infinity plus anything is NaN.
    /// @dev A normal result, unless nearly all of it cancels, is found without a search or a call.
    ///
    /// The product gets 64 zero bits after its 48, and the addend, not zero, is shifted to the same place. To the
    /// right it loses bits, for which one sticky bit stands. By more than 127 to the left it is the result: then the
    /// product is far less than an eighth of its last place. A zero addend can be shifted by any number.
    function fma(Float32 x, Float32 y, Float32 z) internal pure returns (Float32 result) {
        (uint256 a, uint256 b, uint256 c) = (_word(x) & MAGNITUDE, _word(y) & MAGNITUDE, _word(z) & MAGNITUDE);
        uint256 special;
        assembly ("memory-safe") {
            special := or(or(gt(a, FINITE), gt(b, FINITE)), gt(c, FINITE))
        }
        if (special != 0) return _float(_fmaSpecial((_word(x) ^ _word(y)) & SIGN, a, b, _word(z) & SIGN, c));
        uint256 sign;
        uint256 place;
        uint256 shift;
        uint256 dropped;
        uint256 plain;
        assembly ("memory-safe") {
            // Three times `_exact`, because a call would cost more than the work.
            place := shr(23, a)
            place := sub(place, gt(place, 0))
            a := sub(a, shl(23, place))
            let other := shr(23, b)
            other := sub(other, gt(other, 0))
            a := shl(64, mul(a, sub(b, shl(23, other))))
            place := add(place, other)
            other := shr(23, c)
            other := sub(other, gt(other, 0))
            c := sub(c, shl(23, other))
            shift := add(sub(other, place), 213) // 149 + 64
            let shifted := shl(shift, c)
            c := add(shifted, lt(shifted, c))
            sign := xor(x, y)
            switch and(xor(sign, z), SIGN)
            case 0 { a := add(a, c) }
            default {
                a := sub(a, c)
                if slt(a, 0) {
                    a := sub(0, a)
                    sign := z
                }
            }
            // A product of normal numbers has its highest bit at 110 or 111 and a normal addend at shift + 23, and
            // unless they cancel the sum has the larger one's or one of the next two: look from bit 108, or
            // shift + 21, on. At most 23 is left there; if it is 0, the highest bit must be searched for.
            let extra := mul(sgt(shift, 87), sub(shift, 87))
            extra := add(extra, byte(shr(add(extra, 108), a), HIGHEST_BIT))
            dropped := add(extra, 85) // all but 24 bits
            place := add(extra, sub(place, 128)) // the last that is kept
            plain := and(lt(place, 254), lt(extra, 48)) // 64 if it was 0; 48 is a shift of 131 or more
        }
        if (plain == 0) {
            unchecked {
                if (shift > 127) {
                    if (_word(z) & MAGNITUDE != 0) {
                        if (shift < 1 << 255) return z;
                        if (a == 1) return z; // shifted to the right, and the product is zero
                    }
                }
                if (a == 0) return _float(sign & _word(z) & SIGN); // x - x is +0
                // Below 2**152. 24 more zero bits, so that one is always dropped.
                return _float(_round(sign, a << 24, int256(place - dropped) - 24, _highestBit(a) + 24));
            }
        }
        assembly ("memory-safe") {
            // As in `_round`.
            let half := sub(shl(sub(dropped, 1), 1), iszero(and(shr(dropped, a), 1)))
            result := or(add(shl(23, place), shr(dropped, add(a, half))), and(sign, SIGN))
        }
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
            // A quotient of normal numbers lies between 2**(SPARE - 1) and 2**(SPARE + 1).
            uint256 high = quotient >> (SPARE - 1);
            uint256 top = high - 1 > 2 ? _highestBit(quotient) : SPARE - 1 + (high >> 1);
            return _float(_round(sign, quotient | sticky, place, top));
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
            if (significand < HIDDEN) {
                // A subnormal number.
                uint256 missing = 23 - _highestBit(significand);
                significand <<= missing;
                exponent -= int256(missing);
            }
            uint256 odd = uint256(exponent) & 1;
            uint256 radicand = significand << (ROOT_SPARE + odd);
            uint256 root = IntegerRoot.floor(radicand);
            // Sticky whether exact or not: a root is never a tie, for a square of 25 bits has 49.
            root |= 1;
            exponent = (exponent - int256(odd) - int256(ROOT_SPARE)) / 2;
            return _float(_round(0, root, exponent + 149, 37 + (root >> 38)));
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
            // 24 more zero bits, so that one is always dropped.
            return _float(_round(sign, magnitude << 24, 149 - 24, _highestBit(magnitude) + 24));
        }
    }
}
