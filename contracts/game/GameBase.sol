// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {IArbiter} from "../interfaces/IArbiter.sol";
import {Context, IReferee, NodeFacts} from "../interfaces/IReferee.sol";
import {Clock} from "../lib/Clock.sol";
import {Dispute, Level, Phase, Turn} from "./GameTypes.sol";

/// @title What all moves share: storage, turns and clocks, the verdict.
abstract contract GameBase {
    /// Phases in which the defendant moves, one bit each.
    uint256 private constant DEFENDANT_MOVES = (1 << uint256(Phase.Commit)) | (1 << uint256(Phase.Open))
        | (1 << uint256(Phase.RevealStep)) | (1 << uint256(Phase.RevealTensor)) | (1 << uint256(Phase.RevealNode))
        | (1 << uint256(Phase.RevealChunk)) | (1 << uint256(Phase.Lanes)) | (1 << uint256(Phase.Fold))
        | (1 << uint256(Phase.Values));

    /// Bits of a Turn's slot that hold its clocks: uint40 and twice uint32.
    uint256 private constant CLOCK_BITS = 104;

    IReferee public immutable REFEREE;
    /// Number of disputes created; their ids are 1 .. this.
    uint256 public disputeCount;
    mapping(uint256 id => Dispute) internal _disputes;

    event DisputeCreated(
        uint256 indexed id,
        address indexed defendant,
        address indexed challenger,
        address arbiter,
        uint32 defendantClock,
        uint32 challengerClock,
        Context context
    );
    event StepsCommitted(uint256 indexed id, bytes32 logRoot, bytes32[] children);
    event Pointed(uint256 indexed id, uint32 index, bytes32 child);
    event Opened(uint256 indexed id, bytes32[] children);
    event StepRevealed(uint256 indexed id, bytes32 stateAfter, bytes32 stateBefore, bytes32[] children);
    event TensorRevealed(uint256 indexed id, bytes32 tensorRoot, bytes32 traceRoot, bytes32[] children);
    event NodePointed(uint256 indexed id, uint32 index, bytes32 child, NodeFacts facts);
    event NodeRevealed(uint256 indexed id, bytes32 tensorRoot, bytes32[] children);
    event ChunkRevealed(uint256 indexed id, bytes chunk);
    event ElementPointed(uint256 indexed id, uint32 offset, uint32 value);
    event LanesOpened(uint256 indexed id, bytes lanes);
    event LanePointed(uint256 indexed id, uint8 lane);
    event FoldOpened(uint256 indexed id, uint32 item, bytes accumulators);
    event FoldPointed(uint256 indexed id, uint32 index, uint32 accBefore, uint32 accAfter);
    event ValuesPosted(uint256 indexed id, bytes values);
    /// The end. `timedOut` tells whether a clock or a proof decided.
    event DisputeFinished(uint256 indexed id, bool convicted, bool timedOut);

    error InvalidContext(Context context);
    error InvalidParties(address defendant, address challenger);
    error InvalidClocks(uint32 defendantClock, uint32 challengerClock);
    error WrongPhase(uint256 id, Phase actual, Phase expected);
    error NotYourTurn(address sender, address toMove);
    error StaleMove(bytes32 answers, bytes32 position);
    error WrongContext(bytes32 given, bytes32 expected);
    /// Context and node of a proof are not those of the dispute.
    error WrongNode(bytes32 given, bytes32 expected);
    error WrongChildCount(uint256 given, uint256 expected);
    error WrongChildren(bytes32 combined, bytes32 expected);
    error WrongChild(uint32 index, bytes32 child);
    error WrongLeaf(bytes32 leaf, bytes32 expected);
    error WrongStateBefore(bytes32 given, bytes32 expected);
    error WrongInclusion(bytes32 root, uint256 size, uint256 index);
    error WrongLength(uint256 given, uint256 expected);
    error WrongPreimage(bytes32 given, bytes32 expected);
    error WrongResult(uint32 given, uint32 expected);
    error EmptyLaneNotZero();
    error IndexOutOfRange(uint256 index, uint256 size);
    /// A node of the trace is pointed at by `pointNode`, everything else by `point`.
    error WrongPointer(Level level, uint256 leaves);
    error NodeTooLarge(uint64 numel, uint64 terms);
    error ProofRejected(uint8 kind, uint8 index);
    error NotLive(uint256 id, Phase phase);

    constructor(IReferee referee) {
        REFEREE = referee;
    }

    /// @notice Anyone: end a dispute whose party to move has let its clock run out.
    function timeout(uint256 id) external {
        Dispute storage dispute = _disputes[id];
        Turn memory turn = dispute.turn;
        if (!_isLive(turn.phase)) revert NotLive(id, turn.phase);
        bool defendantsTurn = _isDefendantsTurn(turn.phase);
        Clock.requireExpired(defendantsTurn ? turn.defendantClock : turn.challengerClock, turn.movedAt);
        _finish(id, dispute, turn, defendantsTurn, true);
    }

    /// @notice All that is stored about a dispute; phase None if there is no such dispute.
    function getDispute(uint256 id) external view returns (Dispute memory) {
        return _disputes[id];
    }

    /// @notice What the next move of a dispute must give as `answers`.
    function position(uint256 id) external view returns (bytes32) {
        return _position(_disputes[id]);
    }

    /// @notice Whether the dispute is neither finished nor unknown and its party to move is too late.
    function isExpired(uint256 id) external view returns (bool) {
        Turn memory turn = _disputes[id].turn;
        uint32 clock = _isDefendantsTurn(turn.phase) ? turn.defendantClock : turn.challengerClock;
        return _isLive(turn.phase) && Clock.elapsed(turn.movedAt) > clock;
    }

    /// @dev Every move but `timeout` begins here. What it changes in `turn` is written by the caller.
    function _enter(uint256 id, bytes32 answers, Phase phase)
        internal
        view
        returns (Dispute storage dispute, Turn memory turn, bytes32 claim)
    {
        dispute = _disputes[id];
        turn = dispute.turn;
        claim = dispute.claim;
        if (turn.phase != phase) revert WrongPhase(id, turn.phase, phase);
        bool defendantsTurn = _isDefendantsTurn(phase);
        address toMove = defendantsTurn ? dispute.defendant : dispute.challenger;
        if (msg.sender != toMove) revert NotYourTurn(msg.sender, toMove);
        // INVARIANT: a move answers exactly the position that its author saw.
        bytes32 current = _position(dispute);
        if (answers != current) revert StaleMove(answers, current);
        // INVARIANT: only the party to move is charged.
        if (defendantsTurn) turn.defendantClock = Clock.charge(turn.defendantClock, turn.movedAt);
        else turn.challengerClock = Clock.charge(turn.challengerClock, turn.movedAt);
        turn.movedAt = uint40(block.timestamp);
        turn.moves++;
    }

    function _isLive(Phase phase) internal pure returns (bool) {
        return phase != Phase.None && phase < Phase.Convicted;
    }

    function _isDefendantsTurn(Phase phase) internal pure returns (bool) {
        return (DEFENDANT_MOVES >> uint256(phase)) & 1 == 1;
    }

    /// @dev keccak256 of the claim and of all fields of the turn above the three of the clocks.
    function _position(Dispute storage dispute) internal view returns (bytes32 digest) {
        assembly ("memory-safe") {
            mstore(0, sload(add(dispute.slot, 1)))
            mstore(32, shr(CLOCK_BITS, sload(dispute.slot)))
            digest := keccak256(0, 64)
        }
    }

    function _checkLength(uint256 given, uint256 expected) internal pure {
        if (given != expected) revert WrongLength(given, expected);
    }

    function _checkIndex(uint256 index, uint256 size) internal pure {
        if (index >= size) revert IndexOutOfRange(index, size);
    }

    function _checkPreimage(bytes calldata data, bytes32 claim) internal pure {
        bytes32 given = keccak256(data);
        if (given != claim) revert WrongPreimage(given, claim);
    }

    function _checkResult(uint32 given, uint32 expected) internal pure {
        if (given != expected) revert WrongResult(given, expected);
    }

    /// @dev The verdict is recorded before the call, so it comes once; a call that fails (for lack of gas,
    /// say) takes the record back with it, so no verdict is lost.
    function _finish(uint256 id, Dispute storage dispute, Turn memory turn, bool convicted, bool timedOut) internal {
        turn.phase = convicted ? Phase.Convicted : Phase.Acquitted;
        dispute.turn = turn;
        emit DisputeFinished(id, convicted, timedOut);
        address arbiter = dispute.arbiter;
        if (arbiter.code.length > 0) IArbiter(arbiter).onVerdict(id, convicted);
    }
}
