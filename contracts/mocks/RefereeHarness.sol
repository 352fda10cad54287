// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {Context, IReferee, Proof, Question} from "../interfaces/IReferee.sol";

/// @title Stands between a test and the referee as the game does, to measure what a verdict costs
contract RefereeHarness {
    IReferee private immutable REFEREE;

    constructor(IReferee referee) {
        REFEREE = referee;
    }

    /// @notice Pass a proof on to the referee, as `DisputeGame.prove` does after its own checks.
    function prove(Context calldata ctx, Question calldata q, Proof calldata proof) external view returns (bool) {
        return REFEREE.convicts(ctx, q, proof);
    }
}
