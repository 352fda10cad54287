// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

/// @notice Terms of a task. Posted in full as an event; the contract keeps only its hash.
struct TaskSpec {
    bytes32 programRoot;
    bytes32 constRoot;
    bytes32 dataRoot;
    bytes32 seed; // of SAMPLE and RAND
    bytes32 initialRoot; // state root before step 0
    uint32 nNodes;
    uint32 nState;
    uint32 nConst;
    uint32 nData;
    uint64 steps; // training steps in all
    uint32 segmentSteps; // steps between two checkpoints; the last segment may be shorter
    uint8 committee; // verifiers drawn, 1 .. MAX_COMMITTEE
    uint8 samples; // segments drawn, 1 .. MAX_SAMPLES
    uint128 solverStake; // wei, locked by the best bidder
    uint128 verifierFee; // wei, paid to each verifier that attests
    uint128 bond; // wei, locked by whoever opens a dispute
    uint32 bidWindow; // seconds, like all windows
    uint32 trainWindow;
    uint32 auditWindow; // for each phase of the audit
    uint32 challengeWindow;
    uint32 disputeClock; // chess clock of each party in a dispute
}

/// @notice Where a task stands. Every status has a deadline and a call that anybody may make
/// after it; the three last ones are final.
enum Status {
    None,
    Bidding, // solvers bid; then assign
    Training, // the solver appends to its checkpoint log; then defaulted
    Committed, // the log is complete, the draw waits for its block
    Starting, // the solver opens the start of each drawn run
    Sealing, // verifiers replay and seal their digests; then the solver opens the ends
    Revealing, // verifiers reveal: attested or mismatched; disputes may open
    Window, // disputes may still open
    Settled,
    Slashed,
    Expired
}

/// @notice A maximal run of adjacent drawn segments, replayed as a whole.
struct Run {
    uint32 first; // first segment
    uint32 count; // segments in it
    bytes32 startRoot; // opened by the solver before the seals
    bytes32 endRoot; // opened by the solver after the seals
}

/// @notice A drawn verifier's part in the audit.
struct Seat {
    address verifier;
    SeatState state;
    bytes32 seal; // keccak256 of its digests, bound to chain, contract, task and sender; zero again
        // once the verifier has used the priority of its first dispute
}

enum SeatState {
    Drawn,
    Sealed,
    Attested,
    Mismatched,
    Unavailable // could not get what it needs to replay; its slot is free again
}

/// @notice The opening of one leaf of the checkpoint log.
struct Opening {
    bytes32 salt;
    bytes32 stateRoot;
    bytes32[] proof;
}

/// @notice State of one task. Amounts are wei.
struct Task {
    bytes32 specHash;
    bytes32 logRoot;
    bytes32 finalRoot;
    address submitter;
    uint64 deadline;
    uint32 logSize;
    address solver; // best bidder, then the one that trains
    uint96 price; // lowest bid, paid to the solver on settlement
    uint96 escrow; // budget and verifier fees still held for this task
    uint96 stake; // what a solver locks
    uint64 drawBlock;
    uint96 forfeited; // lost bonds kept for the solver until the task ends
    uint64 committedBlock; // the log was completed in this block
    uint32 pool; // places of the list of verifiers at that time
    uint8 round; // redraws and missed draws so far
    uint8 openDisputes;
    Status status;
}
