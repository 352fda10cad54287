// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {Merkle} from "../lib/Merkle.sol";
import {Opening, Run, Seat, SeatState, Status, Task, TaskSpec} from "./MarketTypes.sol";
import {TaskBook} from "./TaskBook.sol";

/// @title The sealed audit of a complete checkpoint log
/// @notice Draw, opened starts, sealed digests, opened ends, revealed digests, in this order, so
/// that a verifier has bound itself to a digest before anything shows it the solver's.
abstract contract Audit is TaskBook {
    error DrawNotReady(uint256 id, uint256 block_);
    error NotDrawn(uint256 id, address sender);
    error AlreadySealed(uint256 id, address sender);
    error NotSealed(uint256 id, address sender);
    error WrongCount(uint256 given, uint256 expected);
    error EmptySeal();
    error WrongSeal(uint256 id, address sender);
    error SealNotOver(uint256 id);
    error DrawMissed(uint256 id);

    event Drawn(uint256 indexed id, uint256 round, uint256 deadline);
    event RunDrawn(uint256 indexed id, uint256 indexed index, uint32 first, uint32 count);
    event SeatDrawn(uint256 indexed id, address indexed verifier);
    event StartsOpened(uint256 indexed id, bytes32[] stateRoots, uint256 deadline);
    event Sealed(uint256 indexed id, address indexed verifier);
    event Unavailable(uint256 indexed id, address indexed verifier);
    event EndsOpened(uint256 indexed id, bytes32[] stateRoots, bytes32 finalRoot, uint256 deadline);
    event Revealed(
        uint256 indexed id, address indexed verifier, bytes32[] stateRoots, bool attested, bytes32 receipt
    );
    event WindowOpened(uint256 indexed id, uint256 deadline);

    /// @notice Draws verifiers and segments from the hash of the draw block. If that hash is no
    /// longer on chain, the draw moves to a later block with one segment more; drawing in time is
    /// the solver's duty, so this neither extends the deadline nor happens without end.
    function draw(uint256 id, TaskSpec calldata spec) external {
        Task storage task = _inStatus(id, Status.Committed);
        _checkHash(id, task, spec);
        if (block.number <= task.drawBlock) revert DrawNotReady(id, task.drawBlock);
        if (block.number > task.drawBlock + HASH_BLOCKS) {
            if (block.timestamp > task.deadline || task.round + 1 >= MAX_ROUNDS) revert DrawMissed(id);
            ++task.round;
            _awaitDraw(id, task);
            return;
        }
        bytes32 entropy = blockhash(task.drawBlock);
        uint256 random = uint256(keccak256(abi.encode(entropy, block.chainid, address(this), id, task.logRoot)));
        if (!_drawSeats(id, task, spec.committee, random) || !_drawRuns(id, spec, task.round, random)) {
            _expire(id, task, "nobody to draw");
            return;
        }
        task.status = Status.Starting;
        task.deadline = uint64(block.timestamp) + spec.auditWindow;
        emit Drawn(id, task.round, task.deadline);
    }

    /// @notice The solver opens the checkpoint before each run.
    function openStarts(uint256 id, TaskSpec calldata spec, Opening[] calldata openings) external {
        Task storage task = _solverIn(id, Status.Starting, spec, 0);
        Run[] storage runs = _runs[id];
        if (openings.length != runs.length) revert WrongCount(openings.length, runs.length);
        bytes32[] memory roots = new bytes32[](runs.length);
        for (uint256 i = 0; i < runs.length; ++i) {
            roots[i] = _checkOpening(id, task, runs[i].first, openings[i]);
            runs[i].startRoot = roots[i];
        }
        task.status = Status.Sealing;
        task.deadline = uint64(block.timestamp) + spec.auditWindow;
        emit StartsOpened(id, roots, task.deadline);
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
    function seal(uint256 id, bytes32 digest) external {
        if (digest == 0) revert EmptySeal();
        Seat storage seat = _leaveDrawn(id);
        seat.seal = digest;
        seat.state = SeatState.Sealed;
        emit Sealed(id, msg.sender);
    }

    /// @notice A drawn verifier cannot get what it needs to replay, or cannot run the program: it
    /// leaves its seat, with neither fee nor loss. Silence costs the stake.
    function reportUnavailable(uint256 id) external {
        _leaveDrawn(id).state = SeatState.Unavailable;
        _returnSlot(msg.sender);
        emit Unavailable(id, msg.sender);
    }

    /// @notice When no drawn verifier can seal any more, the solver opens the checkpoint after each
    /// run and the final one.
    function openEnds(uint256 id, TaskSpec calldata spec, Opening[] calldata openings, Opening calldata last)
        external
    {
        Task storage task = _solverIn(id, Status.Sealing, spec, spec.auditWindow);
        // INVARIANT: no end is opened while a drawn verifier may still seal.
        if (_countSeats(id, SeatState.Sealed) == 0 || !_sealingOver(id, task)) revert SealNotOver(id);
        Run[] storage runs = _runs[id];
        if (openings.length != runs.length) revert WrongCount(openings.length, runs.length);
        bytes32[] memory roots = new bytes32[](runs.length);
        for (uint256 i = 0; i < runs.length; ++i) {
            roots[i] = _checkOpening(id, task, runs[i].first + runs[i].count, openings[i]);
            runs[i].endRoot = roots[i];
        }
        task.finalRoot = _checkOpening(id, task, task.logSize - 1, last);
        task.status = Status.Revealing;
        task.deadline = uint64(block.timestamp) + spec.auditWindow;
        emit EndsOpened(id, roots, task.finalRoot, task.deadline);
    }

    /// @notice A verifier reveals its digests: equal to the solver's, it attests; else it should
    /// open a dispute.
    /// @param receipt Root over the chunks of the final state, each salted for this verifier
    /// (`protocol/commitments.py`): who has the whole model can compute it, and nobody can copy
    /// another's. Zero if the verifier could not get the model: then it leaves its seat unpaid.
    function reveal(uint256 id, bytes32 nonce, bytes32[] calldata stateRoots, bytes32 receipt) external {
        Task storage task = _inStatus(id, Status.Revealing);
        if (block.timestamp > task.deadline) revert TooLate(id, task.deadline);
        Seat storage seat = _seatOf(id, msg.sender);
        if (seat.state != SeatState.Sealed) revert NotSealed(id, msg.sender);
        if (sealOf(id, msg.sender, nonce, stateRoots) != seat.seal) revert WrongSeal(id, msg.sender);
        Run[] storage runs = _runs[id];
        bool equal = stateRoots.length == runs.length;
        for (uint256 i = 0; equal && i < runs.length; ++i) {
            if (stateRoots[i] != runs[i].endRoot) equal = false;
        }
        // INVARIANT: nobody attests without a receipt, and nothing settles without an attestation: a
        // solver that keeps the final state to itself earns nothing.
        if (equal && receipt == 0) {
            seat.state = SeatState.Unavailable;
            _returnSlot(msg.sender);
            emit Unavailable(id, msg.sender);
            return;
        }
        seat.state = equal ? SeatState.Attested : SeatState.Mismatched;
        emit Revealed(id, msg.sender, stateRoots, equal, receipt);
    }

    /// @notice Opens the challenge window once every sealed verifier has revealed or may no longer.
    function openWindow(uint256 id, TaskSpec calldata spec) external {
        Task storage task = _inStatus(id, Status.Revealing);
        _checkHash(id, task, spec);
        if (block.timestamp <= task.deadline && _countSeats(id, SeatState.Sealed) != 0) {
            revert TooEarly(id, task.deadline);
        }
        task.status = Status.Window;
        task.deadline = uint64(block.timestamp) + spec.challengeWindow;
        emit WindowOpened(id, task.deadline);
    }

    /// @dev The sender's seat, about to leave the state Drawn.
    function _leaveDrawn(uint256 id) private view returns (Seat storage seat) {
        Task storage task = _inStatus(id, Status.Sealing);
        if (block.timestamp > task.deadline) revert TooLate(id, task.deadline);
        seat = _seatOf(id, msg.sender);
        if (seat.state != SeatState.Drawn) revert AlreadySealed(id, msg.sender);
    }

    /// @dev The task, if the sender is its solver and its deadline plus `extra` has not passed.
    function _solverIn(uint256 id, Status status, TaskSpec calldata spec, uint256 extra)
        internal
        view
        returns (Task storage task)
    {
        task = _inStatus(id, status);
        _checkHash(id, task, spec);
        if (msg.sender != task.solver) revert NotSolver(id, msg.sender);
        extra += task.deadline;
        if (block.timestamp > extra) revert TooLate(id, extra);
    }

    function _checkOpening(uint256 id, Task storage task, uint32 leaf, Opening calldata opening)
        private
        view
        returns (bytes32)
    {
        bytes32 hash = Merkle.leafHash64(opening.salt, opening.stateRoot);
        // INVARIANT: every opened root can be disputed, and the game knows no root zero.
        if (opening.stateRoot == 0 || !Merkle.verifyInclusion(task.logRoot, task.logSize, leaf, hash, opening.proof)) {
            revert BadProof(id, "checkpoint");
        }
        return opening.stateRoot;
    }

    function _seatOf(uint256 id, address verifier) private view returns (Seat storage) {
        Seat[] storage seats = _seats[id];
        for (uint256 i = 0; i < seats.length; ++i) {
            if (seats[i].verifier == verifier) return seats[i];
        }
        revert NotDrawn(id, verifier);
    }

    function _drawSeats(uint256 id, Task storage task, uint256 committee, uint256 random)
        private
        returns (bool)
    {
        address[] memory taken = new address[](committee + 2);
        taken[committee] = task.solver;
        taken[committee + 1] = task.submitter;
        for (uint256 i = 0; i < committee; ++i) {
            address verifier = _drawVerifier(
                uint256(keccak256(abi.encode(random, "seat", i))), task.pool, task.committedBlock, taken
            );
            if (verifier == address(0)) return false;
            taken[i] = verifier;
            _seats[id].push(Seat(verifier, SeatState.Drawn, bytes32(0)));
            emit SeatDrawn(id, verifier);
        }
        return true;
    }

    /// @dev Draws without replacement, uniformly: a pick that is taken is picked again. What was drawn
    /// before and never opened stays drawn, so that withholding rids nobody of a draw; what was opened
    /// is not drawn again. Then a sort that merges adjacent segments. False if nothing is left to draw.
    function _drawRuns(uint256 id, TaskSpec calldata spec, uint256 round, uint256 random)
        private
        returns (bool)
    {
        uint256 n = segmentCount(spec);
        uint256 k = spec.samples + round;
        if (k > MAX_SAMPLES) k = MAX_SAMPLES;
        if (k > n) k = n;
        uint256[] memory drawn = new uint256[](k);
        Run[] storage runs = _runs[id];
        uint256 count = 0;
        for (uint256 i = 0; i < runs.length; ++i) {
            for (uint256 j = 0; j < runs[i].count; ++j) drawn[count++] = runs[i].first + j;
        }
        delete _runs[id];
        while (count < k) {
            uint256 pick;
            bool isFree = false;
            // Fewer than 128 segments can be taken, so walking on from the last try finds a free one.
            for (uint256 i = 0; i < 192 && !isFree; ++i) {
                pick = i < 64 ? uint256(keccak256(abi.encode(random, count, i))) % n : (pick + 1) % n;
                isFree = round == 0 || !_opened[id][pick];
                for (uint256 j = 0; j < count; ++j) {
                    if (drawn[j] == pick) isFree = false;
                }
            }
            if (!isFree) break;
            uint256 place = count++;
            for (; place > 0 && drawn[place - 1] > pick; --place) drawn[place] = drawn[place - 1];
            drawn[place] = pick;
        }
        for (uint256 i = 0; i < count; ++i) {
            uint32 segment = uint32(drawn[i]);
            uint256 m = runs.length;
            if (m > 0 && runs[m - 1].first + runs[m - 1].count == segment) ++runs[m - 1].count;
            else runs.push(Run(segment, 1, bytes32(0), bytes32(0)));
        }
        for (uint256 i = 0; i < runs.length; ++i) emit RunDrawn(id, i, runs[i].first, runs[i].count);
        return runs.length > 0;
    }
}
