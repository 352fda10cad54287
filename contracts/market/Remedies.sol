// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {IDisputeGame} from "../interfaces/IDisputeGame.sol";
import {IERC20} from "../interfaces/IERC20.sol";
import {IProgramJudge} from "../interfaces/IReferee.sol";
import {DataDemands} from "./DataDemands.sol";
import {MarketBase} from "./MarketBase.sol";
import {SeatState, Status, Task, TaskSpec} from "./MarketTypes.sol";
import {Runs} from "./Runs.sol";

/// @title What is due when something went wrong: disputes, demands, verdicts, defaults, redraws
/// @notice A second piece of the market's code, which does not fit into one contract: `Market` runs it
/// on its own storage. An honest task never comes here. Called directly it acts on empty storage.
contract Remedies is DataDemands, Runs {
    uint256 internal constant COMPENSATION_SHARE = 20; // per cent of the stake, to the submitter

    constructor(IDisputeGame game, IERC20 token, uint256 verifierStake) MarketBase(game, token, verifierStake) {}

    /// @notice Draws again if too few verifiers sealed, too few attested, or too many could not get the
    /// bytes: replacements for the same runs if somebody has sealed and the others only did not come, else
    /// anew and larger. After MAX_ROUNDS draws the task expires unpaid. Also starts the second audit that
    /// terms may have, where somebody objected and then convicted nobody.
    function redraw(uint256 id, TaskSpec calldata spec) external {
        Task storage task = _tasks[id];
        if (task.status == Status.Sealing) {
            _taskOf(id, spec);
            if (!_sealingOver(id, task)) revert TooEarly(id, task.deadline);
            uint256 sealedSeats = _countSeats(id, task, SeatState.Sealed);
            if (sealedSeats >= QUORUM) revert WrongStatus(id, task.status);
            _slashIdle(id, task, false);
            // INVARIANT: a solver does not choose its committee by serving only some of those drawn.
            if (sealedSeats == 0 || _countSeats(id, task, SeatState.Unavailable) != 0) ++task.round;
        } else {
            _closedWindow(id, spec);
            if (!_isLacking(id, task)) {
                if (!_owesSecond(task, spec)) revert AlreadyAttested(id);
                _startSecond(id, task, spec);
                return;
            }
            // If no ends were opened, nobody could reveal, and nothing was audited.
            if (task.endsHash != 0) {
                _slashIdle(id, task, true);
                _closeRuns(id, task);
            }
            ++task.round;
        }
        if (task.retries + 1 >= MAX_ROUNDS) {
            // INVARIANT: no solver escapes a dispute by an audit that fails.
            _requireNothingOpen(id, task);
            _expire(id, task, spec, "no attestation");
            return;
        }
        ++task.retries;
        _awaitDraw(id, task, block.timestamp + spec.auditWindow);
    }

    /// @notice Convicts a solver that let a deadline of its own pass. Its stake is shared out at once if
    /// nothing is open, else by `punish`.
    function defaulted(uint256 id, TaskSpec calldata spec) external {
        Task storage task = _taskOf(id, spec);
        uint256 deadline = task.deadline;
        Status status = task.status;
        if (status == Status.Sealing) {
            // The solver has its own window after the verifiers' to open the ends.
            deadline += spec.auditWindow;
            if (_countSeats(id, task, SeatState.Sealed) < QUORUM) revert NoDefault(id);
        } else if (status == Status.Committed) {
            // Whoever calls can draw instead, as long as the chain knows the block's hash, or it was kept.
            if (block.number <= task.drawBlock + HASH_BLOCKS || drawSeeds[id] != 0) revert NoDefault(id);
        } else if (status != Status.Training && status != Status.Starting) {
            revert WrongStatus(id, status);
        }
        _requireOver(id, deadline);
        if (status == Status.Sealing) _slashIdle(id, task, false);
        _convict(task);
        // The submitter may have caused a default in training itself.
        if (task.open == 0) _punish(id, task, spec, status != Status.Training);
    }

    /// @notice Shares out the stake of a convicted solver once nothing is open any more, and drawn verifiers
    /// have had their time.
    function punish(uint256 id, TaskSpec calldata spec) external {
        Task storage task = _taskIn(id, spec, Status.Convicted);
        _requireNothingOpen(id, task);
        // INVARIANT: nobody is rewarded before all who come first have had their time.
        _requireOver(id, _priorityEnd(task, spec));
        _punish(id, task, spec, true);
    }

    /// @notice Ends a task whose program is none: a node breaks the rules (`IProgramJudge.isFaulty`). Nobody is
    /// slashed, and an ask that won the task may win another. Honest parties refuse such a program before they
    /// stake anything.
    function voidProgram(
        uint256 id,
        TaskSpec calldata spec,
        uint32 index,
        bytes calldata node,
        bytes32[] calldata proof
    ) external {
        Task storage task = _taskOf(id, spec);
        Status status = task.status;
        if (status >= Status.Convicted) revert WrongStatus(id, status);
        _checkNode(id, spec, index, node, proof);
        if (!_isFaulty(spec, index, node)) revert NoFault(id, index);
        if (status == Status.Bidding) task.deadline = 0;
        if (task.byAsk) _returnAsk(task.solver);
        _expire(id, task, spec, "program fault");
    }

    function _isFaulty(TaskSpec calldata spec, uint32 index, bytes calldata node) private view returns (bool) {
        (bool done, bytes memory result) = address(_referee()).staticcall(
            abi.encodeCall(IProgramJudge.isFaulty, (node, index, spec.nNodes, spec.nState, spec.nConst, spec.nData))
        );
        // INVARIANT: a call that runs out of gas proves nothing. It returns no data; an error of the
        // decoder does.
        return done ? abi.decode(result, (bool)) : result.length >= 4;
    }

    function _punish(uint256 id, Task storage task, TaskSpec calldata spec, bool compensated) private {
        uint256 stake = spec.solverStake;
        Claim memory claim = _claims[id];
        bool claimed = claim.challenger != address(0);
        uint256 reward = claimed ? stake * CHALLENGER_SHARE / 100 : 0;
        uint256 compensation = compensated ? stake * COMPENSATION_SHARE / 100 : 0;
        uint256 paid = task.paid + _closeSeats(id, task, spec.verifierFee, claimed);
        task.status = Status.Slashed;
        delete _claims[id];
        _credit(claim.challenger, reward, "conviction");
        _credit(spec.submitter, escrowOf(spec) - paid, "refund");
        _credit(spec.submitter, compensation, "compensation");
        bytes32 reason = claimed ? bytes32("convicted") : bytes32("default");
        _burn(stake - reward - compensation + task.forfeited, reason);
        task.forfeited = 0;
        emit SolverSlashed(id, task.solver, stake, reason);
        emit TaskEnded(id, Status.Slashed, reason);
    }
}
