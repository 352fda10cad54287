// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

/// @title A chess clock: only the party to move is charged, by the seconds since the last move.
/// @dev A clock never gains time, so a game lasts at most the sum of both clocks.
library Clock {
    /// The party to move took `elapsed` seconds and had only `remaining`.
    error ClockExpired(uint256 elapsed, uint256 remaining);
    /// The party to move took `elapsed` seconds so far and still has `remaining - elapsed`.
    error ClockRunning(uint256 elapsed, uint256 remaining);

    /// @return seconds since `movedAt`, a past block's time.
    function elapsed(uint40 movedAt) internal view returns (uint256) {
        return block.timestamp - movedAt;
    }

    /// @notice Charge a clock that has run since `movedAt`. Using it up to the last second is in time.
    /// @return what is left of it.
    function charge(uint32 remaining, uint40 movedAt) internal view returns (uint32) {
        uint256 used = elapsed(movedAt);
        // INVARIANT: a late move never counts.
        if (used > remaining) revert ClockExpired(used, remaining);
        unchecked {
            return remaining - uint32(used);
        }
    }

    /// @notice Reverts unless a clock that has run since `movedAt` is used up.
    function requireExpired(uint32 remaining, uint40 movedAt) internal view {
        uint256 used = elapsed(movedAt);
        // INVARIANT: nobody loses by time before a move would be late.
        if (used <= remaining) revert ClockRunning(used, remaining);
    }
}
