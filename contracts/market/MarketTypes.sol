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
    uint32 windowSegments; // segments of a progress window, which is audited and paid by itself
    uint64 work; // of the whole training, in units of 10**9 FLOPs, rounded up
    uint32 memoryMiB; // that one training step needs
    uint8 committee; // verifiers drawn, 2 .. MAX_COMMITTEE
    uint8 samples; // segments drawn, 1 .. MAX_SAMPLES
    uint8 secondAudit; // chance of a second audit of each progress window, in 256ths
    address submitter; // who posts
    address solver; // who trains; zero: whoever wins the auction
    uint96 budget; // wei, highest price for the training
    uint96 solverStake; // wei, locked by the leading bidder
    uint96 verifierFee; // wei, paid to each verifier that attests
    uint96 bond; // wei, locked with a sealed bid and by whoever opens a dispute
    uint96 lateCost; // wei that a solver's default costs the submitter: weighs risk against price
    uint32 bidWindow; // seconds, like all windows: for sealed bids, and again for revealing them
    uint32 trainWindow; // for each progress window
    uint32 auditWindow; // for each phase of the audit, and for each chunk that is demanded
    uint32 challengeWindow;
    uint32 disputeClock; // chess clock of each party in a dispute
}

/// @notice Where a task stands. Every status has a deadline and a call that anybody may make
/// after it; the three last ones are final.
enum Status {
    None,
    Bidding, // solvers seal bids, then reveal them; then assign
    Training, // the solver appends to its checkpoint log; then defaulted
    Committed, // the log of a progress window is complete, the draw waits for its block
    Starting, // the solver opens the start of each drawn run
    Sealing, // verifiers replay and seal their digests; then the solver opens the ends
    Revealing, // verifiers reveal: attested or mismatched; disputes may open
    Window, // disputes may still open; then settle, and on to the next progress window
    Convicted, // the solver has lost; the stake is shared out when nothing is open any more
    Settled,
    Slashed,
    Expired
}

/// @notice A maximal run of adjacent drawn segments, replayed as a whole.
struct Run {
    uint32 first; // first segment
    uint8 count; // segments in it
    uint8 round; // of the audit that drew it
}

/// @notice A drawn verifier's part in the audit.
struct Seat {
    address verifier;
    SeatState state;
    uint8 round; // whose runs it replays
}

enum SeatState {
    Drawn,
    Sealed,
    Attested, // and liable for it while the challenge window lasts
    Mismatched,
    Disputing, // mismatched, and has opened the dispute that comes first
    Unavailable, // could not get what it needs to replay; its slot is free again
    Slashed
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
    Status status;
    uint8 round; // rounds of audits so far, in all progress windows
    uint8 retries; // missed draws and redraws of the current audit
    uint8 agreed; // round of the audit that a second one follows now; 0: this is no second one
    uint8 open; // disputes, sealed challenges and demands that wait for their end
    uint8 demands; // made in the current phase of the audit
    uint8 seats; // drawn in the current progress window
    uint8 runs; // drawn in the current progress window
    uint8 firstRun; // of the current round
    uint40 deadline; // 0: cancelled
    uint32 drawBlock;
    uint32 committedBlock; // the log of the progress window was completed in this block
    uint32 pool; // places of the list of verifiers at that time
    uint24 logSize;
    uint24 settled; // segments audited and paid
    address solver; // leading bidder, then the one that trains
    uint96 price; // the leading bidder would be paid, or the solver is
    uint96 paid; // of the escrow
    uint96 forfeited; // lost bonds kept for the solver until the task ends
    bool byAsk; // the solver was entered by its standing ask
    uint8 challenges; // of the solver by who was not drawn, among what is open
    uint8 accusations; // of attestors, among what is open
    bytes32 logRoot; // in the bidding: score of the leading bid, and below it 128 bits of its risk
    bytes32 endsHash; // keccak256 of the end roots opened last
}
