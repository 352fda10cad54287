// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

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
    /// @dev Byte n is the number of the highest bit of the nibble n.
    uint256 private constant HIGHEST_BIT = 0x0000010102020202030303030303030300000000000000000000000000000000;

    /// @dev Extra bits of a quotient: enough to round with a sticky bit.
    uint256 private constant SPARE = 64;
    /// @dev Extra bits of a radicand; its root then has at least 26 bits. Must be even.
    uint256 private constant ROOT_SPARE = 52;
    /// @dev Two terms whose last places are further apart than this meet as "large and a bit": 48 bits
    /// of a product cannot reach the 24 bits that are kept of the other term.
    int256 private constant FAR = 64;

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

    /// @dev NaN or infinite: the exponent field is all ones.
    function _isSpecial(uint256 x) private pure returns (bool) {
        return x & MAGNITUDE >= INFINITY;
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

    /// @dev Rounds the nonzero `significand * 2**(place - 149)` (sections 4.3.1, 7.4, 7.5).
    ///
    /// The last place that is kept is that of the 24th significant bit but never below place 0: that is
    /// gradual underflow. Adding the significand to the exponent field lets its hidden bit and a carry
    /// of the rounding step into the next binade by themselves; past the largest binade is infinity.
    /// With 24 zero bits appended at least one bit is always dropped, so there is no case to tell apart.
    /// @param sign In bit 31.
    /// @param significand Below 2**128; if inexact, its lowest bit is sticky and it has 26 bits or more.
    /// @param place At least -220, so that at most 244 bits are dropped.
    function _round(uint256 sign, uint256 significand, int256 place) private pure returns (uint256 result) {
        assembly ("memory-safe") {
            // Number of the highest bit, by bisection; a table ends it.
            let top := shl(6, lt(0xffffffffffffffff, significand))
            top := or(top, shl(5, lt(0xffffffff, shr(top, significand))))
            top := or(top, shl(4, lt(0xffff, shr(top, significand))))
            top := or(top, shl(3, lt(0xff, shr(top, significand))))
            top := or(top, shl(2, lt(0xf, shr(top, significand))))
            top := or(top, byte(shr(top, significand), HIGHEST_BIT))

            let kept := sub(add(top, place), 23) // the last place kept ...
            kept := mul(kept, sgt(kept, 0)) // ... is never below 0
            let dropped := sub(add(kept, 24), place)
            significand := shl(24, significand)
            let odd := and(shr(dropped, significand), 1)
            let bias := add(sub(shl(sub(dropped, 1), 1), 1), odd)
            result := add(shl(23, kept), shr(dropped, add(significand, bias)))
            if gt(result, INFINITY) { result := INFINITY }
            result := or(result, sign)
        }
    }

    /// @dev Rounds the sum of two signed exact numbers, x below 2**48 and y below 2**24. A sum of zero
    /// has its sign by section 6.3. Zero terms are handled first, since their place says nothing.
    function _sum(uint256 xSign, uint256 x, int256 xPlace, uint256 ySign, uint256 y, int256 yPlace)
        private
        pure
        returns (uint256)
    {
        unchecked {
            if (x * y == 0) {
                if (x != 0) return _round(xSign, x, xPlace);
                if (y != 0) return _round(ySign, y, yPlace);
                return xSign & ySign;
            }
            int256 apart = xPlace - yPlace;
            if (apart > 0) {
                if (apart > FAR) (apart, y) = (FAR, 1);
                x <<= uint256(apart);
                xPlace -= apart;
            } else {
                if (apart < -FAR) (apart, x, xPlace) = (-FAR, 1, yPlace - FAR);
                y <<= uint256(-apart);
            }
            if (xSign == ySign) {
                x += y;
            } else {
                if (x == y) return 0;
                if (x > y) x -= y;
                else (xSign, x) = (ySign, y - x);
            }
            return _round(xSign, x, xPlace);
        }
    }

    // Arithmetic -------------------------------------------------------------------------------------

    /// @notice x + y (section 5.4.1). Opposite infinities give NaN; x + (-x) is +0.
    function add(Float32 x, Float32 y) internal pure returns (Float32) {
        return _float(_add(_word(x), _word(y)));
    }

    /// @notice x - y (section 5.4.1), which is x + (-y).
    function sub(Float32 x, Float32 y) internal pure returns (Float32) {
        return _float(_add(_word(x), _word(y) ^ SIGN));
    }

    function _add(uint256 a, uint256 b) private pure returns (uint256) {
        if (_isSpecial(a) || _isSpecial(b)) {
            if (_isNan(a) || _isNan(b)) return NAN;
            if (_isInfinite(a)) return _isInfinite(b) && a != b ? NAN : a;
            return b;
        }
        (uint256 aSignificand, uint256 aPlace) = _exact(a);
        (uint256 bSignificand, uint256 bPlace) = _exact(b);
        return _sum(a & SIGN, aSignificand, int256(aPlace), b & SIGN, bSignificand, int256(bPlace));
    }

    /// @notice x * y (section 5.4.1). Zero times infinity is NaN.
    function mul(Float32 x, Float32 y) internal pure returns (Float32) {
        unchecked {
            (uint256 a, uint256 b) = (_word(x), _word(y));
            uint256 sign = (a ^ b) & SIGN;
            if (_isSpecial(a) || _isSpecial(b)) {
                if (_isNan(a) || _isNan(b) || _isZero(a) || _isZero(b)) return _float(NAN);
                return _float(sign | INFINITY);
            }
            (uint256 aSignificand, uint256 aPlace) = _exact(a);
            (uint256 bSignificand, uint256 bPlace) = _exact(b);
            uint256 product = aSignificand * bSignificand;
            if (product == 0) return _float(sign);
            return _float(_round(sign, product, int256(aPlace + bPlace) - 149));
        }
    }

    /// @notice x * y + z, rounded once (section 5.4.1). Zero times infinity plus anything is NaN.
    function fma(Float32 x, Float32 y, Float32 z) internal pure returns (Float32) {
        unchecked {
            (uint256 a, uint256 b, uint256 c) = (_word(x), _word(y), _word(z));
            uint256 sign = (a ^ b) & SIGN;
            if (_isSpecial(a) || _isSpecial(b) || _isSpecial(c)) return _float(_fmaSpecial(a, b, c, sign));
            (uint256 aSignificand, uint256 aPlace) = _exact(a);
            (uint256 bSignificand, uint256 bPlace) = _exact(b);
            (uint256 cSignificand, uint256 cPlace) = _exact(c);
            uint256 product = aSignificand * bSignificand;
            int256 place = int256(aPlace + bPlace) - 149;
            return _float(_sum(sign, product, place, c & SIGN, cSignificand, int256(cPlace)));
        }
    }

    /// @dev At least one of the three is a NaN or infinite.
    function _fmaSpecial(uint256 a, uint256 b, uint256 c, uint256 sign) private pure returns (uint256) {
        if (_isNan(a) || _isNan(b) || _isNan(c)) return NAN;
        if (_isInfinite(a) || _isInfinite(b)) {
            if (_isZero(a) || _isZero(b)) return NAN;
            uint256 product = sign | INFINITY;
            return _isInfinite(c) && c != product ? NAN : product;
        }
        return c;
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
            return _float(_round(sign, quotient | sticky, place));
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
            uint256 root = _integerRoot(radicand);
            uint256 sticky = root * root == radicand ? 0 : 1;
            exponent = (exponent - int256(odd) - int256(ROOT_SPARE)) / 2;
            return _float(_round(0, root | sticky, exponent + 149));
        }
    }

    /// @dev Floor of the square root of a radicand in [2**75, 2**77), by Newton's method from 2**39, which
    /// is above every root. The relative error is at most 1.83, then 0.6, 0.11, 5.5e-3, 1.5e-5, 1.2e-10
    /// and 6.7e-21 after six steps, always from above: far below one unit, but a floor may round up.
    function _integerRoot(uint256 radicand) private pure returns (uint256 root) {
        unchecked {
            root = (1 << 38) + (radicand >> 40); // the first step, from 2**39
            root = (root + radicand / root) >> 1;
            root = (root + radicand / root) >> 1;
            root = (root + radicand / root) >> 1;
            root = (root + radicand / root) >> 1;
            root = (root + radicand / root) >> 1;
            if (root * root > radicand) root -= 1;
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
            return _float(_round(sign, magnitude, 149));
        }
    }
}
