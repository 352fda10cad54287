// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {Merkle} from "../lib/Merkle.sol";
import {MarketBase} from "./MarketBase.sol";
import {Run, Seat, Status, Task, TaskSpec} from "./MarketTypes.sol";

/// @title Tasks from posting to the complete checkpoint log
abstract contract TaskBook is MarketBase {
    error InvalidSpec(bytes32 field);
    error NotSolver(uint256 id, address sender);
    error NotSubmitter(uint256 id, address sender);
    error PriceNotBelow(uint256 id, uint256 price, uint256 best);
    error SubmitterMayNotBid(uint256 id);
    error WrongLogSize(uint256 id, uint256 size, uint256 least, uint256 most);
    error BadProof(uint256 id, bytes32 what);

    event TaskPosted(uint256 indexed id, address indexed submitter, TaskSpec spec, uint256 budget, string artifacts);
    event TaskCancelled(uint256 indexed id);
    event Bid(uint256 indexed id, address indexed solver, uint256 price);
    event Assigned(uint256 indexed id, address indexed solver, uint256 price, uint256 deadline);
    event LogAppended(uint256 indexed id, uint256 size, bytes32 root);

    uint256 internal constant MAX_COMMITTEE = 4;
    uint256 internal constant MAX_SAMPLES = 16;
    uint32 internal constant MAX_WINDOW = 90 days;

    /// @notice Segments that a spec cuts the training into.
    function segmentCount(TaskSpec calldata spec) internal pure returns (uint32) {
        return uint32((spec.steps + spec.segmentSteps - 1) / spec.segmentSteps);
    }

    /// @notice Posts a task and escrows its budget: the sent wei less the verifiers' fees is the
    /// highest price a solver may bid.
    /// @param artifacts URL of the store that serves program, state and data by root.
    function post(TaskSpec calldata spec, string calldata artifacts) external payable returns (uint256 id) {
        _checkSpec(spec);
        uint256 fees = uint256(spec.verifierFee) * spec.committee;
        if (msg.value <= fees || msg.value > type(uint96).max) revert InvalidSpec("budget");
        id = ++taskCount;
        Task storage task = _tasks[id];
        task.specHash = _hash(spec);
        task.submitter = msg.sender;
        task.escrow = uint96(msg.value);
        task.stake = uint96(spec.solverStake);
        task.price = uint96(msg.value - fees);
        task.status = Status.Bidding;
        task.deadline = uint64(block.timestamp) + spec.bidWindow;
        emit TaskPosted(id, msg.sender, spec, task.price, artifacts);
    }

    /// @notice Takes back a task that nobody has bid for.
    function cancel(uint256 id) external {
        Task storage task = _inStatus(id, Status.Bidding);
        if (msg.sender != task.submitter) revert NotSubmitter(id, msg.sender);
        if (task.solver != address(0)) revert WrongStatus(id, task.status);
        emit TaskCancelled(id);
        _expire(id, task, "cancelled");
    }

    /// @notice Offers to train for `price` wei, below the best offer so far, and locks the stake.
    /// A bid certifies that the bidder holds and has checked program, state and data.
    function bid(uint256 id, TaskSpec calldata spec, uint256 price) external {
        Task storage task = _inStatus(id, Status.Bidding);
        _checkHash(id, task, spec);
        if (block.timestamp > task.deadline) revert TooLate(id, task.deadline);
        if (msg.sender == task.submitter) revert SubmitterMayNotBid(id);
        address best = task.solver;
        // INVARIANT: the first bid may ask for the whole budget, each later one asks for less.
        if (price > task.price || (best != address(0) && price == task.price)) {
            revert PriceNotBelow(id, price, task.price);
        }
        if (best != address(0)) _credit(best, spec.solverStake, "outbid");
        _lock(msg.sender, spec.solverStake);
        task.solver = msg.sender;
        task.price = uint96(price);
        emit Bid(id, msg.sender, price);
    }

    /// @notice Ends the bidding: the best bidder trains, or the task expires without one.
    function assign(uint256 id, TaskSpec calldata spec) external {
        Task storage task = _inStatus(id, Status.Bidding);
        _checkHash(id, task, spec);
        if (block.timestamp <= task.deadline) revert TooEarly(id, task.deadline);
        if (task.solver == address(0)) {
            _expire(id, task, "no bid");
            return;
        }
        task.status = Status.Training;
        task.deadline = uint64(block.timestamp) + spec.trainWindow;
        emit Assigned(id, task.solver, task.price, task.deadline);
    }

    /// @notice Appends to the checkpoint log. The first call proves that leaf 0 is the initial
    /// state; each later one that the new log extends the old; the log is complete with one leaf
    /// for the start and one for each segment.
    /// @param proof RFC 9162 consistency proof, or at first the inclusion proof of leaf 0.
    function append(uint256 id, TaskSpec calldata spec, uint32 size, bytes32 root, bytes32[] calldata proof)
        external
    {
        Task storage task = _inStatus(id, Status.Training);
        _checkHash(id, task, spec);
        if (msg.sender != task.solver) revert NotSolver(id, msg.sender);
        if (block.timestamp > task.deadline) revert TooLate(id, task.deadline);
        uint32 complete = segmentCount(spec) + 1;
        uint32 old = task.logSize;
        // INVARIANT: the log only grows, and never beyond the schedule.
        if (size <= old || size > complete) revert WrongLogSize(id, size, old + 1, complete);
        if (old == 0) {
            bytes32 leaf = Merkle.leafHash64(bytes32(0), spec.initialRoot);
            if (!Merkle.verifyInclusion(root, size, 0, leaf, proof)) revert BadProof(id, "leaf 0");
        } else if (!Merkle.verifyConsistency(task.logRoot, old, root, size, proof)) {
            revert BadProof(id, "consistency");
        }
        task.logSize = size;
        task.logRoot = root;
        emit LogAppended(id, size, root);
        if (size == complete) {
            task.committedBlock = uint64(block.number);
            task.pool = uint32(verifiers.length);
            task.deadline = uint64(block.timestamp) + spec.auditWindow;
            _awaitDraw(id, task);
        }
    }

    function _checkSpec(TaskSpec calldata spec) private pure {
        // The log's leaves, one more than there are segments, are counted in 32 bits.
        if (spec.steps == 0 || spec.steps >= type(uint32).max) revert InvalidSpec("steps");
        if (spec.segmentSteps == 0 || spec.segmentSteps > spec.steps) revert InvalidSpec("segmentSteps");
        if (spec.nState == 0 || spec.nNodes <= spec.nState) revert InvalidSpec("nNodes");
        if (spec.programRoot == 0 || spec.initialRoot == 0) revert InvalidSpec("roots");
        if (spec.committee == 0 || spec.committee > MAX_COMMITTEE) revert InvalidSpec("committee");
        if (spec.samples == 0 || spec.samples > MAX_SAMPLES || spec.samples > segmentCount(spec)) {
            revert InvalidSpec("samples");
        }
        if (spec.solverStake == 0 || spec.bond == 0) revert InvalidSpec("stakes");
        if (spec.solverStake > type(uint96).max || spec.bond > type(uint96).max) revert InvalidSpec("stakes");
        if (spec.verifierFee > type(uint96).max) revert InvalidSpec("verifierFee");
        uint32[5] memory windows =
            [spec.bidWindow, spec.trainWindow, spec.auditWindow, spec.challengeWindow, spec.disputeClock];
        for (uint256 i = 0; i < windows.length; ++i) {
            if (windows[i] == 0 || windows[i] > MAX_WINDOW) revert InvalidSpec("windows");
        }
    }
}
