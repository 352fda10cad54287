// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {WordTree} from "../lib/WordTree.sol";

/// @title The functions of `WordTree` for tests, behind dirty memory.
contract WordTreeHarness {
    function root(bytes calldata data, uint32 before) external pure returns (bytes32 root_, bytes32 beside) {
        bytes32[] memory fresh = new bytes32[](1);
        assembly ("memory-safe") {
            // What follows the free memory pointer need not be zero.
            let free := mload(0x40)
            for { let at := free } lt(at, add(free, 4096)) { at := add(at, 32) } { mstore(at, not(0)) }
        }
        root_ = WordTree.root(data, before);
        return (root_, fresh[0]);
    }

    function show(
        bytes32 root_,
        uint256 count,
        uint256 index,
        uint32 before,
        bytes32 eight,
        bytes32[] calldata path
    ) external pure returns (bool valid, uint32 previous, uint32 word) {
        return WordTree.show(root_, count, index, before, eight, path);
    }
}
