// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {IDisputeGame} from "../interfaces/IDisputeGame.sol";
import {Context} from "../interfaces/IReferee.sol";
import {Run, Seat, SeatState, Status, Task, TaskSpec} from "./MarketTypes.sol";
import {VerifierPool} from "./VerifierPool.sol";

/// @title What all parts of the market share: its storage, events, and the ends of tasks
/// @notice `Market` and `Remedies` both inherit this, and nothing else declares storage, so that
/// `Remedies` can run on the market's storage.
abstract contract MarketBase is VerifierPool {
    /// @dev A dispute whose verdict has not come yet; deleted by it.
    struct Dispute {
        uint64 task;
        address challenger;
        bool drawn; // opened by a drawn verifier whose digest differed
        uint96 bond;
    }

    /// @dev Who gets the reward for a conviction, once no dispute is open that could change it.
    struct Claim {
        address challenger;
        uint64 rank; // the lower one wins
    }

    error WrongSpec(uint256 id, bytes32 expected, bytes32 given);
    error WrongStatus(uint256 id, Status status);
    error TooEarly(uint256 id, uint256 deadline);
    error TooLate(uint256 id, uint256 deadline);
    error NotGame(address sender);
    error UnknownDispute(uint256 disputeId);
    error UnknownRun(uint256 id, uint256 run);
    error SolverMayNotChallenge(uint256 id);
    error DisputesOpen(uint256 id, uint256 count);
    error TooManyDisputes(uint256 id);
    error NotAttested(uint256 id);
    error AlreadyAttested(uint256 id);
    error NoDefault(uint256 id);

    event LogCompleted(uint256 indexed id, bytes32 root, uint256 drawBlock);
    event DisputeOpened(
        uint256 indexed id, uint256 indexed disputeId, address indexed challenger, uint256 run, Context context
    );
    event DisputeEnded(uint256 indexed id, uint256 indexed disputeId, bool convicted);
    event SolverSlashed(uint256 indexed id, address indexed solver, uint256 amount, bytes32 reason);
    event VerifierSlashed(uint256 indexed id, address indexed verifier, uint256 amount);
    event TaskEnded(uint256 indexed id, Status status, bytes32 reason);

    uint256 internal constant MAX_ROUNDS = 3;
    /// @notice Blocks between the final log root and the block whose hash seeds the draw.
    uint256 internal constant DRAW_DELAY = 1;
    /// @dev Blocks for which the chain keeps a block's hash.
    uint256 internal constant HASH_BLOCKS = 256;

    IDisputeGame public immutable GAME;
    uint256 public taskCount;
    mapping(uint256 id => Task task) internal _tasks;
    mapping(uint256 id => Run[] runs) internal _runs;
    mapping(uint256 id => Seat[] seats) internal _seats;
    /// @dev Segments whose end was opened in an earlier round can never be audited as sealed again.
    mapping(uint256 id => mapping(uint256 segment => bool)) internal _opened;
    mapping(uint256 disputeId => Dispute dispute) public disputes;
    mapping(uint256 id => Claim claim) internal _claims;

    constructor(IDisputeGame game, uint256 verifierStake) VerifierPool(verifierStake) {
        GAME = game;
    }

    function _inStatus(uint256 id, Status status) internal view returns (Task storage task) {
        task = _tasks[id];
        if (task.status != status) revert WrongStatus(id, task.status);
    }

    /// @dev All fields of a spec are static: its calldata is `abi.encode(spec)`.
    function _hash(TaskSpec calldata spec) internal pure returns (bytes32 hash) {
        assembly ("memory-safe") {
            let copy := mload(0x40)
            calldatacopy(copy, spec, 672)
            hash := keccak256(copy, 672)
        }
    }

    function _checkHash(uint256 id, Task storage task, TaskSpec calldata spec) internal view {
        bytes32 given = _hash(spec);
        if (given != task.specHash) revert WrongSpec(id, task.specHash, given);
    }

    /// @dev The draw's seed is the hash of a later block than the one that fixed what is drawn.
    function _awaitDraw(uint256 id, Task storage task) internal {
        task.status = Status.Committed;
        task.drawBlock = uint64(block.number + DRAW_DELAY);
        emit LogCompleted(id, task.logRoot, task.drawBlock);
    }

    /// @dev Ends a task for nobody's fault: all stakes and the whole escrow go back.
    function _expire(uint256 id, Task storage task, bytes32 reason) internal {
        _endSeats(id, false);
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

    function _countSeats(uint256 id, SeatState state) internal view returns (uint256 count) {
        Seat[] storage seats = _seats[id];
        for (uint256 i = 0; i < seats.length; ++i) {
            if (seats[i].state == state) ++count;
        }
    }

    /// @dev True when every drawn verifier has sealed, left, or may do so no more.
    function _sealingOver(uint256 id, Task storage task) internal view returns (bool) {
        return block.timestamp > task.deadline || _countSeats(id, SeatState.Drawn) == 0;
    }

    /// @dev True if the round's audit counts for nothing: nobody attested, or most of the drawn could not
    /// get what they needed.
    function _isLacking(uint256 id) internal view returns (bool) {
        if (_countSeats(id, SeatState.Attested) == 0) return true;
        return 2 * _countSeats(id, SeatState.Unavailable) > _seats[id].length;
    }

    function _closedWindow(uint256 id, TaskSpec calldata spec) internal view returns (Task storage task) {
        task = _inStatus(id, Status.Window);
        _checkHash(id, task, spec);
        if (block.timestamp <= task.deadline) revert TooEarly(id, task.deadline);
        if (task.openDisputes != 0) revert DisputesOpen(id, task.openDisputes);
    }

    /// @dev Ends the seats of an audit that nobody cut short: who attested gets `fee`, who sealed nothing,
    /// did not reveal, or stands alone with its digest loses its stake.
    /// @return paid fees in all
    function _closeRound(uint256 id, uint256 fee) internal returns (uint256 paid) {
        Seat[] storage seats = _seats[id];
        for (uint256 i = 0; i < seats.length; ++i) {
            if (seats[i].state == SeatState.Attested) {
                paid += fee;
                _credit(seats[i].verifier, fee, "verified");
                _returnSlot(seats[i].verifier);
            } else if (seats[i].state != SeatState.Unavailable) {
                _slashSeat(id, seats[i].verifier);
            }
        }
    }

    /// @dev Ends the seats of a task whose audit is cut short. Convicting a solver never slashes those
    /// who attested; who did not seal in time loses its stake.
    function _endSeats(uint256 id, bool sealingOver) internal {
        Seat[] storage seats = _seats[id];
        for (uint256 i = 0; i < seats.length; ++i) {
            if (seats[i].state == SeatState.Unavailable) continue;
            if (seats[i].state == SeatState.Drawn && sealingOver) _slashSeat(id, seats[i].verifier);
            else _returnSlot(seats[i].verifier);
        }
    }

    function _slashSeat(uint256 id, address verifier) internal {
        _burn(VERIFIER_STAKE, "verifier");
        emit VerifierSlashed(id, verifier, VERIFIER_STAKE);
    }
}
