// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

/// @title The integer square root that `Float32.sqrt` rounds.
library IntegerRoot {
    /// @dev Floor of the square root of a radicand in [2**75, 2**77), by Newton's method from 2**39, which
    /// is above every root. The relative error is at most 1.83, then 0.6, 0.11, 5.5e-3, 1.5e-5, 1.2e-10
    /// and 6.7e-21 after six steps, always from above: far below one unit, but a floor may round up.
    function floor(uint256 radicand) internal pure returns (uint256 root) {
        unchecked {
            root = (1 << 38) + (radicand >> 40); // the first step, from 2**39
            root = (root + radicand / root) >> 1;
            root = (root + radicand / root) >> 1;
            root = (root + radicand / root) >> 1;
            root = (root + radicand / root) >> 1;
            root = (root + radicand / root) >> 1;
            if (root * root > radicand) root -= 1;
        }
    }
}
