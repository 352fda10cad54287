// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {IArbiter} from "./interfaces/IArbiter.sol";
import {IDisputeGame} from "./interfaces/IDisputeGame.sol";
import {IERC20} from "./interfaces/IERC20.sol";
import {Audit} from "./market/Audit.sol";
import {Claims} from "./market/Claims.sol";
import {MarketBase} from "./market/MarketBase.sol";
import {Opening, Run, Seat, Status, Task, TaskSpec} from "./market/MarketTypes.sol";
import {Registry} from "./market/Registry.sol";
import {Remedies} from "./market/Remedies.sol";
import {TaskBook} from "./market/TaskBook.sol";

/// @title The market: tasks, their audit, and who gets the money
/// @notice One contract in three pieces of code, because one may not be larger than 24 KiB (EIP-170):
/// what an honest task needs is here; `Remedies` and `Registry` run on this contract's storage.
contract Market is Audit, IArbiter {
    /// The pieces of code were deployed for another market.
    error ForeignCode(address code);

    /// @notice Code of what is due when something went wrong.
    address public immutable REMEDIES;
    /// @notice Code of joining, leaving and asking.
    address public immutable REGISTRY;

    constructor(
        IDisputeGame game,
        IERC20 token,
        uint256 verifierStake,
        Remedies remedies,
        Registry registry,
        uint32 minWindow
    ) MarketBase(game, token, verifierStake) TaskBook(minWindow) {
        _requireOwn(remedies);
        _requireOwn(registry);
        REMEDIES = address(remedies);
        REGISTRY = address(registry);
    }

    /// @notice Pays for a progress window in which nobody convicted the solver: its share of the price,
    /// and those who attested. After the last one the task ends.
    function settle(uint256 id, TaskSpec calldata spec) external {
        Task storage task = _closedWindow(id, spec);
        // INVARIANT: no settlement without attestations of every drawn run, nor by an objection that came to
        // nothing instead of the second audit.
        if (_owesSecond(task, spec) || _isLacking(id, task)) revert NotAttested(id);
        _slashIdle(id, task, true);
        uint256 segments = segmentCount(spec);
        (uint256 before, uint256 done, uint256 price) = (task.settled, task.logSize - 1, task.price);
        // INVARIANT: the shares of all progress windows add up to the price.
        uint256 share = price * done / segments - price * before / segments;
        uint256 paid = task.paid + share + _closeSeats(id, task, spec.verifierFee, false);
        address solver = task.solver;
        _credit(solver, share, "trained");
        if (done == segments) {
            _credit(solver, spec.solverStake, "stake");
            _credit(solver, task.forfeited, "lost bonds");
            _credit(spec.submitter, escrowOf(spec) - paid, "unspent");
            if (task.forfeited != 0) task.forfeited = 0;
            task.status = Status.Settled;
            ++recordOf[solver].settled;
            emit TaskEnded(id, Status.Settled, "settled");
        } else {
            task.paid = uint96(paid);
            task.settled = uint24(done);
            (task.seats, task.runs, task.firstRun) = (0, 0, 0);
            (task.retries, task.agreed, task.endsHash) = (0, 0, 0);
            _startTraining(id, task, block.timestamp + spec.trainWindow);
        }
    }

    /// @notice The task's state.
    function getTask(uint256 id) external view returns (Task memory) {
        return _tasks[id];
    }

    /// @notice The runs drawn in the current progress window, the latest round's last.
    function getRuns(uint256 id) external view returns (Run[] memory runs) {
        runs = new Run[](_tasks[id].runs);
        for (uint256 i = 0; i < runs.length; ++i) runs[i] = _runAt(id, i);
    }

    /// @notice The verifiers drawn in the current progress window, the latest round's last.
    function getSeats(uint256 id) external view returns (Seat[] memory seats) {
        seats = new Seat[](_tasks[id].seats);
        for (uint256 i = 0; i < seats.length; ++i) seats[i] = _seats[id][i];
    }

    /// @notice See `Registry`.
    function deposit() external payable {
        _run(REGISTRY);
    }

    /// @notice See `Registry`.
    function withdraw() external {
        _run(REGISTRY);
    }

    /// @notice See `Registry`.
    function burn() external {
        _run(REGISTRY);
    }

    /// @notice See `Registry`.
    function depositToken(uint256) external {
        _run(REGISTRY);
    }

    /// @notice See `Auction`.
    function bid(uint256, TaskSpec calldata, bytes32) external {
        _run(REGISTRY);
    }

    /// @notice See `Auction`.
    function revealBid(uint256, TaskSpec calldata, uint256, bytes32) external {
        _run(REGISTRY);
    }

    /// @notice See `Auction`.
    function forfeitBid(uint256, TaskSpec calldata, address) external {
        _run(REGISTRY);
    }

    /// @notice See `Auction`.
    function assign(uint256, TaskSpec calldata) external {
        _run(REGISTRY);
    }

    /// @notice See `Claims`.
    function sealChallenge(uint256, TaskSpec calldata, bytes32, bool) external {
        _run(REMEDIES);
    }

    /// @notice See `Claims`.
    function challenge(uint256, TaskSpec calldata, Claims.Target calldata, bytes32) external returns (uint256) {
        _run(REMEDIES);
    }

    /// @notice See `Claims`.
    function dropChallenge(uint256, TaskSpec calldata, address) external {
        _run(REMEDIES);
    }

    /// @inheritdoc IArbiter
    function onVerdict(uint256, bool) external {
        _run(REMEDIES);
    }

    /// @notice See `DataDemands`.
    function demand(uint256, TaskSpec calldata, uint256, uint32, uint32, uint32, bytes calldata, bytes32[] calldata)
        external
        returns (uint256)
    {
        _run(REMEDIES);
    }

    /// @notice See `DataDemands`.
    function answer(
        uint256,
        TaskSpec calldata,
        Opening calldata,
        bytes32,
        bytes32[] calldata,
        bytes calldata,
        bytes32[] calldata
    ) external {
        _run(REMEDIES);
    }

    /// @notice See `DataDemands`.
    function unanswered(uint256, TaskSpec calldata) external {
        _run(REMEDIES);
    }

    /// @notice See `Remedies`.
    function redraw(uint256, TaskSpec calldata) external {
        _run(REMEDIES);
    }

    /// @notice See `Remedies`.
    function defaulted(uint256, TaskSpec calldata) external {
        _run(REMEDIES);
    }

    /// @notice See `Remedies`.
    function punish(uint256, TaskSpec calldata) external {
        _run(REMEDIES);
    }

    /// @notice See `Remedies`.
    function voidProgram(uint256, TaskSpec calldata, uint32, bytes calldata, bytes32[] calldata) external {
        _run(REMEDIES);
    }

    /// @notice See `Registry`.
    function registerVerifier(uint32) external {
        _run(REGISTRY);
    }

    /// @notice See `Registry`.
    function leaveVerifiers() external {
        _run(REGISTRY);
    }

    /// @notice See `Registry`.
    function removeVerifier() external {
        _run(REGISTRY);
    }

    /// @notice See `Registry`.
    function setAsk(uint64, uint16, uint24, uint48) external {
        _run(REGISTRY);
    }

    /// @notice See `Registry`.
    function enterAsk(uint256, TaskSpec calldata, address) external {
        _run(REGISTRY);
    }

    /// @notice See `Registry`.
    function decline(uint256, TaskSpec calldata) external {
        _run(REGISTRY);
    }

    /// @notice See `Registry`.
    function accept(uint256, TaskSpec calldata) external {
        _run(REGISTRY);
    }

    /// @notice See `Registry`.
    function cancel(uint256, TaskSpec calldata) external {
        _run(REGISTRY);
    }

    function _requireOwn(MarketBase code) private view {
        if (code.GAME() != GAME || code.TOKEN() != TOKEN || code.VERIFIER_STAKE() != VERIFIER_STAKE) {
            revert ForeignCode(address(code));
        }
    }

    /// @dev Runs the function of the same name in another piece of code and ends the call as it ends.
    function _run(address code) private {
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
