// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

/// @title RFC 9162 section 2.1 Merkle trees with SHA-256, and the openings of the dispute game.
/// @notice `leaf(d) = H(00 || d)`, `node(l, r) = H(01 || l || r)`; n leaves split at the largest power of
/// two below n. `protocol/merkle.py` is the same in Python.
/// @dev A proof authenticates a path in a tree of the *given* size: leaf 0 of 5 and of 8 leaves share one.
/// Sizes must come from the task or from storage, never from the party that brings the proof.
///
/// The precompile can only fail for lack of gas, and then leaves the old hash where the new one belongs.
/// So no result is used unless every call of it succeeded (63/64 rule).
///
/// Prefix, left and right are laid into bytes 0 to 64: the scratch space and the top byte of the free memory
/// pointer, which is always zero and is made so again before the assembly ends.
library Merkle {
    /// An opening shows at most this many children.
    uint256 internal constant ARITY = 16;

    /// A call of the SHA-256 precompile ran out of gas.
    error Sha256OutOfGas();
    /// An opening has 1 to 16 children.
    error InvalidChildCount(uint256 count);
    /// A subtree of fewer than two leaves is revealed, not opened.
    error NothingToOpen(uint256 leaves);

    /// @return hash_ the hash of the leaf that holds `data`.
    function leafHash(bytes calldata data) internal view returns (bytes32 hash_) {
        bool hashed;
        assembly ("memory-safe") {
            let input := mload(0x40)
            mstore8(input, 0)
            calldatacopy(add(input, 1), data.offset, data.length)
            hashed := staticcall(gas(), 2, input, add(data.length, 1), 0, 32)
            hash_ := mload(0)
        }
        if (!hashed) revert Sha256OutOfGas();
    }

    /// @return hash_ the hash of a leaf of exactly 32 bytes: a root inside a state, trace or step log.
    function leafHash32(bytes32 data) internal view returns (bytes32 hash_) {
        bool hashed;
        assembly ("memory-safe") {
            mstore8(0, 0)
            mstore(1, data)
            hashed := staticcall(gas(), 2, 0, 33, 0, 32)
            hash_ := mload(0)
        }
        if (!hashed) revert Sha256OutOfGas();
    }

    /// @return the hash of a leaf of exactly 64 bytes: the sealed leaf `salt || state root`.
    function leafHash64(bytes32 first, bytes32 second) internal view returns (bytes32) {
        return _hash65(0, first, second);
    }

    /// @return the hash of the inner node over two hashes.
    function nodeHash(bytes32 left, bytes32 right) internal view returns (bytes32) {
        return _hash65(1, left, right);
    }

    function _hash65(uint256 prefix, bytes32 left, bytes32 right) private view returns (bytes32 hash_) {
        bool hashed;
        assembly ("memory-safe") {
            mstore8(0, prefix)
            mstore(1, left)
            mstore(33, right)
            hashed := staticcall(gas(), 2, 0, 65, 0, 32)
            hash_ := mload(0)
            mstore8(64, 0)
        }
        if (!hashed) revert Sha256OutOfGas();
    }

    /// @notice Verify an inclusion proof (RFC 9162 section 2.1.3). It must have exactly the path's length.
    /// @dev Where `index` and the last leaf still differ, siblings lie on both sides. From there on up
    /// the node is the last of its level: where it is a left child it has no sibling, so each 1 left in
    /// `index` takes one sibling from the left. Each hash is written to where the next step wants it: `slot`
    /// is 1 for the left, 33 for the right. Reads behind the proof's end spoil only the result: the
    /// final comparison of `at` then fails, after at most 256 hashes.
    function verifyInclusion(bytes32 root, uint256 size, uint256 index, bytes32 leaf, bytes32[] calldata proof)
        internal
        view
        returns (bool valid)
    {
        if (index >= size) return false;
        bool hashed;
        assembly ("memory-safe") {
            mstore8(0, 1)
            let at := proof.offset
            let end := add(at, shl(5, proof.length))
            hashed := 1
            let slot := or(shl(5, and(index, 1)), 1)
            mstore(slot, leaf)
            for { let differ := xor(index, sub(size, 1)) } differ { differ := shr(1, differ) } {
                mstore(xor(slot, 32), calldataload(at))
                at := add(at, 32)
                index := shr(1, index)
                slot := or(shl(5, and(index, 1)), 1)
                hashed := and(hashed, staticcall(gas(), 2, 0, 65, slot, 32))
            }
            mstore(33, mload(slot))
            for {} index { index := and(index, sub(index, 1)) } {
                mstore(1, calldataload(at))
                at := add(at, 32)
                hashed := and(hashed, staticcall(gas(), 2, 0, 65, 33, 32))
            }
            valid := and(eq(mload(33), root), eq(at, end))
            mstore8(64, 0)
        }
        if (!hashed) revert Sha256OutOfGas();
    }

    /// @notice Verify a consistency proof (RFC 9162 section 2.1.4): the new tree only appends to the old one.
    /// Equal sizes need equal roots and an empty proof. It must have exactly the length for the sizes.
    /// @dev The walk starts at the largest complete subtree that ends the old tree, which is the old tree
    /// itself (and not in the proof) if its size is a power of two. Siblings from the left belong to both
    /// trees, those from the right to the new one. As above, a walk past the end fails at the end.
    function verifyConsistency(
        bytes32 oldRoot,
        uint256 oldSize,
        bytes32 newRoot,
        uint256 newSize,
        bytes32[] calldata proof
    ) internal view returns (bool valid) {
        if (oldSize == 0 || oldSize > newSize) return false;
        if (oldSize == newSize) return proof.length == 0 && oldRoot == newRoot;
        bool hashed;
        assembly ("memory-safe") {
            mstore8(0, 1)
            let at := proof.offset
            let end := add(at, shl(5, proof.length))
            let index := sub(oldSize, 1)
            let last := sub(newSize, 1)
            for {} and(index, 1) {} {
                index := shr(1, index)
                last := shr(1, last)
            }
            let older := oldRoot
            if index {
                older := calldataload(at)
                at := add(at, 32)
            }
            let newer := older
            hashed := 1
            for { let differ := xor(index, last) } differ { differ := shr(1, differ) } {
                switch and(index, 1)
                case 0 {
                    mstore(1, newer)
                    mstore(33, calldataload(at))
                }
                default {
                    mstore(1, calldataload(at))
                    mstore(33, older)
                    hashed := and(hashed, staticcall(gas(), 2, 0, 65, 33, 32))
                    older := mload(33)
                    mstore(33, newer)
                }
                hashed := and(hashed, staticcall(gas(), 2, 0, 65, 33, 32))
                newer := mload(33)
                index := shr(1, index)
                at := add(at, 32)
            }
            for {} index { index := and(index, sub(index, 1)) } {
                mstore(1, calldataload(at))
                mstore(33, older)
                hashed := and(hashed, staticcall(gas(), 2, 0, 65, 33, 32))
                older := mload(33)
                mstore(33, newer)
                hashed := and(hashed, staticcall(gas(), 2, 0, 65, 33, 32))
                newer := mload(33)
                at := add(at, 32)
            }
            valid := and(and(eq(older, oldRoot), eq(newer, newRoot)), eq(at, end))
            mstore8(64, 0)
        }
        if (!hashed) revert Sha256OutOfGas();
    }

    /// @return the hash of the subtree that these 1 to 16 children open.
    function combine(bytes32[] calldata children) internal view returns (bytes32) {
        uint256 count = children.length;
        uint256 buffer = _allocate(count);
        assembly ("memory-safe") {
            calldatacopy(buffer, children.offset, shl(5, count))
        }
        return _fold(buffer, count);
    }

    /// @notice The same for children in memory, which stay as they are.
    function combineMemory(bytes32[] memory children) internal view returns (bytes32) {
        uint256 count = children.length;
        uint256 buffer = _allocate(count);
        assembly ("memory-safe") {
            mcopy(buffer, add(children, 32), shl(5, count))
        }
        return _fold(buffer, count);
    }

    /// @dev Room for `count` hashes and one word before them, whose last byte will hold a node prefix.
    function _allocate(uint256 count) private pure returns (uint256 buffer) {
        if (count == 0 || count > ARITY) revert InvalidChildCount(count);
        assembly ("memory-safe") {
            buffer := add(mload(0x40), 32)
            mstore(0x40, add(buffer, shl(5, count)))
        }
    }

    /// @dev Hash the buffer level by level in place; an odd last hash moves up unchanged. A pair's prefix
    /// overwrites the byte before it, the end of a pair that is already hashed.
    function _fold(uint256 buffer, uint256 count) private view returns (bytes32 root) {
        bool hashed;
        assembly ("memory-safe") {
            hashed := 1
            let first := sub(buffer, 1)
            for {} gt(count, 1) { count := shr(1, add(count, 1)) } {
                let to := buffer
                let input := first
                for { let end := add(first, shl(6, shr(1, count))) } lt(input, end) { input := add(input, 64) } {
                    mstore8(input, 1)
                    hashed := and(hashed, staticcall(gas(), 2, input, 65, to, 32))
                    to := add(to, 32)
                }
                if and(count, 1) { mstore(to, mload(add(input, 1))) }
            }
            root := mload(buffer)
        }
        if (!hashed) revert Sha256OutOfGas();
    }

    /// @return the number of children, 2 to 16, of a subtree of `leaves` leaves.
    function childCount(uint256 leaves) internal pure returns (uint256) {
        uint256 bits = _blockBits(leaves);
        unchecked {
            return ((leaves - 1) >> bits) + 1;
        }
    }

    /// @notice Child `index` of a subtree of `leaves` leaves. Each covers a block, the largest power of 16 below
    /// `leaves`, but for the last. Whoever proves the child's inclusion among `children` proves the index as well.
    /// @return children how many there are
    /// @return first the child's first leaf, counted in the subtree; meaningless for an index out of range
    /// @return count how many leaves it covers; likewise
    function child(uint256 leaves, uint256 index)
        internal
        pure
        returns (uint256 children, uint256 first, uint256 count)
    {
        uint256 bits = _blockBits(leaves);
        unchecked {
            uint256 last = (leaves - 1) >> bits;
            first = index << bits;
            return (last + 1, first, index < last ? 1 << bits : leaves - first);
        }
    }

    /// @dev 4 * floor(log16(leaves - 1)), found by halving the 64 hexadecimal digits.
    function _blockBits(uint256 leaves) private pure returns (uint256 bits) {
        if (leaves < 2) revert NothingToOpen(leaves);
        assembly ("memory-safe") {
            let x := sub(leaves, 1)
            bits := shl(7, gt(x, 0xffffffffffffffffffffffffffffffff))
            bits := or(bits, shl(6, gt(shr(bits, x), 0xffffffffffffffff)))
            bits := or(bits, shl(5, gt(shr(bits, x), 0xffffffff)))
            bits := or(bits, shl(4, gt(shr(bits, x), 0xffff)))
            bits := or(bits, shl(3, gt(shr(bits, x), 0xff)))
            bits := or(bits, shl(2, gt(shr(bits, x), 0xf)))
        }
    }
}
