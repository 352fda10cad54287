// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {Context, IReferee} from "./IReferee.sol";

/// @notice What a market needs of the game: the rest is between the two players.
interface IDisputeGame {
    /// @notice Starts a dispute; the caller's `IArbiter.onVerdict` is called once when it ends.
    /// Clocks are in seconds.
    function create(
        Context calldata ctx,
        address defendant,
        address challenger,
        uint32 defendantClock,
        uint32 challengerClock
    ) external returns (uint256 id);
}

/// @notice The same game's arithmetic.
interface IRefereed {
    function REFEREE() external view returns (IReferee);
}
