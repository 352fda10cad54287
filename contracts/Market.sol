// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {IArbiter} from "./interfaces/IArbiter.sol";
import {IDisputeGame} from "./interfaces/IDisputeGame.sol";
import {Context} from "./interfaces/IReferee.sol";
import {Audit} from "./market/Audit.sol";
import {Run, Seat, SeatState, Status, Task, TaskSpec} from "./market/MarketTypes.sol";
import {VerifierRegistry} from "./market/VerifierRegistry.sol";

/// @title The market: disputes over audited tasks, and who gets the money
contract Market is Audit, IArbiter {
    /// @dev A dispute whose verdict has not come yet; deleted by it.
    struct Dispute {
        uint256 task;
        address challenger;
        uint96 bond;
    }

    error NotGame(address sender);
    error UnknownDispute(uint256 disputeId);
    error UnknownRun(uint256 id, uint256 run);
    error SolverMayNotChallenge(uint256 id);
    error DisputesOpen(uint256 id, uint256 count);
    error TooManyDisputes(uint256 id);
    error NotAttested(uint256 id);
    error AlreadyAttested(uint256 id);
    error NoDefault(uint256 id);

    event DisputeOpened(
        uint256 indexed id, uint256 indexed disputeId, address indexed challenger, uint256 run, Context context
    );
    event DisputeEnded(uint256 indexed id, uint256 indexed disputeId, bool convicted);
    event SolverSlashed(uint256 indexed id, address indexed solver, uint256 amount, bytes32 reason);
    event VerifierSlashed(uint256 indexed id, address indexed verifier, uint256 amount);

    uint256 public constant CHALLENGER_SHARE = 40; // per cent of a convicted solver's stake
    uint256 public constant COMPENSATION_SHARE = 20; // per cent, to the submitter; the rest burns
    uint256 public constant MAX_OPEN_DISPUTES = 32;
    uint256 public constant MAX_ROUNDS = 3;

    IDisputeGame public immutable GAME;
    mapping(uint256 disputeId => Dispute dispute) public disputes;

    constructor(IDisputeGame game, uint256 verifierStake) VerifierRegistry(verifierStake) {
        GAME = game;
    }

    /// @notice Disputes the end of an audited run; the sender's bond is locked until the verdict.
    function challenge(uint256 id, TaskSpec calldata spec, uint256 run) external returns (uint256 disputeId) {
        Task storage task = _tasks[id];
        if (task.status != Status.Revealing && task.status != Status.Window) revert WrongStatus(id, task.status);
        _checkHash(id, task, spec);
        if (block.timestamp > task.deadline) revert TooLate(id, task.deadline);
        if (msg.sender == task.solver) revert SolverMayNotChallenge(id);
        if (run >= _runs[id].length) revert UnknownRun(id, run);
        if (task.openDisputes >= MAX_OPEN_DISPUTES) revert TooManyDisputes(id);
        _lock(msg.sender, spec.bond);
        ++task.openDisputes;
        Context memory context = _context(spec, _runs[id][run]);
        // The defence gets one clock more for each dispute that runs beside it.
        uint256 clock = uint256(spec.disputeClock) * task.openDisputes;
        disputeId = GAME.create(context, task.solver, msg.sender, uint32(clock), spec.disputeClock);
        disputes[disputeId] = Dispute(id, msg.sender, uint96(spec.bond));
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
        if (convicted || task.status == Status.Slashed) {
            _credit(dispute.challenger, dispute.bond, "bond");
            if (task.status != Status.Slashed) _slash(id, task, dispute.challenger, "convicted");
        } else {
            // INVARIANT: a bond lost on purpose earns nothing: half burns now, the rest is the
            // solver's only if the task settles or expires without a conviction.
            uint256 burned = dispute.bond / 2;
            task.forfeited += uint96(dispute.bond - burned);
            _burn(burned, "bond");
        }
    }

    /// @notice Pays everybody after a challenge window in which nobody convicted the solver.
    function settle(uint256 id, TaskSpec calldata spec) external {
        Task storage task = _closedWindow(id, spec);
        // INVARIANT: no settlement without an attestation of every drawn run.
        if (_countSeats(id, SeatState.Attested) == 0) revert NotAttested(id);
        task.status = Status.Settled;
        uint256 escrow = task.escrow;
        uint256 forfeited = task.forfeited;
        task.escrow = 0;
        task.forfeited = 0;
        Seat[] storage seats = _seats[id];
        for (uint256 i = 0; i < seats.length; ++i) {
            if (seats[i].state == SeatState.Attested) {
                escrow -= spec.verifierFee;
                _credit(seats[i].verifier, spec.verifierFee, "verified");
                _returnSlot(seats[i].verifier);
            } else {
                _slashSeat(id, seats[i].verifier);
            }
        }
        uint256 price = task.price;
        _credit(task.solver, price, "trained");
        _credit(task.solver, spec.solverStake, "stake");
        _credit(task.solver, forfeited, "lost bonds");
        _credit(task.submitter, escrow - price, "unspent");
        emit TaskEnded(id, Status.Settled, "settled");
    }

    /// @notice Draws again, larger, if no verifier sealed in time or none attested; after
    /// MAX_ROUNDS rounds the task expires unpaid.
    function redraw(uint256 id, TaskSpec calldata spec) external {
        Task storage task = _tasks[id];
        if (task.status == Status.Sealing) {
            _checkHash(id, task, spec);
            if (block.timestamp <= task.deadline) revert TooEarly(id, task.deadline);
            if (_countSeats(id, SeatState.Sealed) != 0) revert WrongStatus(id, task.status);
        } else {
            _closedWindow(id, spec);
            if (_countSeats(id, SeatState.Attested) != 0) revert AlreadyAttested(id);
        }
        if (task.round + 1 >= MAX_ROUNDS) {
            _expire(id, task, "no attestation");
            return;
        }
        Seat[] storage seats = _seats[id];
        for (uint256 i = 0; i < seats.length; ++i) _slashSeat(id, seats[i].verifier);
        delete _seats[id];
        delete _runs[id];
        ++task.round;
        _awaitDraw(id, task, spec.auditWindow);
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
        } else if (task.status != Status.Training && task.status != Status.Starting) {
            revert WrongStatus(id, task.status);
        }
        if (block.timestamp <= deadline) revert TooEarly(id, deadline);
        _slash(id, task, address(0), "default");
    }

    function _slash(uint256 id, Task storage task, address challenger, bytes32 reason) private {
        uint256 stake = task.stake;
        bool audited = task.status != Status.Training;
        _endSeats(id, task.status);
        task.status = Status.Slashed;
        uint256 escrow = task.escrow;
        uint256 forfeited = task.forfeited;
        task.escrow = 0;
        task.forfeited = 0;
        uint256 reward = challenger == address(0) ? 0 : stake * CHALLENGER_SHARE / 100;
        uint256 compensation = audited ? stake * COMPENSATION_SHARE / 100 : 0;
        _credit(task.submitter, escrow, "refund");
        _credit(task.submitter, compensation, "compensation");
        _credit(challenger, reward, "conviction");
        _burn(stake - reward - compensation + forfeited, reason);
        emit SolverSlashed(id, task.solver, stake, reason);
        emit TaskEnded(id, Status.Slashed, reason);
    }

    function _expire(uint256 id, Task storage task, bytes32 reason) internal override {
        _endSeats(id, task.status);
        task.status = Status.Expired;
        uint256 escrow = task.escrow;
        uint256 forfeited = task.forfeited;
        task.escrow = 0;
        task.forfeited = 0;
        _credit(task.submitter, escrow, "refund");
        if (task.solver != address(0)) {
            _credit(task.solver, task.stake, "stake");
            _credit(task.solver, forfeited, "lost bonds");
        }
        emit TaskEnded(id, Status.Expired, reason);
    }

    /// @dev Ends the seats of a task that does not settle. Convicting a solver never slashes
    /// those who attested; who did not seal in time loses its stake.
    function _endSeats(uint256 id, Status status) private {
        // No task ends in the status Sealing before that deadline.
        bool sealingOver = status >= Status.Sealing && status <= Status.Window;
        Seat[] storage seats = _seats[id];
        for (uint256 i = 0; i < seats.length; ++i) {
            if (seats[i].state == SeatState.Drawn && sealingOver) _slashSeat(id, seats[i].verifier);
            else _returnSlot(seats[i].verifier);
        }
    }

    function _slashSeat(uint256 id, address verifier) private {
        _burn(VERIFIER_STAKE, "verifier");
        emit VerifierSlashed(id, verifier, VERIFIER_STAKE);
    }

    function _closedWindow(uint256 id, TaskSpec calldata spec) private view returns (Task storage task) {
        task = _inStatus(id, Status.Window);
        _checkHash(id, task, spec);
        if (block.timestamp <= task.deadline) revert TooEarly(id, task.deadline);
        if (task.openDisputes != 0) revert DisputesOpen(id, task.openDisputes);
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
