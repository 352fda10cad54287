// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {Opening, Run, Seat, SeatState, Status, Task, TaskSpec} from "./MarketTypes.sol";
import {TaskBook} from "./TaskBook.sol";

/// @title The sealed audit of the checkpoint log of a progress window
/// @notice Draw, opened starts, sealed digests, opened ends, revealed digests, in this order, so
/// that a verifier has bound itself to a digest before anything shows it the solver's.
abstract contract Audit is TaskBook {
    error DrawNotReady(uint256 id, uint256 block_);
    error AlreadySealed(uint256 id, address sender);
    error NotSealed(uint256 id, address sender);
    error WrongCount(uint256 given, uint256 expected);
    error SealNotOver(uint256 id);
    error DrawMissed(uint256 id);

    /// @notice `verifiers` were drawn into seats from `firstSeat` on, for `runs`.
    event Drawn(
        uint256 indexed id, uint256 round, uint256 firstSeat, address[] verifiers, Run[] runs, uint256 deadline
    );
    /// @dev INVARIANT: whoever is drawn finds all that a challenge needs in the events, also if the solver hides
    /// behind a contract of its own.
    event StartsOpened(uint256 indexed id, uint256 round, Opening[] openings, uint256 deadline);
    event Sealed(uint256 indexed id, address indexed verifier);
    event Unavailable(uint256 indexed id, address indexed verifier);
    event EndsOpened(
        uint256 indexed id, uint256 round, Opening[] openings, bytes32 finalRoot, uint256 deadline
    );
    event Revealed(uint256 indexed id, address indexed verifier, bool attested, bytes32 receipt);

    /// @notice Draws verifiers and segments from the hash of the draw block. If that hash is no
    /// longer on chain, the draw moves to a later block with one segment more; drawing in time is
    /// the solver's duty, so this neither extends the deadline nor happens without end. A second audit
    /// is drawn only with the chance that the terms give it, and for certain if its hash was missed.
    /// @param openings None; or, from the solver, what `openStarts` takes: a call of this function shows
    /// what will be drawn, once the block is known.
    /// @return runs drawn, none if the draw moved on or the audit ended
    function draw(uint256 id, TaskSpec calldata spec, Opening[] calldata openings)
        external
        returns (Run[] memory runs)
    {
        Task storage task = _taskIn(id, spec, Status.Committed);
        uint256 drawBlock = task.drawBlock;
        if (block.number <= drawBlock) revert DrawNotReady(id, drawBlock);
        // A draw that is made again finds its runs drawn.
        uint256 random = task.runs == task.firstRun ? 0 : drawSeeds[id];
        if (random != 0) {
            delete drawSeeds[id];
        } else if (block.number > drawBlock + HASH_BLOCKS) {
            if (block.timestamp > task.deadline || task.retries + 1 >= MAX_ROUNDS) revert DrawMissed(id);
            ++task.retries;
            _awaitDraw(id, task, task.deadline);
            return runs;
        } else {
            random = uint256(
                keccak256(abi.encode(blockhash(drawBlock), block.chainid, address(this), id, task.logRoot))
            );
        }
        bool second = task.agreed != 0;
        // Once drawn, a second audit stays due.
        bool due = task.retries != 0 || task.runs != task.firstRun || uint8(random) < spec.secondAudit;
        if (second && !due) {
            _skipSecond(id, task, spec);
            return runs;
        }
        // Those who have sealed stay, and replacements are drawn for the same runs.
        uint256 sealedSeats = _countSeats(id, task, SeatState.Sealed);
        runs = sealedSeats == 0 ? _drawRuns(id, task, spec, random) : _currentRuns(id, task);
        uint256 firstSeat = task.seats;
        address[] memory drawn;
        bool busy = false;
        if (runs.length != 0) (drawn, busy) = _drawSeats(id, task, spec, spec.committee - sealedSeats, random);
        if (drawn.length == 0) {
            bool skips = second && task.retries == 0 && !busy;
            if (skips) {
                _skipSecond(id, task, spec);
            } else if (runs.length != 0 && block.timestamp <= task.deadline) {
                // Somebody may have a stake free later. Who is asked first, and what is audited, stays drawn.
                drawSeeds[id] = random;
                _awaitDraw(id, task, task.deadline);
            } else if (task.open == 0) {
                _expire(id, task, spec, "nobody to draw");
            }
            // INVARIANT: no solver escapes a dispute by an audit that fails. It fails again afterwards.
            else {
                _openWindow(id, task, spec.challengeWindow);
            }
            return new Run[](0);
        }
        task.status = sealedSeats == 0 ? Status.Starting : Status.Sealing;
        if (task.demands != 0) task.demands = 0;
        task.deadline = uint40(block.timestamp) + spec.auditWindow;
        emit Drawn(id, task.round, firstSeat, drawn, runs, task.deadline);
        if (sealedSeats == 0 && openings.length != 0) _openStarts(id, task, spec, runs, openings);
    }

    /// @notice The solver opens the checkpoint before each run.
    function openStarts(uint256 id, TaskSpec calldata spec, Opening[] calldata openings) external {
        Task storage task = _taskIn(id, spec, Status.Starting);
        _requireEarly(id, task.deadline);
        _openStarts(id, task, spec, _currentRuns(id, task), openings);
    }

    /// @notice What a verifier seals: its digests bound to chain, contract, task, round and sender.
    function sealOf(uint256 id, address verifier, bytes32 nonce, bytes32[] calldata stateRoots)
        public
        view
        returns (bytes32)
    {
        return keccak256(
            abi.encode(block.chainid, address(this), id, _tasks[id].round, verifier, nonce, stateRoots)
        );
    }

    /// @notice A drawn verifier commits to the end states it has replayed.
    /// @param index Number of the sender's seat.
    function seal(uint256 id, uint256 index, bytes32 digest) external {
        if (digest == 0) revert EmptySeal();
        if (_tasks[id].status != Status.Sealing) revert WrongStatus(id, _tasks[id].status);
        Seat storage seat = _drawnSeat(id, index);
        seat.state = SeatState.Sealed;
        _seals[id][index] = digest;
        emit Sealed(id, msg.sender);
    }

    /// @notice A drawn verifier cannot get what it needs to replay, cannot run the program, or does not like
    /// the terms: it leaves its seat, with neither fee nor loss. Silence costs the stake.
    function reportUnavailable(uint256 id, uint256 index) external {
        _leaveSeat(id, _drawnSeat(id, index));
    }

    /// @notice When no drawn verifier can seal any more, the solver opens the checkpoint after each
    /// run and the last one of the log.
    function openEnds(uint256 id, TaskSpec calldata spec, Opening[] calldata openings, Opening calldata last)
        external
    {
        Task storage task = _taskIn(id, spec, Status.Sealing);
        if (msg.sender != task.solver) revert NotSolver(id, msg.sender);
        _requireEarly(id, uint256(task.deadline) + spec.auditWindow);
        // INVARIANT: no end is opened while a drawn verifier may still seal.
        if (_countSeats(id, task, SeatState.Sealed) < QUORUM || !_sealingOver(id, task)) revert SealNotOver(id);
        if (block.timestamp > task.deadline) _slashIdle(id, task, false);
        bytes32[] memory roots = _openRuns(id, task, _currentRuns(id, task), openings, true);
        bytes32 finalRoot = _checkOpening(id, task, task.logSize - 1, last);
        task.endsHash = keccak256(abi.encode(roots));
        task.status = Status.Revealing;
        if (task.demands != 0) task.demands = 0;
        task.deadline = uint40(block.timestamp) + spec.auditWindow;
        emit EndsOpened(id, task.round, openings, finalRoot, task.deadline);
    }

    /// @notice A verifier reveals its digests: equal to the solver's, it attests; else it should
    /// open a dispute. The last reveal ends the round. Also in time after somebody else has won a dispute: a
    /// solver that quickly loses to itself must not come before who was drawn.
    /// @param receipt Root over the chunks of the log's last state, each salted for this verifier
    /// (`protocol/commitments.py`): who has the whole model can compute it, and nobody can copy
    /// another's. Zero if the verifier could not get the model: then it leaves its seat unpaid.
    function reveal(
        uint256 id,
        TaskSpec calldata spec,
        uint256 index,
        bytes32 nonce,
        bytes32[] calldata stateRoots,
        bytes32 receipt
    ) external {
        Task storage task = _taskOf(id, spec);
        bool convicted = task.status == Status.Convicted && task.endsHash != 0;
        if (task.status != Status.Revealing && !convicted) revert WrongStatus(id, task.status);
        _requireEarly(id, task.deadline);
        Seat storage seat = _seatOf(id, task, index);
        if (seat.state != SeatState.Sealed || seat.round != task.round) revert NotSealed(id, msg.sender);
        if (sealOf(id, msg.sender, nonce, stateRoots) != _seals[id][index]) revert WrongSeal(id, msg.sender);
        delete _seals[id][index];
        bool equal = keccak256(abi.encode(stateRoots)) == task.endsHash;
        // INVARIANT: nobody attests without a receipt, and nothing settles without attestations: a
        // solver that keeps the state to itself earns nothing.
        if (equal && receipt == 0) {
            _leaveSeat(id, seat);
        } else {
            seat.state = equal ? SeatState.Attested : SeatState.Mismatched;
            emit Revealed(id, msg.sender, equal, receipt);
        }
        if (!convicted && _countSeats(id, task, SeatState.Sealed) == 0) _endRound(id, task, spec);
    }

    /// @notice Ends the round when the time for revealing is over.
    function openWindow(uint256 id, TaskSpec calldata spec) external {
        Task storage task = _taskIn(id, spec, Status.Revealing);
        _requireOver(id, task.deadline);
        _endRound(id, task, spec);
    }

    function _openStarts(
        uint256 id,
        Task storage task,
        TaskSpec calldata spec,
        Run[] memory runs,
        Opening[] calldata openings
    ) private {
        if (msg.sender != task.solver) revert NotSolver(id, msg.sender);
        _openRuns(id, task, runs, openings, false);
        task.status = Status.Sealing;
        task.deadline = uint40(block.timestamp) + spec.auditWindow;
        emit StartsOpened(id, task.round, openings, task.deadline);
    }

    /// @dev Opens the challenge window, unless everybody agrees and a second audit may be drawn: whether
    /// it is follows from a block that nobody knows yet, so that two who collude cannot count on it. Who
    /// objects has the window to win its dispute first.
    function _endRound(uint256 id, Task storage task, TaskSpec calldata spec) private {
        if (
            _owesSecond(task, spec) && !_isLacking(id, task) && _countSeats(id, task, SeatState.Mismatched) == 0
                && _countSeats(id, task, SeatState.Disputing) == 0
        ) {
            _startSecond(id, task, spec);
        } else {
            _openWindow(id, task, spec.challengeWindow);
        }
    }

    /// @dev No second audit: the first one's round stands, and what was drawn for the second is not audited.
    function _skipSecond(uint256 id, Task storage task, TaskSpec calldata spec) private {
        task.round = task.agreed;
        if (task.runs != task.firstRun) task.runs = task.firstRun;
        _openWindow(id, task, spec.challengeWindow);
    }

    /// @dev The sender's seat, about to leave the state Drawn.
    function _drawnSeat(uint256 id, uint256 index) private view returns (Seat storage seat) {
        Task storage task = _tasks[id];
        Status status = task.status;
        if (status != Status.Starting && status != Status.Sealing) revert WrongStatus(id, status);
        _requireEarly(id, task.deadline);
        seat = _seatOf(id, task, index);
        if (seat.state != SeatState.Drawn) revert AlreadySealed(id, msg.sender);
    }

    function _leaveSeat(uint256 id, Seat storage seat) private {
        seat.state = SeatState.Unavailable;
        _returnSlot(msg.sender);
        emit Unavailable(id, msg.sender);
    }

    /// @dev Checks the openings of the starts or the ends of the current runs.
    function _openRuns(uint256 id, Task storage task, Run[] memory runs, Opening[] calldata openings, bool ends)
        private
        view
        returns (bytes32[] memory roots)
    {
        if (openings.length != runs.length) revert WrongCount(openings.length, runs.length);
        roots = new bytes32[](runs.length);
        for (uint256 i = 0; i < runs.length; ++i) {
            uint256 leaf = ends ? uint256(runs[i].first) + runs[i].count : runs[i].first;
            roots[i] = _checkOpening(id, task, leaf, openings[i]);
        }
    }

    function _drawSeats(uint256 id, Task storage task, TaskSpec calldata spec, uint256 count, uint256 random)
        private
        returns (address[] memory drawn, bool busy)
    {
        (uint256 seats, uint8 round) = (task.seats, task.round);
        (uint256 pool, uint256 committedBlock) = (task.pool, task.committedBlock);
        address[] memory taken = new address[](seats + count + 2);
        (taken[0], taken[1]) = (task.solver, spec.submitter);
        for (uint256 i = 0; i < seats; ++i) {
            Seat memory seat = _seats[id][i];
            // INVARIANT: a solver that lets rounds fail does not use up the honest: who was drawn in one may be
            // drawn in the next, but in no second audit after a first one.
            if (seat.round == round || seat.round == task.agreed || seat.state == SeatState.Slashed) {
                taken[i + 2] = seat.verifier;
            }
        }
        drawn = new address[](count);
        for (uint256 i = 0; i < count; ++i) {
            address verifier;
            (verifier, busy) = _drawVerifier(
                uint256(keccak256(abi.encode(random, "seat", i))), pool, committedBlock, taken
            );
            if (verifier == address(0)) {
                // Those drawn already get their slots back.
                for (uint256 j = 0; j < i; ++j) _returnSlot(drawn[j]);
                return (new address[](0), busy);
            }
            taken[seats + i + 2] = drawn[i] = verifier;
            _seats[id][seats + i] = Seat(verifier, SeatState.Drawn, round);
        }
        task.seats = uint8(seats + count);
    }
}
