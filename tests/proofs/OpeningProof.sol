// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {Merkle} from "../../contracts/lib/Merkle.sol";
import {Proof} from "./Proof.sol";

/// @title How subtrees are cut into children, for every number of leaves and every index (uint256).
contract OpeningProof is Proof {
    function childLeafCount(uint256 leaves, uint256 index) external pure returns (uint256) {
        return Merkle.childLeafCount(leaves, index);
    }

    function blockSize(uint256 leaves) external pure returns (uint256) {
        return Merkle.blockSize(leaves);
    }

    function childCount(uint256 leaves) external pure returns (uint256) {
        return Merkle.childCount(leaves);
    }

    /// A block is the largest power of 16 below the number of leaves; 2 to 16 of them, the last not empty, cover all.
    function check_children_cover_the_leaves(uint256 leaves, uint256 index) external view {
        VM.assume(leaves >= 2);
        uint256 size = Merkle.blockSize(leaves);
        uint256 count = Merkle.childCount(leaves);
        assert(count >= 2 && count <= 16);
        bool found;
        for (uint256 m = 0; m < 64; ++m) {
            uint256 power = 1 << 4 * m;
            if (size != power) continue;
            found = true;
            assert(power < leaves && (m == 63 || leaves <= power << 4));
            assert((count - 1) << 4 * m < leaves && (leaves - 1) >> 4 * m == count - 1);
            (bool done, bytes memory result) =
                address(this).staticcall(abi.encodeCall(this.childLeafCount, (leaves, index)));
            assert(done == (index < count));
            if (index + 1 < count) assert(abi.decode(result, (uint256)) == power);
            else if (done) assert(abi.decode(result, (uint256)) == leaves - ((count - 1) << 4 * m));
            else assert(_equal(result, abi.encodeWithSelector(Merkle.ChildOutOfRange.selector, index, count)));
        }
        assert(found);
    }

    /// A subtree of one leaf, or none, is not opened.
    function check_nothing_to_open(uint256 leaves, uint256 index) external view {
        VM.assume(leaves < 2);
        bytes memory refusal = abi.encodeWithSelector(Merkle.NothingToOpen.selector, leaves);
        (bool done, bytes memory result) = address(this).staticcall(abi.encodeCall(this.blockSize, (leaves)));
        assert(!done && _equal(result, refusal));
        (done, result) = address(this).staticcall(abi.encodeCall(this.childCount, (leaves)));
        assert(!done && _equal(result, refusal));
        (done, result) = address(this).staticcall(abi.encodeCall(this.childLeafCount, (leaves, index)));
        assert(!done && _equal(result, refusal));
    }
}
