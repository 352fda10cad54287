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

    event Drawn(uint256 indexed id, uint256 round, uint256 deadline);
    event RunDrawn(uint256 indexed id, uint256 indexed index, uint32 first, uint32 count);
    event SeatDrawn(uint256 indexed id, address indexed verifier);
    event StartsOpened(uint256 indexed id, bytes32[] stateRoots, uint256 deadline);
    event Sealed(uint256 indexed id, address indexed verifier);
    event EndsOpened(uint256 indexed id, bytes32[] stateRoots, bytes32 finalRoot, uint256 deadline);
    event Revealed(uint256 indexed id, address indexed verifier, bytes32[] stateRoots, bool attested);
    event WindowOpened(uint256 indexed id, uint256 deadline);

    /// @dev A draw whose runs were opened in an earlier round is not sealed any more.
    mapping(uint256 id => mapping(uint256 segment => bool)) internal _opened;

    /// @notice Draws verifiers and segments from the hash of the draw block. If that hash is no
    /// longer on chain, the draw moves to a later block with one segment more.
    function draw(uint256 id, TaskSpec calldata spec) external {
        Task storage task = _inStatus(id, Status.Committed);
        _checkHash(id, task, spec);
        if (block.number <= task.drawBlock) revert DrawNotReady(id, task.drawBlock);
        bytes32 entropy = blockhash(task.drawBlock);
        if (entropy == 0) {
            if (task.round < MAX_SAMPLES) ++task.round;
            _awaitDraw(id, task, spec.auditWindow);
            return;
        }
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
        Task storage task = _solverIn(id, Status.Starting, spec);
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
        Task storage task = _inStatus(id, Status.Sealing);
        if (block.timestamp > task.deadline) revert TooLate(id, task.deadline);
        if (digest == 0) revert EmptySeal();
        Seat storage seat = _seatOf(id, msg.sender);
        if (seat.state != SeatState.Drawn) revert AlreadySealed(id, msg.sender);
        seat.seal = digest;
        seat.state = SeatState.Sealed;
        emit Sealed(id, msg.sender);
    }

    /// @notice When all have sealed, or the deadline has passed, the solver opens the checkpoint
    /// after each run and the final one.
    function openEnds(uint256 id, TaskSpec calldata spec, Opening[] calldata openings, Opening calldata last)
        external
    {
        Task storage task = _tasks[id];
        if (task.status != Status.Sealing) revert WrongStatus(id, task.status);
        _checkHash(id, task, spec);
        if (msg.sender != task.solver) revert NotSolver(id, msg.sender);
        uint256 sealedSeats = _countSeats(id, SeatState.Sealed);
        // INVARIANT: no end is opened while a drawn verifier may still seal.
        if (sealedSeats == 0) revert SealNotOver(id);
        if (sealedSeats < _seats[id].length && block.timestamp <= task.deadline) revert SealNotOver(id);
        if (block.timestamp > uint256(task.deadline) + spec.auditWindow) revert TooLate(id, task.deadline);
        Run[] storage runs = _runs[id];
        if (openings.length != runs.length) revert WrongCount(openings.length, runs.length);
        bytes32[] memory roots = new bytes32[](runs.length);
        for (uint256 i = 0; i < runs.length; ++i) {
            uint32 first = runs[i].first;
            uint32 count = runs[i].count;
            roots[i] = _checkOpening(id, task, first + count, openings[i]);
            runs[i].endRoot = roots[i];
            for (uint32 j = 0; j < count; ++j) _opened[id][first + j] = true;
        }
        task.finalRoot = _checkOpening(id, task, task.logSize - 1, last);
        task.status = Status.Revealing;
        task.deadline = uint64(block.timestamp) + spec.auditWindow;
        emit EndsOpened(id, roots, task.finalRoot, task.deadline);
    }

    /// @notice A verifier reveals its digests: equal to the solver's, it attests; else it should
    /// open a dispute.
    function reveal(uint256 id, bytes32 nonce, bytes32[] calldata stateRoots) external {
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
        seat.state = equal ? SeatState.Attested : SeatState.Mismatched;
        emit Revealed(id, msg.sender, stateRoots, equal);
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

    function _solverIn(uint256 id, Status status, TaskSpec calldata spec)
        internal
        view
        returns (Task storage task)
    {
        task = _inStatus(id, status);
        _checkHash(id, task, spec);
        if (msg.sender != task.solver) revert NotSolver(id, msg.sender);
        if (block.timestamp > task.deadline) revert TooLate(id, task.deadline);
    }

    function _checkOpening(uint256 id, Task storage task, uint32 leaf, Opening calldata opening)
        private
        view
        returns (bytes32)
    {
        bytes32 hash = Merkle.leafHash64(opening.salt, opening.stateRoot);
        if (!Merkle.verifyInclusion(task.logRoot, task.logSize, leaf, hash, opening.proof)) {
            revert BadProof(id, "checkpoint");
        }
        return opening.stateRoot;
    }

    function _countSeats(uint256 id, SeatState state) internal view returns (uint256 count) {
        Seat[] storage seats = _seats[id];
        for (uint256 i = 0; i < seats.length; ++i) {
            if (seats[i].state == state) ++count;
        }
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
        address[] memory taken = new address[](committee);
        for (uint256 i = 0; i < committee; ++i) {
            address verifier = _drawVerifier(
                uint256(keccak256(abi.encode(random, "seat", i))),
                task.committedBlock,
                [task.solver, task.submitter],
                taken
            );
            if (verifier == address(0)) return false;
            taken[i] = verifier;
            _seats[id].push(Seat(verifier, SeatState.Drawn, bytes32(0)));
            emit SeatDrawn(id, verifier);
        }
        return true;
    }

    /// @dev Floyd's sampling without replacement, then a sort that merges adjacent segments.
    /// Segments opened in an earlier round do not count; false if none is left.
    function _drawRuns(uint256 id, TaskSpec calldata spec, uint256 round, uint256 random)
        private
        returns (bool)
    {
        uint256 n = segmentCount(spec);
        uint256 k = spec.samples + round;
        if (k > MAX_SAMPLES) k = MAX_SAMPLES;
        if (k > n) k = n;
        uint256[] memory drawn = new uint256[](k);
        for (uint256 i = 0; i < k; ++i) {
            uint256 upper = n - k + i;
            uint256 pick = uint256(keccak256(abi.encode(random, "segment", i))) % (upper + 1);
            for (uint256 j = 0; j < i; ++j) {
                if (drawn[j] == pick) pick = upper;
            }
            drawn[i] = pick;
        }
        for (uint256 i = 1; i < k; ++i) {
            uint256 key = drawn[i];
            uint256 j = i;
            for (; j > 0 && drawn[j - 1] > key; --j) drawn[j] = drawn[j - 1];
            drawn[j] = key;
        }
        Run[] storage runs = _runs[id];
        for (uint256 i = 0; i < k; ++i) {
            uint32 segment = uint32(drawn[i]);
            if (_opened[id][segment]) continue;
            uint256 m = runs.length;
            if (m > 0 && runs[m - 1].first + runs[m - 1].count == segment) ++runs[m - 1].count;
            else runs.push(Run(segment, 1, bytes32(0), bytes32(0)));
        }
        for (uint256 i = 0; i < runs.length; ++i) emit RunDrawn(id, i, runs[i].first, runs[i].count);
        return runs.length > 0;
    }
}
