// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

/// Whose turn it is follows from the phase: see `GameBase`.
enum Phase {
    None,
    Commit,
    Point,
    Open,
    RevealStep,
    RevealTensor,
    RevealNode,
    RevealChunk,
    PointElement,
    Lanes,
    PointLane,
    Fold,
    PointFold,
    Values,
    ProveRoot,
    Prove,
    Convicted,
    Acquitted
}

/// The tree that the cursor lies in.
enum Level {
    Steps,
    State,
    Trace,
    Chunk
}

/// @dev One slot; all but the clocks enters `position`.
struct Turn {
    uint40 movedAt; // time of the last move
    uint32 defendantClock; // seconds left at that time
    uint32 challengerClock;
    Phase phase;
    Level level;
    uint16 moves; // made so far
    uint32 first; // the cursor's first leaf; from pointElement on the disputed element
    uint32 count; // the cursor's leaves; from pointNode on those of the node's tensor
    uint8 lane; // of a FOLD
    uint8 foldLevel; // 0 has terms, each level above it has the results of the chains below
    uint32 item; // FOLD: number of the chain in its level; then, in VALUES, the disputed term
}

struct Dispute {
    Turn turn;
    bytes32 claim; // what the defendant claims: the cursor's hash, then keccak256 of the last posted values
    address defendant;
    uint32 step; // disputed step, counted in the segment
    address challenger;
    uint32 node; // disputed node
    uint32 accBefore; // FOLD: agreed accumulator before the disputed item
    uint32 claimed; // value of the element, lane or accumulator in dispute
    address arbiter;
    uint8 kind; // of the disputed node, as are the following
    uint8 fold;
    uint8 lanes;
    uint32 numel;
    uint32 terms;
    bytes32 binding; // keccak256 of the context; from pointNode on, keccak256(that, keccak256(node))
    bytes32 stateBefore; // last agreed state
    bytes32 tree; // root of the step log; from revealTensor on, of the trace
}
