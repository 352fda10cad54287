// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

/// @title A commitment to posted 32-bit words from which one word and the one before it are shown cheaply.
/// @notice A binary keccak256 tree. A leaf is eight words behind the word before them, 36 bytes; the first has
/// an agreed word before it, the last is filled up with zeros, and zero hashes fill up the leaves to a power
/// of two. So whoever points at a word sends one leaf and at most five hashes, not the words.
/// `protocol/word_tree.py` is the same in Python.
library WordTree {
    uint256 private constant LEAF_WORDS = 8;

    /// @return root_ the root over `data`, whose length is not zero, with `before` before the first word.
    function root(bytes calldata data, uint32 before) internal pure returns (bytes32 root_) {
        assembly ("memory-safe") {
            // Memory: the hashes, then `before` in four bytes, the data, and zeros up to a full leaf.
            let hashes := mload(0x40)
            let leaves := shr(5, add(data.length, 31))
            let width := 1
            for {} lt(width, leaves) {} { width := shl(1, width) }
            let source := add(hashes, shl(5, width))
            mstore(source, shl(224, before))
            calldatacopy(add(source, 4), data.offset, data.length)
            mstore(add(add(source, 4), data.length), 0)
            let to := hashes
            for { let end := add(hashes, shl(5, leaves)) } lt(to, end) { to := add(to, 32) } {
                mstore(to, keccak256(source, 36))
                source := add(source, 32)
            }
            for { let end := add(hashes, shl(5, width)) } lt(to, end) { to := add(to, 32) } { mstore(to, 0) }
            for {} gt(width, 1) {} {
                width := shr(1, width)
                to := hashes
                for { let end := add(hashes, shl(5, width)) } lt(to, end) { to := add(to, 32) } {
                    mstore(to, keccak256(add(hashes, shl(1, sub(to, hashes))), 64))
                }
            }
            root_ := mload(hashes)
        }
    }

    /// @notice Whether a leaf is the one that holds word `index` in a tree over `count` words, and if so what the
    /// word and the one before it are.
    function show(
        bytes32 root_,
        uint256 count,
        uint256 index,
        uint32 before,
        bytes32 eight,
        bytes32[] calldata path
    ) internal pure returns (bool valid, uint32 previous, uint32 word) {
        uint256 depth = 0;
        while (LEAF_WORDS << depth < count) depth++;
        // INVARIANT: a path has exactly the tree's depth, and no index lies behind the words.
        if (index >= count || path.length != depth) return (false, 0, 0);
        bytes32 hash = keccak256(abi.encodePacked(before, eight));
        uint256 place = index / LEAF_WORDS;
        for (uint256 i = 0; i < depth; i++) {
            hash = place & 1 == 0
                ? keccak256(abi.encodePacked(hash, path[i]))
                : keccak256(abi.encodePacked(path[i], hash));
            place >>= 1;
        }
        // The word's place counted in 36 bytes, of which the first four are `before`.
        uint256 shift = 32 * (LEAF_WORDS - 1 - index % LEAF_WORDS);
        word = uint32(uint256(eight) >> shift);
        previous = index % LEAF_WORDS == 0 ? before : uint32(uint256(eight) >> (shift + 32));
        valid = hash == root_;
    }
}
