// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {Float32, LibFloat32} from "./Float32.sol";

/// @notice The byte names no primitive.
error UnknownPrimitive(uint8 op);

/// @title One primitive by its op byte: all the arithmetic that the referee can do
/// @notice Mirrors `apply` (a reserved word here) of `protocol/float32.py`. Values are 32-bit patterns: binary32, or two's
/// complement that wraps. The bytes are those of `protocol/ops.py` and of the specification, section 3.
library Primitives {
    uint8 internal constant ADD = 0x01;
    uint8 internal constant SUB = 0x02;
    uint8 internal constant MUL = 0x03;
    uint8 internal constant FMA = 0x04;
    uint8 internal constant DIV = 0x05;
    uint8 internal constant SQRT = 0x06;
    uint8 internal constant MAX = 0x07;
    uint8 internal constant MIN = 0x08;
    uint8 internal constant NEG = 0x09;
    uint8 internal constant ABS = 0x0a;
    uint8 internal constant EQ = 0x0b;
    uint8 internal constant LT = 0x0c;
    uint8 internal constant LE = 0x0d;
    uint8 internal constant WHERE = 0x0e;
    uint8 internal constant F2I = 0x0f;
    uint8 internal constant I2F = 0x10;
    uint8 internal constant F2BITS = 0x11;
    uint8 internal constant BITS2F = 0x12;

    uint8 internal constant IADD = 0x20;
    uint8 internal constant ISUB = 0x21;
    uint8 internal constant IMUL = 0x22;
    uint8 internal constant UMULH = 0x23;
    uint8 internal constant AND = 0x24;
    uint8 internal constant OR = 0x25;
    uint8 internal constant XOR = 0x26;
    uint8 internal constant SHL = 0x27;
    uint8 internal constant SHR = 0x28;
    uint8 internal constant SAR = 0x29;
    uint8 internal constant IEQ = 0x2a;
    uint8 internal constant ILT = 0x2b;
    uint8 internal constant ULT = 0x2c;
    uint8 internal constant IWHERE = 0x2d;

    /// @dev Byte k is the arity of op k, or of op 0x20 + k; 0 where no op has that byte.
    uint256 private constant FLOAT_ARITIES = 0x0002020203020102020101020202030101010100000000000000000000000000;
    uint256 private constant INTEGER_ARITIES = 0x0202020202020202020202020203000000000000000000000000000000000000;

    /// @notice Number of operands of a primitive. Reverts with UnknownPrimitive.
    function arity(uint8 op) internal pure returns (uint256 count) {
        assembly ("memory-safe") {
            let k := and(op, 0xff)
            // BYTE gives 0 for an index above 31, and below 0x20 the second index wraps around.
            count := or(byte(k, FLOAT_ARITIES), byte(sub(k, 0x20), INTEGER_ARITIES))
        }
        if (count == 0) revert UnknownPrimitive(op);
    }

    /// @notice Execute one primitive; operands beyond its arity are ignored.
    /// @return The pattern of the result. Reverts with UnknownPrimitive.
    function execute(uint8 op, uint32 a, uint32 b, uint32 c) internal pure returns (uint32) {
        return op < IADD ? _float(op, a, b, c) : _integer(op, a, b, c);
    }

    function _float(uint8 op, uint32 a, uint32 b, uint32 c) private pure returns (uint32) {
        (Float32 x, Float32 y) = (Float32.wrap(a), Float32.wrap(b));
        if (op == FMA) return x.fma(y, Float32.wrap(c)).toBits();
        if (op == ADD) return x.add(y).toBits();
        if (op == MUL) return x.mul(y).toBits();
        if (op == SUB) return x.sub(y).toBits();
        if (op == DIV) return x.div(y).toBits();
        if (op == SQRT) return x.sqrt().toBits();
        if (op == MAX) return x.maximum(y).toBits();
        if (op == MIN) return x.minimum(y).toBits();
        if (op == NEG) return x.neg().toBits();
        if (op == ABS) return x.absolute().toBits();
        if (op == EQ) return _bit(x.eq(y));
        if (op == LT) return _bit(x.lt(y));
        if (op == LE) return _bit(x.le(y));
        if (op == WHERE) return (a != 0 ? y : Float32.wrap(c)).canonical().toBits();
        if (op == F2I) return x.f2i();
        if (op == I2F) return LibFloat32.i2f(a).toBits();
        if (op == F2BITS || op == BITS2F) return x.canonical().toBits();
        revert UnknownPrimitive(op);
    }

    function _integer(uint8 op, uint32 a, uint32 b, uint32 c) private pure returns (uint32) {
        unchecked {
            if (op == IADD) return a + b;
            if (op == ISUB) return a - b;
            if (op == IMUL) return a * b;
            if (op == UMULH) return uint32((uint256(a) * b) >> 32);
            if (op == AND) return a & b;
            if (op == OR) return a | b;
            if (op == XOR) return a ^ b;
            if (op == SHL) return a << (b & 31);
            if (op == SHR) return a >> (b & 31);
            if (op == SAR) return uint32(int32(a) >> (b & 31));
            if (op == IEQ) return _bit(a == b);
            if (op == ILT) return _bit(int32(a) < int32(b));
            if (op == ULT) return _bit(a < b);
            if (op == IWHERE) return a != 0 ? b : c;
            revert UnknownPrimitive(op);
        }
    }

    function _bit(bool truth) private pure returns (uint32) {
        return truth ? 1 : 0;
    }
}
