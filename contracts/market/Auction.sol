// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {MarketBase} from "./MarketBase.sol";
import {Status, Task, TaskSpec} from "./MarketTypes.sol";

/// @title Sealed bids, and the second price
/// @notice A bid's score is its price and what the bidder's risk of being late costs the submitter; the
/// lowest score wins, and is paid what would have made it second. So the best bid is the true one.
abstract contract Auction is MarketBase {
    /// @notice Seals a bid, and locks a bond until it is revealed. A bid certifies that the bidder holds and
    /// has checked program, state and data.
    function bid(uint256 id, TaskSpec calldata spec, bytes32 digest) external {
        Task storage task = _taskIn(id, spec, Status.Bidding);
        if (spec.solver != address(0)) revert NotAuctioned(id, spec.solver);
        _requireEarly(id, task.deadline);
        if (msg.sender == spec.submitter) revert SubmitterMayNotBid(id);
        _checkEligible(msg.sender);
        if (digest == 0) revert EmptySeal();
        if (sealedBids[id][msg.sender] != 0) revert AlreadyBid(id, msg.sender);
        _lock(msg.sender, spec.bond);
        sealedBids[id][msg.sender] = digest;
        emit BidSealed(id, msg.sender);
    }

    /// @notice Reveals a bid after the time for sealing: the bond is free again, and if the bid leads, the
    /// stake is locked.
    function revealBid(uint256 id, TaskSpec calldata spec, uint256 price, bytes32 nonce) external {
        Task storage task = _taskIn(id, spec, Status.Bidding);
        _requireOver(id, task.deadline);
        _requireEarly(id, _revealEnd(task, spec));
        _checkEligible(msg.sender);
        bytes32 digest = sealedBids[id][msg.sender];
        if (digest != bidDigest(id, msg.sender, price, nonce)) revert WrongSeal(id, msg.sender);
        delete sealedBids[id][msg.sender];
        balanceOf[msg.sender] += spec.bond;
        _rankBid(id, task, spec, msg.sender, price, false);
    }

    /// @notice Closes a sealed bid that can be revealed no more: its bond burns, or goes back if the task
    /// was cancelled.
    function forfeitBid(uint256 id, TaskSpec calldata spec, address bidder) external {
        Task storage task = _taskOf(id, spec);
        if (sealedBids[id][bidder] == 0) revert WrongSeal(id, bidder);
        bool cancelled = task.deadline == 0;
        if (!cancelled && task.status == Status.Bidding) _requireOver(id, _revealEnd(task, spec));
        delete sealedBids[id][bidder];
        if (cancelled) _credit(bidder, spec.bond, "bond");
        else _burn(spec.bond, "bid");
        emit BidForfeited(id, bidder);
    }

    /// @notice Ends the bidding, unless the solver's first commitment does: the leading bidder trains, or
    /// the task expires without one.
    function assign(uint256 id, TaskSpec calldata spec) external {
        Task storage task = _taskIn(id, spec, Status.Bidding);
        if (task.solver != address(0)) {
            _assign(id, task, spec);
        } else {
            _requireOver(id, _revealEnd(task, spec));
            _expire(id, task, spec, "no bid");
        }
    }

    /// @dev INVARIANT: whoever leads has its stake locked, and is paid at least what it asked for (of an ask
    /// and a sealed bid, the lower).
    function _rankBid(
        uint256 id,
        Task storage task,
        TaskSpec calldata spec,
        address solver,
        uint256 price,
        bool byAsk
    ) internal {
        if (price > spec.budget) revert PriceAboveBudget(id, price, spec.budget);
        Record storage record = recordOf[solver];
        // The chance of a default by the rule of succession: an unknown solver's is one half.
        uint256 risk = uint256(spec.lateCost) * (record.defaulted + 1)
            / (uint256(record.settled) + record.defaulted + 2);
        uint256 score = price + risk;
        uint256 lead = uint256(task.logRoot);
        address best = task.solver;
        if (best == solver) {
            // Its ask leads already: the lower of its two offers counts, and neither is the other's second.
            if (score < lead >> 128) {
                task.logRoot = bytes32(score << 128 | risk);
                // INVARIANT: what leads by a sealed bid is no ask, and cannot be declined.
                task.byAsk = false;
                _returnAsk(solver);
            }
        } else if (best == address(0) || score < lead >> 128) {
            uint256 second = best == address(0) ? spec.budget : (lead >> 128) - risk;
            if (best != address(0)) {
                _credit(best, spec.solverStake, "outbid");
                if (task.byAsk) _returnAsk(best);
            }
            _lock(solver, spec.solverStake);
            task.solver = solver;
            task.price = uint96(second < spec.budget ? second : spec.budget);
            if (task.byAsk != byAsk) task.byAsk = byAsk;
            task.logRoot = bytes32(score << 128 | risk);
        } else {
            uint256 second = score - uint128(lead);
            if (second < task.price) task.price = uint96(second);
        }
        emit BidRevealed(id, solver, price, score);
    }
}
