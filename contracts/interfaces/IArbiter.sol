// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

/// @notice Whoever opened a dispute and acts on its verdict.
interface IArbiter {
    /// @notice Called once per dispute by the game. `convicted` is true if the defendant lost.
    function onVerdict(uint256 disputeId, bool convicted) external;
}
