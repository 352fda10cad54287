// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {Float32} from "../lib/Float32.sol";
import {Primitives} from "../lib/Primitives.sol";

/// @title Test access to the primitives: batches of vectors, and gas
contract Float32Harness {
    /// @notice The operands are not a whole number of vectors.
    error RaggedOperands(uint256 length, uint256 arity);

    /// @notice One primitive; operands beyond its arity are ignored.
    function execute(uint8 op, uint32 a, uint32 b, uint32 c) external pure returns (uint32) {
        return Primitives.execute(op, a, b, c);
    }

    /// @notice Number of operands of a primitive.
    function arity(uint8 op) external pure returns (uint256) {
        return Primitives.arity(op);
    }

    /// @notice Evaluate a primitive on many vectors.
    /// @param operands Vector after vector, each `arity` big-endian words of four bytes.
    /// @return results One big-endian word of four bytes a vector.
    function batch(uint8 op, bytes calldata operands) external pure returns (bytes memory results) {
        unchecked {
            uint256 width = 4 * Primitives.arity(op);
            if (operands.length % width != 0) revert RaggedOperands(operands.length, width / 4);
            uint256 count = operands.length / width;
            results = new bytes(4 * count + 32); // each result is stored with 28 zero bytes after it
            for (uint256 i = 0; i < count; ++i) {
                (uint256 a, uint256 b, uint256 c) = _load(operands, i * width);
                _store(results, 4 * i, Primitives.execute(op, uint32(a), uint32(b), uint32(c)));
            }
            assembly ("memory-safe") {
                mstore(results, mul(4, count))
            }
        }
    }

    /// @notice Evaluate a primitive once, by the same path as the referee, and report its gas.
    /// @return result The pattern of the result.
    /// @return used Gas of the dispatch and the operation, without the cost of reading the meter.
    function measure(uint8 op, uint32 a, uint32 b, uint32 c) external view returns (uint32 result, uint256 used) {
        uint256 idle = gasleft();
        idle -= gasleft();
        uint256 start = gasleft();
        result = Primitives.execute(op, a, b, c);
        used = start - gasleft() - idle;
    }

    /// @notice A chain of `count` fused multiply-adds without dispatch; the gas of one is the slope.
    function chain(Float32 a, Float32 b, Float32 accumulator, uint256 count) external pure returns (Float32) {
        unchecked {
            for (uint256 i = 0; i < count; ++i) accumulator = a.fma(b, accumulator);
            return accumulator;
        }
    }

    /// @dev Bytes past the end of the vector's words belong to its neighbour, or read as zero.
    function _load(bytes calldata operands, uint256 offset) private pure returns (uint256 a, uint256 b, uint256 c) {
        assembly ("memory-safe") {
            let word := calldataload(add(operands.offset, offset))
            a := shr(224, word)
            b := and(shr(192, word), 0xffffffff)
            c := and(shr(160, word), 0xffffffff)
        }
    }

    function _store(bytes memory results, uint256 offset, uint32 word) private pure {
        assembly ("memory-safe") {
            mstore(add(add(results, 32), offset), shl(224, word))
        }
    }
}
