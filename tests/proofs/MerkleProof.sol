// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {Merkle} from "../../contracts/lib/Merkle.sol";
import {Proof} from "./Proof.sol";

/// @title Trees, against the recursive definitions of RFC 9162. SHA-256 stands for any function of its input.
contract MerkleProof is Proof {
    uint256 private constant SIZES = 33;
    uint256 private constant PAIRED_SIZES = 17;

    function combine(bytes32[] calldata children) external view returns (bytes32) {
        return Merkle.combine(children);
    }

    function _node(bytes32 left, bytes32 right) private pure returns (bytes32) {
        return sha256(abi.encodePacked(bytes1(0x01), left, right));
    }

    /// Whether both hold, as a value: `&&` would make two paths of each.
    function _both(bool a, bool b) private pure returns (bool c) {
        assembly ("memory-safe") {
            c := and(a, b)
        }
    }

    /// The largest power of two below n.
    function _split(uint256 n) private pure returns (uint256 k) {
        k = 1;
        while (2 * k < n) k *= 2;
    }

    /// Section 2.1.3.1 read backwards: the root that a path of exactly `length` hashes leads to.
    function _root(uint256 size, uint256 index, bytes32 leaf, bytes32[] calldata path, uint256 length)
        private
        pure
        returns (bool exact, bytes32 root)
    {
        if (size == 1) return (length == 0, leaf);
        if (length == 0) return (false, 0);
        uint256 k = _split(size);
        bytes32 sibling = path[length - 1];
        if (index < k) {
            (exact, root) = _root(k, index, leaf, path, length - 1);
            root = _node(root, sibling);
        } else {
            (exact, root) = _root(size - k, index - k, leaf, path, length - 1);
            root = _node(sibling, root);
        }
    }

    /// Of every index of every tree of up to 33 leaves, exactly the one path of the definition is accepted.
    function check_inclusion_is_exactly_the_defined_path(
        bytes32 root,
        uint256 size,
        uint256 index,
        bytes32 leaf,
        bytes32[] calldata proof
    ) external view {
        VM.assume(size <= SIZES && index < size);
        // A path of its own for each size and index, where both are constants.
        for (uint256 n = 1; n <= SIZES; ++n) {
            if (size != n) continue;
            for (uint256 i = 0; i < n; ++i) {
                if (index != i) continue;
                (bool exact, bytes32 defined) = _root(n, i, leaf, proof, proof.length);
                assert(Merkle.verifyInclusion(root, n, i, leaf, proof) == _both(exact, defined == root));
                return;
            }
        }
        assert(false);
    }

    /// An index outside of a tree of any size is refused.
    function check_an_index_outside_is_refused(
        bytes32 root,
        uint256 size,
        uint256 index,
        bytes32 leaf,
        bytes32[] calldata proof
    ) external view {
        VM.assume(index >= size);
        assert(!Merkle.verifyInclusion(root, size, index, leaf, proof));
    }

    /// Section 2.1.4.1 read backwards: both roots that a proof of exactly `length` hashes leads to.
    function _roots(uint256 m, uint256 n, bool whole, bytes32 known, bytes32[] calldata proof, uint256 length)
        private
        pure
        returns (bool exact, bytes32 older, bytes32 newer)
    {
        if (m == n && whole) return (length == 0, known, known);
        if (length == 0) return (false, 0, 0);
        bytes32 last = proof[length - 1];
        if (m == n) return (length == 1, last, last);
        uint256 k = _split(n);
        if (m <= k) {
            (exact, older, newer) = _roots(m, k, whole, known, proof, length - 1);
            newer = _node(newer, last);
        } else {
            (exact, older, newer) = _roots(m - k, n - k, false, known, proof, length - 1);
            older = _node(last, older);
            newer = _node(last, newer);
        }
    }

    /// Of every pair of sizes up to 17, exactly the one consistency proof of the definition is accepted.
    function check_consistency_is_exactly_the_defined_proof(
        bytes32 oldRoot,
        bytes32 newRoot,
        bytes32[] calldata proof
    ) external view {
        for (uint256 n = 1; n <= PAIRED_SIZES; ++n) {
            for (uint256 m = 1; m <= n; ++m) {
                (bool exact, bytes32 older, bytes32 newer) = _roots(m, n, true, oldRoot, proof, proof.length);
                bool valid = Merkle.verifyConsistency(oldRoot, m, newRoot, n, proof);
                assert(valid == _both(exact, _both(older == oldRoot, newer == newRoot)));
            }
        }
    }

    /// An empty old tree, or one larger than the new, is refused.
    function check_sizes_that_cannot_be_are_refused(
        bytes32 oldRoot,
        uint256 oldSize,
        bytes32 newRoot,
        uint256 newSize,
        bytes32[] calldata proof
    ) external view {
        VM.assume(oldSize == 0 || oldSize > newSize);
        assert(!Merkle.verifyConsistency(oldRoot, oldSize, newRoot, newSize, proof));
    }

    /// Section 2.1.1, over hashes.
    function _tree(bytes32[] calldata children, uint256 from, uint256 to) private pure returns (bytes32) {
        if (to - from == 1) return children[from];
        uint256 middle = from + _split(to - from);
        return _node(_tree(children, from, middle), _tree(children, middle, to));
    }

    /// Up to 16 children combine as the definition says; none or more are refused.
    function check_children_combine_as_defined(bytes32[] calldata children) external view {
        (bool done, bytes memory result) = address(this).staticcall(abi.encodeCall(this.combine, (children)));
        uint256 count = children.length;
        if (count == 0 || count > 16) {
            assert(!done);
            assert(_equal(result, abi.encodeWithSelector(Merkle.InvalidChildCount.selector, count)));
        } else {
            assert(done && abi.decode(result, (bytes32)) == _tree(children, 0, count));
            bytes32[] memory copy = children;
            assert(Merkle.combineMemory(copy) == _tree(children, 0, count));
        }
    }

    /// Hashes have the prefixes of the definition, and the free memory pointer is what it was.
    function check_hashes_are_those_of_the_definition(bytes32 left, bytes32 right) external view {
        uint256 before;
        uint256 afterwards;
        assembly ("memory-safe") {
            before := mload(0x40)
        }
        bytes32 node = Merkle.nodeHash(left, right);
        bytes32 sealedLeaf = Merkle.leafHash64(left, right);
        bytes32 leaf = Merkle.leafHash32(left);
        assembly ("memory-safe") {
            afterwards := mload(0x40)
        }
        assert(before == afterwards);
        assert(node == _node(left, right));
        assert(sealedLeaf == sha256(abi.encodePacked(bytes1(0x00), left, right)));
        assert(leaf == sha256(abi.encodePacked(bytes1(0x00), left)));
    }
}
