// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {Merkle} from "../lib/Merkle.sol";

/// @notice The library's functions made callable for tests, some with the gas they used.
contract MerkleHarness {
    function leafHash(bytes calldata data) external view returns (bytes32) {
        return Merkle.leafHash(data);
    }

    function leafHash32(bytes32 data) external view returns (bytes32) {
        return Merkle.leafHash32(data);
    }

    function leafHash64(bytes32 first, bytes32 second) external view returns (bytes32) {
        return Merkle.leafHash64(first, second);
    }

    function nodeHash(bytes32 left, bytes32 right) external view returns (bytes32) {
        return Merkle.nodeHash(left, right);
    }

    function verifyInclusion(bytes32 root, uint256 size, uint256 index, bytes32 leaf, bytes32[] calldata proof)
        external
        view
        returns (bool valid, uint256 used)
    {
        uint256 before = gasleft();
        valid = Merkle.verifyInclusion(root, size, index, leaf, proof);
        used = before - gasleft();
    }

    function verifyConsistency(
        bytes32 oldRoot,
        uint256 oldSize,
        bytes32 newRoot,
        uint256 newSize,
        bytes32[] calldata proof
    ) external view returns (bool valid, uint256 used) {
        uint256 before = gasleft();
        valid = Merkle.verifyConsistency(oldRoot, oldSize, newRoot, newSize, proof);
        used = before - gasleft();
    }

    function combine(bytes32[] calldata children) external view returns (bytes32 root, uint256 used) {
        uint256 before = gasleft();
        root = Merkle.combine(children);
        used = before - gasleft();
    }

    /// @return root of `children`, which must come back unchanged with `beside`, allocated afterwards.
    function combineMemory(bytes32[] memory children, bytes32 beside)
        external
        view
        returns (bytes32 root, bytes32[] memory kept, bytes32[] memory fresh)
    {
        root = Merkle.combineMemory(children);
        fresh = new bytes32[](2);
        fresh[1] = beside;
        kept = children;
    }

    /// @return the hash over all, with a fresh allocation between the calls: memory stays consistent.
    function mixed(bytes calldata data, bytes32 word, bytes32[] calldata children)
        external
        view
        returns (bytes32, bytes32[] memory)
    {
        bytes32[] memory results = new bytes32[](3);
        results[0] = Merkle.leafHash(data);
        results[1] = Merkle.leafHash32(word);
        results[2] = Merkle.combine(children);
        bytes32[] memory fresh = new bytes32[](3);
        return (Merkle.combineMemory(results), fresh);
    }

    function opening(uint256 leaves) external view returns (uint256 block_, uint256 children, uint256 used) {
        uint256 before = gasleft();
        (, block_,) = Merkle.child(leaves, 1);
        used = before - gasleft();
        children = Merkle.childCount(leaves);
    }

    function child(uint256 leaves, uint256 index) external pure returns (uint256, uint256, uint256) {
        return Merkle.child(leaves, index);
    }
}
