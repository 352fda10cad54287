// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {IDisputeGame} from "../interfaces/IDisputeGame.sol";
import {IERC20} from "../interfaces/IERC20.sol";
import {Merkle} from "../lib/Merkle.sol";
import {MarketEvents} from "./MarketEvents.sol";
import {Opening, Run, Seat, SeatState, Status, Task, TaskSpec} from "./MarketTypes.sol";
import {Vault} from "./Vault.sol";
import {VerifierPool} from "./VerifierPool.sol";

/// @title What all parts of the market share: its storage, its checks, and the ends of tasks
/// @notice `Market`, `Remedies` and `Registry` inherit this, and nothing else declares storage, so that
/// the latter two can run on the market's storage.
abstract contract MarketBase is VerifierPool, MarketEvents {
    /// @notice What is known of a solver, and its standing ask.
    struct Record {
        uint32 settled; // tasks
        uint32 defaulted; // tasks in which it was convicted or late
        uint40 slashedAt; // time of the last of them
        uint16 capacity; // tasks that the ask may still win
        uint24 memoryMiB; // no task that needs more
        uint64 askPrice; // for each unit of work
        uint48 maxStake; // no task that locks more; in units of 10**9
    }

    /// @dev A dispute whose verdict has not come yet; deleted by it.
    struct Dispute {
        uint64 task;
        address challenger;
        uint8 seat; // of the attestor that defends, NO_SEAT for the solver
        uint8 ownSeat; // of the challenger, NO_SEAT if it was not drawn
        uint96 bond;
        uint64 rank;
    }

    /// @dev A challenge whose target is not known yet.
    struct SealedChallenge {
        bytes32 digest;
        uint96 bond;
        uint64 rank;
        uint40 sealedBlock;
        uint40 sealedAt; // time of that block
        bool accuses; // an attestor, not the solver
    }

    /// @dev Who gets the reward for a conviction, once nothing is open that could change it.
    struct Claim {
        address challenger;
        uint64 rank; // the lower one wins
    }

    /// @dev A chunk that the solver must post.
    struct Demand {
        uint64 task;
        address asker;
        uint32 leaf; // of the checkpoint log
        uint32 tensor; // of that state
        uint32 chunk; // of that tensor
        uint32 numel; // of that tensor
        uint40 deadline;
        uint96 price;
    }

    /// @notice Attestations without which nothing settles.
    uint256 internal constant QUORUM = 2;
    /// @notice Draws of one audit: the first, and what follows missed and failed ones.
    uint256 internal constant MAX_ROUNDS = 3;
    uint256 internal constant MAX_SAMPLES = 16;
    /// @notice Blocks between what fixes the subject of a draw and the block whose hash seeds it.
    uint256 internal constant DRAW_DELAY = 1;
    /// @dev Blocks for which the chain keeps a block's hash.
    uint256 internal constant HASH_BLOCKS = 256;
    /// @notice Seconds for which a slashed solver may not bid.
    uint256 internal constant QUARANTINE = 30 days;
    /// @dev Instead of the number of a seat.
    uint8 internal constant NO_SEAT = 255;

    IDisputeGame public immutable GAME;
    uint256 public taskCount;
    mapping(uint256 id => Task task) internal _tasks;
    mapping(uint256 id => mapping(address bidder => bytes32 digest)) public sealedBids;
    mapping(address solver => Record record) public recordOf;
    /// @dev Packed, four in a slot: see `_runAt`.
    mapping(uint256 id => uint64[128] runs) internal _runs;
    /// @notice What a draw that found too few verifiers with a free stake is made again from; else zero.
    /// @dev INVARIANT: who keeps others busy gets no second choice of a committee by that.
    mapping(uint256 id => uint256 random) public drawSeeds;
    mapping(uint256 id => mapping(uint256 seat => Seat)) internal _seats;
    mapping(uint256 id => mapping(uint256 seat => bytes32 digest)) internal _seals;
    /// @dev Segments of runs whose ends were opened: they can never be audited as sealed again.
    mapping(uint256 id => mapping(uint256 segment => bool)) internal _audited;
    mapping(uint256 id => mapping(address challenger => SealedChallenge)) public sealedChallenges;
    mapping(uint256 disputeId => Dispute dispute) public disputes;
    mapping(uint256 id => Claim claim) internal _claims;
    uint64 internal _ranks;
    /// @dev Ranks that were given before the attestor in a seat was convicted.
    mapping(uint256 id => mapping(uint256 seat => uint64 ranks)) internal _convictedAt;
    uint256 public demandCount;
    mapping(uint256 demandId => Demand demand) public demands;

    constructor(IDisputeGame game, IERC20 token, uint256 verifierStake) Vault(token) VerifierPool(verifierStake) {
        GAME = game;
    }

    // Digests ----------------------------------------------------------------------------------------

    /// @notice What a bidder seals: its price bound to chain, contract, task and sender.
    function bidDigest(uint256 id, address bidder, uint256 price, bytes32 nonce) public view returns (bytes32) {
        return keccak256(abi.encode("bid", block.chainid, address(this), id, bidder, price, nonce));
    }

    /// @notice What a challenger seals: its target bound to chain, contract, task and sender.
    function challengeDigest(
        uint256 id,
        address challenger,
        uint32 first,
        uint32 count,
        uint8 attestor,
        bytes32 nonce
    ) public view returns (bytes32) {
        return keccak256(
            abi.encode("challenge", block.chainid, address(this), id, challenger, first, count, attestor, nonce)
        );
    }

    // Terms ------------------------------------------------------------------------------------------

    /// @dev All fields of a spec are static: its calldata is `abi.encode(spec)`.
    function _hash(TaskSpec calldata spec) internal pure returns (bytes32 hash) {
        assembly ("memory-safe") {
            let copy := mload(0x40)
            calldatacopy(copy, spec, 928)
            hash := keccak256(copy, 928)
        }
    }

    /// @dev The task, if these are its terms.
    function _taskOf(uint256 id, TaskSpec calldata spec) internal view returns (Task storage task) {
        task = _tasks[id];
        bytes32 given = _hash(spec);
        if (given != task.specHash) revert WrongSpec(id, task.specHash, given);
    }

    function _taskIn(uint256 id, TaskSpec calldata spec, Status status) internal view returns (Task storage task) {
        task = _taskOf(id, spec);
        if (task.status != status) revert WrongStatus(id, task.status);
    }

    /// @notice Segments that a spec cuts the training into.
    function segmentCount(TaskSpec calldata spec) public pure returns (uint32) {
        return uint32((spec.steps + spec.segmentSteps - 1) / spec.segmentSteps);
    }

    /// @notice What a submitter escrows: the budget, and a fee for every verifier that may attest, those
    /// of redraws and second audits included. What is not spent comes back.
    function escrowOf(TaskSpec calldata spec) public pure returns (uint256) {
        uint256 windows = (uint256(segmentCount(spec)) + spec.windowSegments - 1) / spec.windowSegments;
        uint256 audits = spec.secondAudit == 0 ? 1 : 2;
        return spec.budget + windows * audits * spec.committee * MAX_ROUNDS * spec.verifierFee;
    }

    function _requireEarly(uint256 id, uint256 deadline) internal view {
        if (block.timestamp > deadline) revert TooLate(id, deadline);
    }

    function _requireOver(uint256 id, uint256 deadline) internal view {
        if (block.timestamp <= deadline) revert TooEarly(id, deadline);
    }

    /// @dev The opened state root of leaf `leaf` of the log.
    function _checkOpening(uint256 id, Task storage task, uint256 leaf, Opening calldata opening)
        internal
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

    // Bidding ----------------------------------------------------------------------------------------

    function _checkEligible(address solver) internal view {
        uint256 slashedAt = recordOf[solver].slashedAt;
        if (slashedAt != 0 && block.timestamp < slashedAt + QUARANTINE) {
            revert RecentlySlashed(solver, slashedAt + QUARANTINE);
        }
    }

    /// @dev Lets an ask win one more task again, if it was not withdrawn meanwhile. Its owner may also have set
    /// it to the most there is, which must not stop whoever calls.
    function _returnAsk(address solver) internal {
        Record storage record = recordOf[solver];
        if (record.maxStake != 0 && record.capacity < type(uint16).max) ++record.capacity;
    }

    /// @dev The solver has lost: to a dispute, or by missing a deadline. The stake is shared out later.
    function _convict(Task storage task) internal {
        if (task.status == Status.Convicted) return;
        task.status = Status.Convicted;
        Record storage record = recordOf[task.solver];
        ++record.defaulted;
        record.slashedAt = uint40(block.timestamp);
    }

    /// @dev Until then bids may be revealed.
    function _revealEnd(Task storage task, TaskSpec calldata spec) internal view returns (uint256) {
        return uint256(task.deadline) + spec.bidWindow;
    }

    /// @dev The leading bidder trains. Its time runs from the end of the bidding, whoever says so when.
    function _assign(uint256 id, Task storage task, TaskSpec calldata spec) internal {
        uint256 end = _revealEnd(task, spec);
        _requireOver(id, end);
        _startTraining(id, task, end + spec.trainWindow);
    }

    function _startTraining(uint256 id, Task storage task, uint256 deadline) internal {
        task.status = Status.Training;
        task.deadline = uint40(deadline);
        emit Assigned(id, task.solver, task.price, task.deadline);
    }

    // The audit --------------------------------------------------------------------------------------

    /// @dev The draw's seed is the hash of a later block than the one that fixed what is drawn.
    function _awaitDraw(uint256 id, Task storage task, uint256 deadline) internal {
        task.status = Status.Committed;
        task.deadline = uint40(deadline);
        task.drawBlock = uint32(block.number + DRAW_DELAY);
        emit LogCompleted(id, task.logRoot, task.drawBlock);
    }

    function _openWindow(uint256 id, Task storage task, uint32 challengeWindow) internal {
        task.status = Status.Window;
        if (task.demands != 0) task.demands = 0;
        task.deadline = uint40(block.timestamp) + challengeWindow;
        emit WindowOpened(id, task.deadline);
    }

    function _runAt(uint256 id, uint256 index) internal view returns (Run memory) {
        uint64 packed = _runs[id][index];
        return Run(uint32(packed), uint8(packed >> 32), uint8(packed >> 40));
    }

    /// @dev Seats of the current round in a state.
    function _countSeats(uint256 id, Task storage task, SeatState state) internal view returns (uint256 count) {
        (uint256 seats, uint256 round) = (task.seats, task.round);
        for (uint256 i = 0; i < seats; ++i) {
            Seat storage seat = _seats[id][i];
            if (seat.state == state && seat.round == round) ++count;
        }
    }

    /// @dev True when every drawn verifier has sealed, left, or may do so no more.
    function _sealingOver(uint256 id, Task storage task) internal view returns (bool) {
        return block.timestamp > task.deadline || _countSeats(id, task, SeatState.Drawn) == 0;
    }

    /// @dev True if the round's audit counts for nothing: too few attested, or so many could not get what they
    /// needed that the solver may have chosen who audits it by whom it serves.
    function _isLacking(uint256 id, Task storage task) internal view returns (bool) {
        (uint256 seats, uint256 round) = (task.seats, task.round);
        uint256 attested = 0;
        uint256 unavailable = 0;
        for (uint256 i = 0; i < seats; ++i) {
            Seat memory seat = _seats[id][i];
            if (seat.round != round) continue;
            if (seat.state == SeatState.Attested) ++attested;
            else if (seat.state == SeatState.Unavailable) ++unavailable;
        }
        return attested < QUORUM || 2 * unavailable >= attested;
    }

    /// @dev True if the terms have second audits and none was drawn yet, or drawn not to be.
    function _owesSecond(Task storage task, TaskSpec calldata spec) internal view returns (bool) {
        return spec.secondAudit != 0 && task.agreed == 0;
    }

    function _closedWindow(uint256 id, TaskSpec calldata spec) internal view returns (Task storage task) {
        task = _taskIn(id, spec, Status.Window);
        _requireOver(id, task.deadline);
        _requireNothingOpen(id, task);
    }

    function _requireNothingOpen(uint256 id, Task storage task) internal view {
        if (task.open != 0) revert StillOpen(id, task.open);
    }

    /// @dev The sender's seat in the current progress window.
    function _seatOf(uint256 id, Task storage task, uint256 index) internal view returns (Seat storage seat) {
        seat = _seats[id][index];
        if (index >= task.seats || seat.verifier != msg.sender) revert NotDrawn(id, msg.sender);
    }

    // Ends -------------------------------------------------------------------------------------------

    /// @dev Burns the stakes of seats of the current round whose verifiers did not do their part: did not
    /// seal (if `reveals` is false), did not reveal or stand alone with their digests (if it is true).
    function _slashIdle(uint256 id, Task storage task, bool reveals) internal {
        (uint256 seats, uint256 round) = (task.seats, task.round);
        for (uint256 i = 0; i < seats; ++i) {
            Seat storage seat = _seats[id][i];
            if (seat.round != round) continue;
            SeatState state = seat.state;
            if (
                reveals
                    ? state == SeatState.Sealed || state == SeatState.Mismatched || state == SeatState.Disputing
                    : state == SeatState.Drawn
            ) _slashSeat(id, seat, 0);
        }
    }

    /// @dev Takes a seat's stake: all burns but the `reward`, which the caller has credited.
    function _slashSeat(uint256 id, Seat storage seat, uint256 reward) internal {
        seat.state = SeatState.Slashed;
        ++verifierOf[seat.verifier].lost;
        _burn(VERIFIER_STAKE - reward, "verifier");
        emit VerifierSlashed(id, seat.verifier, VERIFIER_STAKE);
    }

    /// @dev Frees the stakes of all seats of the progress window that still have one, and pays `fee` to
    /// those that did their part: who attested, or who objected if a dispute has convicted the solver; and
    /// who sealed and was never shown an end.
    /// @return paid fees in all
    function _closeSeats(uint256 id, Task storage task, uint256 fee, bool convicted)
        internal
        returns (uint256 paid)
    {
        uint256 seats = task.seats;
        for (uint256 i = 0; i < seats; ++i) {
            Seat storage seat = _seats[id][i];
            SeatState state = seat.state;
            if (state >= SeatState.Unavailable) continue;
            _returnSlot(seat.verifier);
            bool right = state == SeatState.Attested;
            if (convicted) right = state == SeatState.Mismatched || state == SeatState.Disputing;
            if (right || state == SeatState.Sealed) {
                paid += fee;
                _credit(seat.verifier, fee, "verified");
            }
        }
    }

    /// @dev Ends a task for nobody's fault: all stakes and what is left of the escrow go back.
    function _expire(uint256 id, Task storage task, TaskSpec calldata spec, bytes32 reason) internal {
        _closeSeats(id, task, 0, false);
        task.status = Status.Expired;
        _credit(spec.submitter, escrowOf(spec) - task.paid, "refund");
        address solver = task.solver;
        if (solver != address(0)) {
            _credit(solver, spec.solverStake, "stake");
            _credit(solver, task.forfeited, "lost bonds");
            task.forfeited = 0;
        }
        emit TaskEnded(id, Status.Expired, reason);
    }
}
