// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {DisputeGame} from "../DisputeGame.sol";
import {History, State} from "../game/GameTypes.sol";
import {IArbiter} from "../interfaces/IArbiter.sol";
import {Context} from "../interfaces/IReferee.sol";

/// @title An arbiter for tests: opens disputes, counts verdicts, and can refuse them or call back.
contract VerdictRecorder is IArbiter {
    DisputeGame public immutable GAME;
    mapping(uint256 id => uint256) public verdicts; // how often a dispute was decided
    mapping(uint256 id => bool) public convicted;
    bool public refuses;
    /// Whether the game accepted a call from inside `onVerdict`.
    bool public reentered;

    error Refused(uint256 id);
    error NotGame(address sender);

    constructor(DisputeGame game) {
        GAME = game;
    }

    function setRefuses(bool refuses_) external {
        refuses = refuses_;
    }

    function create(
        Context calldata context,
        address defendant,
        address challenger,
        uint32 defendantClock,
        uint32 challengerClock
    ) external returns (uint256) {
        return GAME.create(context, defendant, challenger, defendantClock, challengerClock);
    }

    function onVerdict(uint256 id, bool convicted_) external {
        if (msg.sender != address(GAME)) revert NotGame(msg.sender);
        if (refuses) revert Refused(id);
        verdicts[id]++;
        convicted[id] = convicted_;
        State memory state;
        History memory history;
        (bool accepted,) = address(GAME).call(abi.encodeCall(GAME.timeout, (id, state, bytes32(0), history)));
        reentered = reentered || accepted;
    }
}
