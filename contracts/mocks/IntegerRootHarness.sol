// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {IntegerRoot} from "../lib/IntegerRoot.sol";

/// @title Test access to the integer square root.
contract IntegerRootHarness {
    function floor(uint256 radicand) external pure returns (uint256) {
        return IntegerRoot.floor(radicand);
    }
}
