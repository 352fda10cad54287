// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {IArbiter} from "../interfaces/IArbiter.sol";
import {IDisputeGame, IRefereed} from "../interfaces/IDisputeGame.sol";
import {Context, IReferee} from "../interfaces/IReferee.sol";

/// @title A game without moves, for tests of the market: whoever calls `decide` gives the verdict.
/// @notice Refuses what the real game refuses, so that a dispute that could not be opened there
/// cannot be opened here.
contract MockGame is IDisputeGame, IRefereed {
    struct Dispute {
        address arbiter;
        address defendant;
        address challenger;
        uint32 defendantClock;
        uint32 challengerClock;
        Context context;
    }

    error InvalidContext(Context context);
    error InvalidParties(address defendant, address challenger);
    error InvalidClocks(uint32 defendantClock, uint32 challengerClock);

    IReferee public immutable REFEREE;
    uint256 public disputeCount;
    mapping(uint256 id => Dispute) private _disputes;

    constructor(IReferee referee) {
        REFEREE = referee;
    }

    function create(
        Context calldata context,
        address defendant,
        address challenger,
        uint32 defendantClock,
        uint32 challengerClock
    ) external returns (uint256 id) {
        if (
            context.startRoot == 0 || context.endRoot == 0 || context.steps == 0 || context.nState == 0
                || context.nNodes <= context.nState
        ) revert InvalidContext(context);
        if (defendant == challenger || defendant == address(0) || challenger == address(0)) {
            revert InvalidParties(defendant, challenger);
        }
        if (defendantClock == 0 || challengerClock == 0) revert InvalidClocks(defendantClock, challengerClock);
        id = ++disputeCount;
        _disputes[id] = Dispute(msg.sender, defendant, challenger, defendantClock, challengerClock, context);
    }

    function getDispute(uint256 id) external view returns (Dispute memory) {
        return _disputes[id];
    }

    /// @notice Gives the verdict; it may be called again, as the real game never would.
    function decide(uint256 id, bool convicted) external {
        IArbiter(_disputes[id].arbiter).onVerdict(id, convicted);
    }
}
