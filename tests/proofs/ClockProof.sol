// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {Clock} from "../../contracts/lib/Clock.sol";
import {Proof} from "./Proof.sol";

/// @title Clocks, for every time, remainder and time of the last move.
contract ClockProof is Proof {
    function charge(uint32 remaining, uint40 movedAt) external view returns (uint32) {
        return Clock.charge(remaining, movedAt);
    }

    function requireExpired(uint32 remaining, uint40 movedAt) external view {
        Clock.requireExpired(remaining, movedAt);
    }

    /// Either the party to move can move or the other can win by time, never both, never neither.
    function check_a_move_is_in_time_or_the_clock_is_expired(uint256 time, uint32 remaining, uint40 movedAt)
        external
    {
        VM.assume(time >= movedAt);
        VM.warp(time);
        (bool moved,) = address(this).staticcall(abi.encodeCall(this.charge, (remaining, movedAt)));
        (bool expired,) = address(this).staticcall(abi.encodeCall(this.requireExpired, (remaining, movedAt)));
        assert(moved != expired);
        assert(moved == (time - movedAt <= remaining));
    }

    /// A charged clock loses exactly the seconds that it ran, so it never gains any and never wraps.
    function check_a_clock_loses_what_it_ran(uint256 time, uint32 remaining, uint40 movedAt) external {
        VM.assume(time >= movedAt);
        VM.warp(time);
        uint256 used = time - movedAt;
        (bool moved, bytes memory result) =
            address(this).staticcall(abi.encodeCall(this.charge, (remaining, movedAt)));
        if (moved) {
            uint256 left = abi.decode(result, (uint256));
            assert(left <= remaining);
            assert(left + used == remaining);
        } else {
            assert(_equal(result, abi.encodeWithSelector(Clock.ClockExpired.selector, used, remaining)));
        }
    }

    /// A running clock is refused with what it ran and has.
    function check_a_running_clock_is_refused(uint256 time, uint32 remaining, uint40 movedAt) external {
        VM.assume(time >= movedAt);
        VM.warp(time);
        uint256 used = time - movedAt;
        (bool expired, bytes memory result) =
            address(this).staticcall(abi.encodeCall(this.requireExpired, (remaining, movedAt)));
        if (expired) assert(used > remaining);
        else assert(_equal(result, abi.encodeWithSelector(Clock.ClockRunning.selector, used, remaining)));
    }

    /// Before the last move neither function succeeds.
    function check_a_move_from_the_future_counts_for_nothing(uint256 time, uint32 remaining, uint40 movedAt)
        external
    {
        VM.assume(time < movedAt);
        VM.warp(time);
        (bool moved,) = address(this).staticcall(abi.encodeCall(this.charge, (remaining, movedAt)));
        (bool expired,) = address(this).staticcall(abi.encodeCall(this.requireExpired, (remaining, movedAt)));
        assert(!moved && !expired);
    }
}
