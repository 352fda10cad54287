// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

/// @title The shape of a FOLD (specification, "Folds"; `protocol/fold.py` is the same in Python).
/// @notice A lane's terms are the items of level 0. Each level is cut into chains of 256 items, whose results
/// are the items of the next level, until one chain is left: the top.
library FoldShape {
    /// Items of a chain; only the last of a level may be shorter.
    uint256 internal constant CHAIN = 256;

    /// @return how many of the fold's terms fall to a lane that has some.
    function laneTerms(uint256 terms, uint256 lanes, uint256 lane) internal pure returns (uint256) {
        return (terms - lane + lanes - 1) / lanes;
    }

    /// @return level the one whose items are one chain: each level above the terms has the results of blocks.
    function topLevel(uint256 items) internal pure returns (uint8 level) {
        while (items > CHAIN) {
            items = (items + CHAIN - 1) / CHAIN;
            level++;
        }
    }

    /// @return how many items chain `chain` of a level has, in a lane of `items` terms.
    function chainLength(uint256 items, uint256 level, uint256 chain) internal pure returns (uint256) {
        for (; level > 0; level--) {
            items = (items + CHAIN - 1) / CHAIN;
        }
        uint256 rest = items - CHAIN * chain;
        return rest < CHAIN ? rest : CHAIN;
    }
}
