// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {IArbiter} from "./interfaces/IArbiter.sol";
import {IDisputeGame} from "./interfaces/IDisputeGame.sol";
import {Audit} from "./market/Audit.sol";
import {MarketBase} from "./market/MarketBase.sol";
import {Run, Seat, SeatState, Status, Task, TaskSpec} from "./market/MarketTypes.sol";
import {Remedies} from "./market/Remedies.sol";

/// @title The market: tasks, their audit, and who gets the money
/// @notice One contract in two pieces of code, because one may not be larger than 24 KiB (EIP-170):
/// what an honest task needs is here, the rest in `Remedies`, which runs on this contract's storage.
contract Market is Audit, IArbiter {
    /// @notice Code of the calls that an honest task does not need.
    address public immutable REMEDIES;

    constructor(IDisputeGame game, uint256 verifierStake) MarketBase(game, verifierStake) {
        REMEDIES = address(new Remedies(game, verifierStake));
    }

    /// @notice Adds the sent wei to the sender's free balance.
    function deposit() external payable {
        balanceOf[msg.sender] += msg.value;
        emit Deposited(msg.sender, msg.value);
    }

    /// @notice Pays the sender its whole free balance.
    function withdraw() external {
        uint256 amount = balanceOf[msg.sender];
        // INVARIANT: only what is free leaves, and it is zero before the call is made.
        if (amount == 0) revert NothingToWithdraw(msg.sender);
        balanceOf[msg.sender] = 0;
        (bool sent,) = msg.sender.call{value: amount}("");
        if (!sent) revert TransferFailed(msg.sender, amount);
        emit Withdrawn(msg.sender, amount);
    }

    /// @notice Pays everybody after a challenge window in which nobody convicted the solver.
    function settle(uint256 id, TaskSpec calldata spec) external {
        Task storage task = _closedWindow(id, spec);
        // INVARIANT: no settlement without an attestation of every drawn run.
        if (_isLacking(id)) revert NotAttested(id);
        task.status = Status.Settled;
        uint256 escrow = task.escrow - _closeRound(id, spec.verifierFee);
        uint256 forfeited = task.forfeited;
        task.escrow = 0;
        task.forfeited = 0;
        uint256 price = task.price;
        _credit(task.solver, price, "trained");
        _credit(task.solver, spec.solverStake, "stake");
        _credit(task.solver, forfeited, "lost bonds");
        _credit(task.submitter, escrow - price, "unspent");
        emit TaskEnded(id, Status.Settled, "settled");
    }

    /// @notice The task's state.
    function getTask(uint256 id) external view returns (Task memory) {
        return _tasks[id];
    }

    /// @notice The runs drawn in the current round of the audit.
    function getRuns(uint256 id) external view returns (Run[] memory) {
        return _runs[id];
    }

    /// @notice The verifiers drawn in the current round of the audit.
    function getSeats(uint256 id) external view returns (Seat[] memory) {
        return _seats[id];
    }

    /// @notice Number of stakes in the list of verifiers.
    function verifierCount() external view returns (uint256) {
        return verifiers.length - _vacant.length;
    }

    /// @notice See `Remedies`.
    function challenge(uint256, TaskSpec calldata, uint256) external returns (uint256) {
        _remedy();
    }

    /// @inheritdoc IArbiter
    function onVerdict(uint256, bool) external {
        _remedy();
    }

    /// @notice See `Remedies`.
    function redraw(uint256, TaskSpec calldata) external {
        _remedy();
    }

    /// @notice See `Remedies`.
    function defaulted(uint256, TaskSpec calldata) external {
        _remedy();
    }

    /// @notice See `VerifierRegistry`.
    function registerVerifier(uint32) external {
        _remedy();
    }

    /// @notice See `VerifierRegistry`.
    function leaveVerifiers() external {
        _remedy();
    }

    /// @notice See `VerifierRegistry`.
    function removeVerifier() external {
        _remedy();
    }

    /// @dev Runs the function of the same name in `Remedies` and ends the call as it ends.
    function _remedy() private {
        address code = REMEDIES;
        assembly ("memory-safe") {
            let data := mload(0x40)
            calldatacopy(data, 0, calldatasize())
            let done := delegatecall(gas(), code, data, calldatasize(), 0, 0)
            returndatacopy(data, 0, returndatasize())
            if iszero(done) { revert(data, returndatasize()) }
            return(data, returndatasize())
        }
    }
}
