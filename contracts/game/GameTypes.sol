// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {StateFields} from "./StateFields.sol";

using StateFields for State global;

/// Whose turn it is follows from the phase: see `GameBase`.
enum Phase {
    None,
    CommitSteps,
    CommitTrace,
    Point,
    Open,
    Reveal,
    Show,
    RevealChunk,
    PointElement,
    Lanes,
    PointLane,
    Fold,
    PointFold,
    Values,
    ProveLeaf,
    Prove
}

/// The tree that the cursor lies in.
enum Level {
    Steps,
    Trace,
    State,
    Chunk
}

/// @notice All that is in dispute: every move brings it, only its hash is stored. `StateFields` has the fields
/// of the first four words, `protocol/position.py` the same in Python.
struct State {
    uint256 turn; // times, clocks, phase, cursor, place in a fold
    uint256 defence; // address, disputed step, two sizes of the context
    uint256 challenge; // address of the challenger
    uint256 element; // disputed node, its kinds and sizes, claimed values
    // What the defendant claims: the cursor's hash; then a digest of the words that it posted last, or zero.
    bytes32 claim;
    // keccak256(program, hash of the history): see `GameBase._past`.
    bytes32 past;
}

/// @notice What only the moves between two trees, the proof and the end of a dispute look at.
struct History {
    address arbiter;
    bytes32 tree; // root of the step log; from commitTrace on, of the trace
    bytes32 origin; // hash of the context; from commitTrace on, keccak256(that, log root, step's leaf)
}

/// @notice How a leaf of the program is tied to what came before the disputed step.
struct Segment {
    bytes32 logRoot; // of the defendant's step log
    bytes32 stepLeaf; // its leaf of the disputed step
    bytes32 stateBefore; // INPUT: root of the state before that step
    bytes32[] proof; // INPUT: its inclusion in the log, empty for the first step
}
