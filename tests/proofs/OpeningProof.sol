// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {Merkle} from "../../contracts/lib/Merkle.sol";
import {Proof} from "./Proof.sol";

/// @title How subtrees are cut into children, for every number of leaves and every index (uint256).
contract OpeningProof is Proof {
    function child(uint256 leaves, uint256 index) external pure returns (uint256, uint256, uint256) {
        return Merkle.child(leaves, index);
    }

    function childCount(uint256 leaves) external pure returns (uint256) {
        return Merkle.childCount(leaves);
    }

    /// A child covers a block, the largest power of 16 below the number of leaves, the last one what is left, which is
    /// not nothing: 2 to 16 of them cover all. An index out of range says nothing (a proof among the children refuses it).
    function check_children_cover_the_leaves(uint256 leaves, uint256 index) external pure {
        VM.assume(leaves >= 2);
        (uint256 children, uint256 first, uint256 count) = Merkle.child(leaves, index);
        assert(children == Merkle.childCount(leaves));
        assert(children >= 2 && children <= 16);
        bool found;
        for (uint256 m = 0; m < 64; ++m) {
            uint256 power = 1 << 4 * m;
            if (power >= leaves || (m != 63 && leaves > power << 4)) continue;
            found = true;
            assert((children - 1) << 4 * m < leaves && (leaves - 1) >> 4 * m == children - 1);
            if (index >= children) continue;
            assert(first == index << 4 * m);
            assert(count == (index + 1 < children ? power : leaves - first));
        }
        assert(found);
    }

    /// A subtree of one leaf, or none, is not opened.
    function check_nothing_to_open(uint256 leaves, uint256 index) external view {
        VM.assume(leaves < 2);
        bytes memory refusal = abi.encodeWithSelector(Merkle.NothingToOpen.selector, leaves);
        (bool done, bytes memory result) = address(this).staticcall(abi.encodeCall(this.childCount, (leaves)));
        assert(!done && _equal(result, refusal));
        (done, result) = address(this).staticcall(abi.encodeCall(this.child, (leaves, index)));
        assert(!done && _equal(result, refusal));
    }
}
