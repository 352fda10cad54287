// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {Context} from "../interfaces/IReferee.sol";
import {Status} from "./MarketTypes.sol";

/// @title What the pieces of the market's code say
/// @notice In one place, so that the ABI of the market has all of it, whichever piece says it.
abstract contract MarketEvents {
    error WrongSpec(uint256 id, bytes32 expected, bytes32 given);
    error WrongStatus(uint256 id, Status status);
    error TooEarly(uint256 id, uint256 deadline);
    error TooLate(uint256 id, uint256 deadline);
    error StillOpen(uint256 id, uint256 count);
    error BadProof(uint256 id, bytes32 what);
    error NotSolver(uint256 id, address sender);
    error NotSubmitter(uint256 id, address sender);
    error SubmitterMayNotBid(uint256 id);
    error RecentlySlashed(address solver, uint256 until);
    error EmptySeal();
    error WrongSeal(uint256 id, address sender);
    error NotDrawn(uint256 id, address sender);
    error NotAttested(uint256 id);
    error NotAuctioned(uint256 id, address solver);
    error AlreadyBid(uint256 id, address sender);
    error PriceAboveBudget(uint256 id, uint256 price, uint256 budget);
    error NotGame(address sender);
    error UnknownDispute(uint256 disputeId);
    error UnknownRun(uint256 id, uint256 first, uint256 count);
    error TooManyDisputes(uint256 id);
    error AlreadyChallenged(uint256 id, address sender);
    error NotAttestor(uint256 id, uint256 seat);
    error TooManyDemands(uint256 id);
    error UnknownDemand(uint256 demandId);
    error NothingToDemand(uint256 id, uint256 leaf, uint256 tensor, uint256 chunk);
    error AlreadyAttested(uint256 id);
    error NoDefault(uint256 id);
    error NoFault(uint256 id, uint256 node);
    error NoAsk(address solver);
    error AlreadyLeads(uint256 id, address solver);
    error MayNotDecline(uint256 id);

    event Assigned(uint256 indexed id, address indexed solver, uint256 price, uint256 deadline);
    event BidRevealed(uint256 indexed id, address indexed solver, uint256 price, uint256 score);
    event LogCompleted(uint256 indexed id, bytes32 root, uint256 drawBlock);
    event WindowOpened(uint256 indexed id, uint256 deadline);
    event SolverSlashed(uint256 indexed id, address indexed solver, uint256 amount, bytes32 reason);
    event VerifierSlashed(uint256 indexed id, address indexed verifier, uint256 amount);
    event TaskEnded(uint256 indexed id, Status status, bytes32 reason);
    event BidSealed(uint256 indexed id, address indexed solver);
    event BidForfeited(uint256 indexed id, address indexed solver);
    event ChallengeSealed(uint256 indexed id, address indexed challenger, uint256 bond);
    event ChallengeDropped(uint256 indexed id, address indexed challenger);
    event DisputeOpened(
        uint256 indexed id,
        uint256 indexed disputeId,
        address indexed challenger,
        address defendant,
        uint32 first,
        uint32 count,
        Context context
    );
    event DisputeEnded(uint256 indexed id, uint256 indexed disputeId, bool convicted);
    event Demanded(
        uint256 indexed id,
        uint256 indexed demandId,
        address indexed asker,
        uint32 leaf,
        uint32 tensor,
        uint32 chunk,
        uint256 deadline
    );
    event Answered(
        uint256 indexed id, uint256 indexed demandId, bytes32 salt, bytes32 stateRoot, bytes32 tensorRoot, bytes chunk
    );
    event Unanswered(uint256 indexed id, uint256 indexed demandId);
    event AskSet(address indexed solver, uint256 price, uint256 capacity, uint256 memoryMiB, uint256 maxStake);
    event AskEntered(uint256 indexed id, address indexed solver);
    event TaskCancelled(uint256 indexed id);
    event Declined(uint256 indexed id, address indexed solver);
}
