// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {IArbiter} from "../interfaces/IArbiter.sol";
import {IDisputeGame} from "../interfaces/IDisputeGame.sol";
import {Context} from "../interfaces/IReferee.sol";
import {MarketBase} from "./MarketBase.sol";
import {Run, Seat, SeatState, Status, Task, TaskSpec} from "./MarketTypes.sol";
import {VerifierRegistry} from "./VerifierRegistry.sol";

/// @title What is due when something went wrong: disputes, verdicts, defaults, redraws
/// @notice The second half of the market's code, which does not fit into one contract: `Market` runs it
/// on its own storage. An honest task never comes here. Called directly it acts on empty storage.
contract Remedies is VerifierRegistry, IArbiter {
    uint256 internal constant CHALLENGER_SHARE = 40; // per cent of a convicted solver's stake
    uint256 internal constant COMPENSATION_SHARE = 20; // per cent, to the submitter; the rest burns
    uint256 internal constant MAX_OPEN_DISPUTES = 32;
    /// @notice The bond of a challenger that was not drawn doubles with every so many open disputes,
    /// so that filling all places costs far more than a stake.
    uint256 internal constant BOND_DOUBLES = 4;

    constructor(IDisputeGame game, uint256 verifierStake) MarketBase(game, verifierStake) {}

    /// @notice Disputes the end of an audited run; the sender's bond is locked until the verdict.
    /// A drawn verifier whose revealed digest differs has one dispute that pays the plain bond, finds
    /// a place at all times and is rewarded first.
    function challenge(uint256 id, TaskSpec calldata spec, uint256 run) external returns (uint256 disputeId) {
        Task storage task = _tasks[id];
        if (task.status != Status.Revealing && task.status != Status.Window) revert WrongStatus(id, task.status);
        _checkHash(id, task, spec);
        if (block.timestamp > task.deadline) revert TooLate(id, task.deadline);
        if (msg.sender == task.solver) revert SolverMayNotChallenge(id);
        if (run >= _runs[id].length) revert UnknownRun(id, run);
        bool drawn = _usePriority(id);
        uint256 bond = spec.bond;
        if (!drawn) {
            if (task.openDisputes >= MAX_OPEN_DISPUTES) revert TooManyDisputes(id);
            bond <<= task.openDisputes / BOND_DOUBLES;
        }
        _lock(msg.sender, bond);
        ++task.openDisputes;
        Context memory context = _context(spec, _runs[id][run]);
        // The defence gets one clock more for each dispute that runs beside it.
        uint256 clock = uint256(spec.disputeClock) * task.openDisputes;
        disputeId = GAME.create(context, task.solver, msg.sender, uint32(clock), spec.disputeClock);
        // What was locked is wei that exists, so it fits.
        disputes[disputeId] = Dispute(uint64(id), msg.sender, drawn, uint96(bond));
        emit DisputeOpened(id, disputeId, msg.sender, run, context);
    }

    /// @inheritdoc IArbiter
    function onVerdict(uint256 disputeId, bool convicted) external {
        if (msg.sender != address(GAME)) revert NotGame(msg.sender);
        Dispute memory dispute = disputes[disputeId];
        if (dispute.task == 0) revert UnknownDispute(disputeId);
        delete disputes[disputeId];
        uint256 id = dispute.task;
        Task storage task = _tasks[id];
        --task.openDisputes;
        emit DisputeEnded(id, disputeId, convicted);
        if (convicted) {
            // INVARIANT: the reward follows priority, not the order of finishing, so that a solver
            // cannot save it by a quick defeat against itself.
            if (task.status != Status.Slashed) _slash(id, task, true, "convicted");
            Claim storage claim = _claims[id];
            uint64 rank = uint64(disputeId) | (dispute.drawn ? 0 : 1 << 63);
            if (claim.challenger == address(0) || rank < claim.rank) {
                claim.challenger = dispute.challenger;
                claim.rank = rank;
            }
        }
        if (task.status == Status.Slashed) {
            _credit(dispute.challenger, dispute.bond, "bond");
            if (task.openDisputes == 0) {
                _credit(_claims[id].challenger, task.stake * CHALLENGER_SHARE / 100, "conviction");
                delete _claims[id];
            }
        } else {
            // INVARIANT: a bond lost on purpose earns nothing: half burns now, the rest is the
            // solver's only if the task settles or expires without a conviction.
            uint256 burned = dispute.bond / 2;
            task.forfeited += uint96(dispute.bond - burned);
            _burn(burned, "bond");
        }
    }

    /// @notice Draws again, larger, if no verifier sealed, none attested, or most could not get the bytes;
    /// after MAX_ROUNDS rounds the task expires unpaid.
    function redraw(uint256 id, TaskSpec calldata spec) external {
        Task storage task = _tasks[id];
        if (task.status == Status.Sealing) {
            _checkHash(id, task, spec);
            if (!_sealingOver(id, task)) revert TooEarly(id, task.deadline);
            if (_countSeats(id, SeatState.Sealed) != 0) revert WrongStatus(id, task.status);
        } else {
            _closedWindow(id, spec);
            if (!_isLacking(id)) revert AlreadyAttested(id);
        }
        _closeRound(id, 0);
        delete _seats[id];
        if (task.round + 1 >= MAX_ROUNDS) {
            _expire(id, task, "no attestation");
            return;
        }
        _markOpened(id, task);
        ++task.round;
        task.deadline = uint64(block.timestamp) + spec.auditWindow;
        _awaitDraw(id, task);
    }

    /// @notice Slashes a solver that let a deadline of its own pass.
    function defaulted(uint256 id, TaskSpec calldata spec) external {
        Task storage task = _tasks[id];
        _checkHash(id, task, spec);
        uint256 deadline = task.deadline;
        if (task.status == Status.Sealing) {
            // The solver has its own window after the verifiers' to open the ends.
            deadline += spec.auditWindow;
            if (_countSeats(id, SeatState.Sealed) == 0) revert NoDefault(id);
        } else if (task.status == Status.Committed) {
            // Whoever calls can draw instead, as long as the chain knows the block's hash.
            if (block.number <= task.drawBlock + HASH_BLOCKS) revert NoDefault(id);
        } else if (task.status != Status.Training && task.status != Status.Starting) {
            revert WrongStatus(id, task.status);
        }
        if (block.timestamp <= deadline) revert TooEarly(id, deadline);
        _slash(id, task, false, "default");
    }

    /// @dev The challenger's share of a conviction stays in the contract until it is clear whose it is.
    function _slash(uint256 id, Task storage task, bool convicted, bytes32 reason) private {
        uint256 stake = task.stake;
        bool audited = task.status != Status.Training;
        // No seat is left in the status Sealing before that deadline.
        _endSeats(id, task.status >= Status.Sealing);
        task.status = Status.Slashed;
        uint256 escrow = task.escrow;
        uint256 forfeited = task.forfeited;
        task.escrow = 0;
        task.forfeited = 0;
        uint256 reward = convicted ? stake * CHALLENGER_SHARE / 100 : 0;
        uint256 compensation = audited ? stake * COMPENSATION_SHARE / 100 : 0;
        _credit(task.submitter, escrow, "refund");
        _credit(task.submitter, compensation, "compensation");
        _burn(stake - reward - compensation + forfeited, reason);
        emit SolverSlashed(id, task.solver, stake, reason);
        emit TaskEnded(id, Status.Slashed, reason);
    }

    /// @dev Remembers the segments whose ends this round showed. A start is the end of the segment
    /// before it. Runs whose own ends nobody has seen stay for the next draw.
    function _markOpened(uint256 id, Task storage task) private {
        bool endsOpened = task.status == Status.Window;
        mapping(uint256 segment => bool) storage opened = _opened[id];
        Run[] storage runs = _runs[id];
        for (uint256 i = 0; i < runs.length; ++i) {
            uint256 first = runs[i].first;
            if (first != 0) opened[first - 1] = true;
            for (uint256 j = 0; endsOpened && j < runs[i].count; ++j) opened[first + j] = true;
        }
        if (endsOpened) {
            opened[task.logSize - 2] = true;
            delete _runs[id];
        }
    }

    /// @dev True if the sender is a drawn verifier whose digest differs, for its first dispute.
    function _usePriority(uint256 id) private returns (bool) {
        Seat[] storage seats = _seats[id];
        for (uint256 i = 0; i < seats.length; ++i) {
            if (seats[i].verifier == msg.sender && seats[i].state == SeatState.Mismatched) {
                if (seats[i].seal == 0) return false;
                seats[i].seal = 0;
                return true;
            }
        }
        return false;
    }

    function _context(TaskSpec calldata spec, Run storage run) private view returns (Context memory context) {
        uint256 first = uint256(run.first) * spec.segmentSteps;
        uint256 end = first + uint256(run.count) * spec.segmentSteps;
        if (end > spec.steps) end = spec.steps;
        context = Context({
            programRoot: spec.programRoot,
            constRoot: spec.constRoot,
            dataRoot: spec.dataRoot,
            seed: spec.seed,
            startRoot: run.startRoot,
            endRoot: run.endRoot,
            firstStep: uint64(first),
            steps: uint32(end - first),
            nNodes: spec.nNodes,
            nState: spec.nState,
            nConst: spec.nConst,
            nData: spec.nData
        });
    }
}
