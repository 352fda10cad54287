// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {IDisputeGame} from "../interfaces/IDisputeGame.sol";
import {IERC20} from "../interfaces/IERC20.sol";
import {Auction} from "./Auction.sol";
import {MarketBase} from "./MarketBase.sol";
import {Status, Task, TaskSpec} from "./MarketTypes.sol";
import {VerifierRegistry} from "./VerifierRegistry.sol";

/// @title Money in and out, who may be drawn, who may be entered, and the bidding
/// @notice A third piece of the market's code, like `Remedies`.
contract Registry is VerifierRegistry, Auction {
    /// @notice Part of its stake that declining costs a solver, at most: its terms are not the solver's choice.
    uint256 internal constant DECLINE_SHARE = 16;

    constructor(IDisputeGame game, IERC20 token, uint256 verifierStake) MarketBase(game, token, verifierStake) {}

    /// @notice Adds the sent wei to the sender's free balance.
    function deposit() external payable {
        if (address(TOKEN) != address(0)) revert WrongCurrency(address(TOKEN));
        balanceOf[msg.sender] += msg.value;
        emit Deposited(msg.sender, msg.value);
    }

    /// @notice Adds tokens that the sender has approved to its free balance.
    function depositToken(uint256 amount) external {
        _receiveToken(amount);
        balanceOf[msg.sender] += amount;
        emit Deposited(msg.sender, amount);
    }

    /// @notice Pays the sender its whole free balance.
    function withdraw() external {
        _withdraw(msg.sender);
    }

    /// @notice Sends what was burned to the address that nobody has the key of.
    function burn() external {
        _withdraw(BURN_ADDRESS);
    }

    /// @notice Asks `price` for each unit of work of up to `capacity` more tasks that need at most
    /// `memoryMiB` and lock at most `maxStake` times 10**9, from the free balance when they are entered.
    /// A `maxStake` of zero withdraws the ask.
    function setAsk(uint64 price, uint16 capacity, uint24 memoryMiB, uint48 maxStake) external {
        Record storage record = recordOf[msg.sender];
        (record.askPrice, record.capacity, record.memoryMiB, record.maxStake) =
            (price, capacity, memoryMiB, maxStake);
        emit AskSet(msg.sender, price, capacity, memoryMiB, maxStake);
    }

    /// @notice Enters a solver's standing ask in an auction: anybody may in the first half of the time for
    /// sealing bids, which leaves the owner time to look at the task; the owner itself in all of it.
    /// @dev INVARIANT: when the first bid is revealed it is too late to underbid it, or to lower what it is paid.
    function enterAsk(uint256 id, TaskSpec calldata spec, address solver) external {
        Task storage task = _taskIn(id, spec, Status.Bidding);
        if (spec.solver != address(0)) revert NotAuctioned(id, spec.solver);
        _requireEarly(id, task.deadline - (msg.sender == solver ? 0 : spec.bidWindow / 2));
        _checkEligible(solver);
        if (solver == spec.submitter) revert SubmitterMayNotBid(id);
        if (solver == task.solver) revert AlreadyLeads(id, solver);
        Record storage record = recordOf[solver];
        if (
            record.capacity == 0 || record.memoryMiB < spec.memoryMiB
                || uint256(record.maxStake) * 10 ** 9 < spec.solverStake
        ) revert NoAsk(solver);
        // Also an ask that will not lead must be able to.
        if (balanceOf[solver] < spec.solverStake) {
            revert InsufficientBalance(solver, spec.solverStake, balanceOf[solver]);
        }
        _rankBid(id, task, spec, solver, uint256(record.askPrice) * spec.work, true);
        if (task.solver == solver) --record.capacity;
        emit AskEntered(id, solver);
    }

    /// @notice A solver that was entered by its ask refuses the task, since it has had no chance to check
    /// program and data before: free of charge in the first three quarters of the time for sealing; if it has
    /// won, in the first half of its time and before its first commitment, at a price: a bond, or a part of the
    /// stake if that is less. The ask is withdrawn.
    /// @dev INVARIANT: who leaves for nothing leaves time to others whose asks it has outbid; who leaves when bids
    /// are revealed ends the task, since a second auction would begin with what everybody has bid.
    function decline(uint256 id, TaskSpec calldata spec) external {
        Task storage task = _taskOf(id, spec);
        Status status = task.status;
        if (status != Status.Bidding && status != Status.Training) revert WrongStatus(id, status);
        if (msg.sender != task.solver) revert NotSolver(id, msg.sender);
        if (!task.byAsk || task.logSize != 0) revert MayNotDecline(id);
        bool won = status == Status.Training;
        _requireEarly(id, task.deadline - (won ? spec.trainWindow / 2 : spec.bidWindow / 4));
        (recordOf[msg.sender].capacity, recordOf[msg.sender].maxStake) = (0, 0);
        uint256 bond = 0;
        if (won) {
            bond = spec.solverStake / DECLINE_SHARE;
            if (spec.bond < bond) bond = spec.bond;
            _burn(bond, "declined");
        }
        _credit(msg.sender, spec.solverStake - bond, "stake");
        (task.solver, task.price, task.byAsk, task.logRoot) = (address(0), 0, false, 0);
        emit Declined(id, msg.sender);
        if (won) _expire(id, task, spec, "declined");
    }

    /// @notice The solver that the terms name takes the task, for the whole budget.
    function accept(uint256 id, TaskSpec calldata spec) external {
        Task storage task = _taskIn(id, spec, Status.Bidding);
        if (msg.sender != spec.solver) revert NotSolver(id, msg.sender);
        _requireEarly(id, task.deadline);
        _checkEligible(msg.sender);
        _lock(msg.sender, spec.solverStake);
        (task.solver, task.price) = (msg.sender, spec.budget);
        _startTraining(id, task, block.timestamp + spec.trainWindow);
    }

    /// @notice The submitter takes back a task before any bid may be revealed; sealed ones get their bonds
    /// back, a leading ask its stake.
    function cancel(uint256 id, TaskSpec calldata spec) external {
        Task storage task = _taskIn(id, spec, Status.Bidding);
        if (msg.sender != spec.submitter) revert NotSubmitter(id, msg.sender);
        // INVARIANT: once bids may be revealed it is too late to shop for another price.
        _requireEarly(id, task.deadline);
        task.deadline = 0;
        emit TaskCancelled(id);
        if (task.byAsk) _returnAsk(task.solver);
        _expire(id, task, spec, "cancelled");
    }
}
