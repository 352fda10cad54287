// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {Merkle} from "../lib/Merkle.sol";
import {Status, Task, TaskSpec} from "./MarketTypes.sol";
import {Runs} from "./Runs.sol";

/// @title Posting tasks, and their checkpoint logs
abstract contract TaskBook is Runs {
    error InvalidSpec(bytes32 field);
    error WrongLogSize(uint256 id, uint256 size, uint256 least, uint256 most);

    event TaskPosted(uint256 indexed id, address indexed submitter, TaskSpec spec, string artifacts);
    event LogAppended(uint256 indexed id, uint256 size, bytes32 root);

    uint256 internal constant MAX_COMMITTEE = 4;
    uint256 internal constant MAX_PROGRESS_WINDOWS = 32;
    /// @notice Seconds; shorter than LEAVE_DELAY, so that no verifier leaves while a window lasts.
    uint32 internal constant MAX_WINDOW = 28 days;
    /// @notice The least that terms may say, as parts of VERIFIER_STAKE. Verifiers and owners of asks come
    /// into tasks without having seen the terms: these bound what a seat costs whoever fills it in bad
    /// faith, and pay for a seat, and for a defence against a challenge that is lost.
    uint256 internal constant SOLVER_STAKE_SHARE = 4;
    uint256 internal constant FEE_SHARE = 1024;
    uint256 internal constant BOND_SHARE = 32;
    /// @notice Seconds of the shortest window and clock, for the same reason: within them everybody must
    /// find the time to act.
    uint32 public immutable MIN_WINDOW;

    constructor(uint32 minWindow) {
        MIN_WINDOW = minWindow;
    }

    /// @notice Posts a task and escrows `escrowOf(spec)`: what is sent, else from the free balance.
    /// @param artifacts URL of the store that serves program, state and data by root.
    function post(TaskSpec calldata spec, string calldata artifacts) external payable returns (uint256 id) {
        _pay(_checkSpec(spec));
        id = ++taskCount;
        Task storage task = _tasks[id];
        task.specHash = _hash(spec);
        task.status = Status.Bidding;
        task.deadline = uint40(block.timestamp) + spec.bidWindow;
        emit TaskPosted(id, msg.sender, spec, artifacts);
    }

    /// @notice Appends to the checkpoint log. The first call proves that leaf 0 is the initial state; each
    /// later one that the new log extends the old. A progress window is complete with one leaf for each
    /// of its segments, and is audited then.
    /// @param proof RFC 9162 consistency proof, or at first the inclusion proof of leaf 0.
    function append(uint256 id, TaskSpec calldata spec, uint32 size, bytes32 root, bytes32[] calldata proof)
        external
    {
        Task storage task = _taskOf(id, spec);
        if (msg.sender != task.solver) revert NotSolver(id, msg.sender);
        if (task.status == Status.Bidding) _assign(id, task, spec);
        if (task.status != Status.Training) revert WrongStatus(id, task.status);
        _requireEarly(id, task.deadline);
        uint256 complete = uint256(task.settled) + spec.windowSegments;
        uint256 segments = segmentCount(spec);
        if (complete > segments) complete = segments;
        ++complete;
        uint256 old = task.logSize;
        // INVARIANT: the log only grows, and never beyond the schedule.
        if (size <= old || size > complete) revert WrongLogSize(id, size, old + 1, complete);
        if (old == 0) {
            bytes32 leaf = Merkle.leafHash64(bytes32(0), spec.initialRoot);
            if (!Merkle.verifyInclusion(root, size, 0, leaf, proof)) revert BadProof(id, "leaf 0");
        } else if (!Merkle.verifyConsistency(task.logRoot, old, root, size, proof)) {
            revert BadProof(id, "consistency");
        }
        task.logSize = uint24(size);
        task.logRoot = root;
        if (size < complete) {
            emit LogAppended(id, size, root);
        } else {
            task.committedBlock = uint32(block.number);
            task.pool = uint32(verifiers.length);
            ++task.round;
            _awaitDraw(id, task, block.timestamp + spec.auditWindow);
        }
    }

    /// @return escrow what the terms cost the submitter
    function _checkSpec(TaskSpec calldata spec) private view returns (uint256 escrow) {
        if (spec.segmentSteps == 0 || spec.segmentSteps > spec.steps || spec.steps > type(uint32).max) {
            revert InvalidSpec("steps");
        }
        // One place for all others, of which the last that is wrong is named.
        bytes32 wrong = 0;
        if (spec.submitter != msg.sender) wrong = "submitter";
        if (spec.solver == msg.sender) wrong = "solver";
        uint256 segments = segmentCount(spec);
        // The log's leaves, one more than there are segments, are counted in 24 bits.
        if (segments >= type(uint24).max) wrong = "segmentSteps";
        if (spec.nState == 0 || spec.nNodes <= spec.nState) wrong = "nNodes";
        if (spec.programRoot == 0 || spec.initialRoot == 0) wrong = "roots";
        if (spec.committee < QUORUM || spec.committee > MAX_COMMITTEE) wrong = "committee";
        if (spec.samples == 0 || spec.samples > MAX_SAMPLES || spec.samples > segments) wrong = "samples";
        if (spec.solverStake < VERIFIER_STAKE / SOLVER_STAKE_SHARE) wrong = "solverStake";
        if (spec.verifierFee < VERIFIER_STAKE / FEE_SHARE) wrong = "verifierFee";
        if (spec.bond < VERIFIER_STAKE / BOND_SHARE || spec.bond > VERIFIER_STAKE) wrong = "bond";
        uint32[5] memory windows =
            [spec.bidWindow, spec.trainWindow, spec.auditWindow, spec.challengeWindow, spec.disputeClock];
        for (uint256 i = 0; i < windows.length; ++i) {
            if (windows[i] < MIN_WINDOW || windows[i] > MAX_WINDOW) wrong = "windows";
        }
        uint256 window = spec.windowSegments;
        if (window == 0 || window > segments || (segments + window - 1) / window > MAX_PROGRESS_WINDOWS) {
            wrong = "windowSegments";
        } else {
            escrow = escrowOf(spec);
            if (spec.budget == 0 || escrow > type(uint96).max) wrong = "budget";
        }
        if (wrong != 0) revert InvalidSpec(wrong);
    }
}
