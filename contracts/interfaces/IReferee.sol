// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

/// @notice Everything about a dispute that neither party can choose (specification, section 5).
struct Context {
    bytes32 programRoot;
    bytes32 constRoot;
    bytes32 dataRoot;
    bytes32 seed;
    bytes32 startRoot;
    bytes32 endRoot;
    uint64 firstStep;
    uint32 steps;
    uint32 nNodes;
    uint32 nState;
    uint32 nConst;
    uint32 nData;
}

/// @notice What the game must know about a node; all of it follows from the node's encoding.
struct NodeFacts {
    uint8 kind; // protocol/program.py Kind
    uint8 fold; // Fold code, 0 unless kind is FOLD
    uint8 lanes; // 1 or 16, 0 unless kind is FOLD
    uint32 numel; // number of output elements, below 2**31
    uint32 terms; // K of a FOLD, below 2**31; else 0
}

/// @notice The single disputed point that a game has narrowed a dispute down to.
struct Question {
    bytes32 stateBefore; // INPUT: agreed state root before the step
    bytes32 traceRoot; // the defendant's trace of the step
    bytes32 cursor; // leaf hash that the defendant claims for the node (leaf of the trace); not for MAP and FOLD
    bytes32 valuesHash; // MAP, FOLD: keccak256 of the posted values
    uint64 step; // number of the step, counted over the whole task; not for MAP and FOLD
    uint64 element; // flat index of the disputed element
    uint64 term; // flat index k of the disputed term of a FOLD
    uint32 node; // number of the disputed node
    uint32 value; // claimed value of the element (not of a FOLD's term)
    uint32 accBefore; // FOLD: agreed accumulator before the term
    uint32 accAfter; // FOLD: claimed accumulator after it
}

/// @notice A one-step proof (specification, section 6).
struct Proof {
    uint8 kind; // 0 RESULT, 1 INSTRUCTION, 2 OPERAND, 3 ELEMENT, 4 ROOT
    uint8 index;
    bytes node;
    bytes values;
    bytes chunk;
    bytes32 root;
    bytes32[] chunkProof;
    bytes32[] rootProof;
}

/// @notice Arithmetic and nothing else: holds no state, no money, and trusts no data.
interface IReferee {
    /// @notice Facts of an encoded node. Reverts on an encoding that is not a node.
    function facts(bytes calldata node) external pure returns (NodeFacts memory);

    /// @notice One combination of two block results of a fold.
    function combine(uint8 fold, uint32 a, uint32 b) external pure returns (uint32);

    /// @notice The accumulator that every chain of a fold begins with.
    function identity(uint8 fold) external pure returns (uint32);

    /// @notice The element's value from the folded result s.
    function finish(uint8 fold, uint32 s) external pure returns (uint32);

    /// @notice The element's value from its sixteen lane results (64 bytes, big-endian), and
    /// whether each lane without a term holds the identity.
    function combineLanes(uint8 fold, uint64 terms, bytes calldata lanes)
        external
        pure
        returns (uint32 value, bool emptyLanesHold);

    /// @notice True if the proof shows that the question's claim is false. The caller has checked
    /// that `proof.node` is the encoding of node `q.node`. Reverts on a malformed proof. For a MAP or FOLD
    /// only `nNodes` of the context is given, the rest is zero.
    function convicts(Context calldata ctx, Question calldata q, Proof calldata proof)
        external
        view
        returns (bool);
}

/// @notice What a referee can say about a program without a dispute.
interface IProgramJudge {
    /// @notice True if no program may have this node at this place: it stands where an OUTPUT must or must
    /// not stand, refers to a node that is not before it, to a register that is not filled yet, or to an
    /// input that the terms do not count. Reverts, as `facts` does, on an encoding that is not a node.
    function isFaulty(
        bytes calldata node,
        uint256 index,
        uint256 nNodes,
        uint256 nState,
        uint256 nConst,
        uint256 nData
    ) external pure returns (bool);
}
