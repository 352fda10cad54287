// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {IArbiter} from "../interfaces/IArbiter.sol";
import {Context, IReferee} from "../interfaces/IReferee.sol";
import {Clock} from "../lib/Clock.sol";
import {History, Level, Phase, State} from "./GameTypes.sol";

/// @title What all moves share: the stored hash, turns and clocks, the verdict.
abstract contract GameBase {
    /// Phases in which the defendant moves, one bit each.
    uint256 private constant DEFENDANT_MOVES = (1 << uint256(Phase.CommitSteps)) | (1 << uint256(Phase.CommitTrace))
        | (1 << uint256(Phase.Open)) | (1 << uint256(Phase.Reveal)) | (1 << uint256(Phase.Show))
        | (1 << uint256(Phase.RevealChunk)) | (1 << uint256(Phase.Lanes)) | (1 << uint256(Phase.Fold))
        | (1 << uint256(Phase.Values));

    IReferee public immutable REFEREE;
    /// Ids are 1, 2, 3 .. below this.
    uint256 internal _nextId = 1;
    /// Hash of the state of each dispute that is neither finished nor unknown: all that is stored about it.
    mapping(uint256 id => bytes32) public stateHash;

    // `turn` and `element` are words of the state after the move (`StateFields`).
    event DisputeCreated(
        uint256 indexed id,
        address indexed defendant,
        address indexed challenger,
        address arbiter,
        uint256 turn,
        Context context
    );
    event StepsCommitted(uint256 indexed id, uint256 turn, bytes32[] children);
    event TraceCommitted(uint256 indexed id, uint256 turn, bytes32[] children);
    event Pointed(uint256 indexed id, uint256 turn, uint32 index);
    event Opened(uint256 indexed id, uint256 turn, bytes32[] children);
    event EndDoubted(uint256 indexed id, uint256 turn);
    event StateDoubted(uint256 indexed id, uint256 turn);
    event Revealed(uint256 indexed id, uint256 turn, bytes32[] children);
    event NodePointed(uint256 indexed id, uint256 turn, uint256 element, bytes32 nodeHash);
    event ChunkRevealed(uint256 indexed id, uint256 turn, bytes chunk);
    event ElementPointed(uint256 indexed id, uint256 turn, uint32 offset);
    event LanesOpened(uint256 indexed id, uint256 turn, bytes lanes);
    event LanePointed(uint256 indexed id, uint256 turn, uint8 lane);
    event FoldOpened(uint256 indexed id, uint256 turn, uint32 identity, bytes accumulators);
    event FoldPointed(uint256 indexed id, uint256 turn, uint32 index);
    event ValuesPosted(uint256 indexed id, uint256 turn, bytes values);
    /// The end. `timedOut` tells whether a clock or a proof decided.
    event DisputeFinished(uint256 indexed id, bool convicted, bool timedOut);

    error InvalidContext(Context context);
    error InvalidParties(address defendant, address challenger);
    error InvalidClocks(uint32 defendantClock, uint32 challengerClock);
    error WrongPhase(uint256 id, Phase actual, Phase expected);
    error NotYourTurn(address sender, address toMove);
    /// The state that a move answers is not the dispute's.
    error StaleMove(bytes32 answers, bytes32 current);
    error WrongContext(bytes32 given, bytes32 expected);
    /// Program and history are not those of the dispute.
    error WrongPast(bytes32 given, bytes32 expected);
    error WrongChildCount(uint256 given, uint256 expected);
    error WrongChildren(bytes32 combined, bytes32 expected);
    error WrongChild(uint32 index, bytes32 child);
    error WrongLeaf(bytes32 leaf, bytes32 expected);
    error WrongInclusion(bytes32 root, uint256 size, uint256 index);
    error WrongLength(uint256 given, uint256 expected);
    error WrongPreimage(bytes32 given, bytes32 expected);
    /// The shown words are not those of the posted ones that hold this index.
    error WrongWords(uint256 index, bytes32 root);
    error WrongResult(uint32 given, uint32 expected);
    error EmptyLaneNotZero();
    error IndexOutOfRange(uint256 index, uint256 size);
    /// A node of the trace is pointed at by `pointNode`, all else by `point`; a doubt has its own level.
    error WrongPointer(Level level, uint256 leaves);
    error ProofRejected(uint8 kind, uint8 index);
    /// The dispute is finished or was never created.
    error NotLive(uint256 id);

    constructor(IReferee referee) {
        REFEREE = referee;
    }

    /// @notice The number of disputes created; their ids are 1 .. this.
    function disputeCount() external view returns (uint256) {
        return _nextId - 1;
    }

    /// @notice Anyone: end a dispute whose party to move has let its clock run out.
    function timeout(uint256 id, State memory state, bytes32 program, History calldata history) external {
        _check(id, state);
        _checkPast(state, program, history);
        bool defendantsTurn = _isDefendantsTurn(state.phase());
        Clock.requireExpired(defendantsTurn ? state.defendantClock() : state.challengerClock(), state.movedAt());
        _finish(id, history.arbiter, defendantsTurn, true);
    }

    /// @dev What a move or a timeout answers must be all that is in dispute.
    function _check(uint256 id, State memory state) private view {
        bytes32 current = stateHash[id];
        if (current == 0) revert NotLive(id);
        // INVARIANT: a move answers exactly the state that its author saw.
        bytes32 given = state.hash();
        if (given != current) revert StaleMove(given, current);
    }

    /// @dev Every move but `timeout` begins here, and ends in `_store` or `_finish`.
    function _enter(uint256 id, State memory state, Phase phase) internal view {
        _check(id, state);
        if (!state.isPhase(phase)) revert WrongPhase(id, state.phase(), phase);
        bool defendantsTurn = _isDefendantsTurn(phase);
        address toMove = defendantsTurn ? state.defendant() : state.challenger();
        if (msg.sender != toMove) revert NotYourTurn(msg.sender, toMove);
        // INVARIANT: only the party to move is charged.
        uint32 left = Clock.charge(defendantsTurn ? state.defendantClock() : state.challengerClock(), state.movedAt());
        state.countMove(defendantsTurn, left);
    }

    function _store(uint256 id, State memory state) internal returns (uint256 turn) {
        stateHash[id] = state.hash();
        return state.turn;
    }

    function _isDefendantsTurn(Phase phase) private pure returns (bool) {
        return (DEFENDANT_MOVES >> uint256(phase)) & 1 == 1;
    }

    /// @dev `program` is the program's root, from pointNode on the keccak256 of the disputed node.
    function _past(bytes32 program, History memory history) internal pure returns (bytes32) {
        return _pair(program, keccak256(abi.encode(history)));
    }

    /// @return hash keccak256 of two words.
    function _pair(bytes32 a, bytes32 b) internal pure returns (bytes32 hash) {
        assembly ("memory-safe") {
            mstore(0, a)
            mstore(32, b)
            hash := keccak256(0, 64)
        }
    }

    function _checkPast(State memory state, bytes32 program, History memory history) internal pure {
        bytes32 given = _past(program, history);
        if (given != state.past) revert WrongPast(given, state.past);
    }

    function _checkLength(uint256 given, uint256 expected) internal pure {
        if (given != expected) revert WrongLength(given, expected);
    }

    function _checkIndex(uint256 index, uint256 size) internal pure {
        if (index >= size) revert IndexOutOfRange(index, size);
    }

    function _checkResult(uint32 given, uint32 expected) internal pure {
        if (given != expected) revert WrongResult(given, expected);
    }

    /// @dev The verdict is recorded before the call, so it comes once; a call that fails (for lack of gas,
    /// say) takes the record back with it, so no verdict is lost.
    function _finish(uint256 id, address arbiter, bool convicted, bool timedOut) internal {
        delete stateHash[id];
        emit DisputeFinished(id, convicted, timedOut);
        if (arbiter.code.length > 0) IArbiter(arbiter).onVerdict(id, convicted);
    }
}
