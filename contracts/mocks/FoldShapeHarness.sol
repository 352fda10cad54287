// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {FoldShape} from "../lib/FoldShape.sol";

/// @title Test access to the shapes of folds.
contract FoldShapeHarness {
    function laneTerms(uint256 terms, uint256 lanes, uint256 lane) external pure returns (uint256) {
        return FoldShape.laneTerms(terms, lanes, lane);
    }

    function topLevel(uint256 items) external pure returns (uint8) {
        return FoldShape.topLevel(items);
    }

    function chainLength(uint256 items, uint256 level, uint256 chain) external pure returns (uint256) {
        return FoldShape.chainLength(items, level, chain);
    }
}
