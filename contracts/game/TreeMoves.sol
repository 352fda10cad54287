// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {Context} from "../interfaces/IReferee.sol";
import {Merkle} from "../lib/Merkle.sol";
import {GameBase} from "./GameBase.sol";
import {History, Level, Phase, State} from "./GameTypes.sol";

/// @title The moves down the step log and the trace, and the doubt whether they belong together.
/// @notice The log must end in the disputed end state, and the trace in the state that the log has for its step.
/// Neither is proven when a root is committed: a challenger that finds nothing wrong in the tree itself doubts
/// it, and then the defendant must show the leaf where it belongs. It wins with that, or its clock runs out.
abstract contract TreeMoves is GameBase {
    /// @notice Defendant: commit to the state roots after all steps, the last of which is `endRoot`.
    function commitSteps(
        uint256 id,
        State memory state,
        bytes32 program,
        History memory history,
        bytes32[] calldata children
    ) external {
        _enter(id, state, Phase.CommitSteps);
        _checkPast(state, program, history);
        state.claim = history.tree = _combine(state.count(), children);
        state.past = _past(program, history);
        state.setPhase(Phase.Point);
        emit StepsCommitted(id, _store(id, state), children);
    }

    /// @notice Defendant: commit to the results of all nodes in the disputed step.
    function commitTrace(
        uint256 id,
        State memory state,
        bytes32 program,
        History memory history,
        bytes32[] calldata children
    ) external {
        _enter(id, state, Phase.CommitTrace);
        _checkPast(state, program, history);
        history.origin = _origin(history.origin, history.tree, state.claim);
        state.claim = history.tree = _combine(state.nNodes(), children);
        state.past = _past(program, history);
        state.setCursor(Phase.Point, Level.Trace, 0, state.nNodes());
        emit TraceCommitted(id, _store(id, state), children);
    }

    /// @notice Challenger: point at a child of the cursor; `path` are its siblings among the children.
    function point(uint256 id, State memory state, uint32 index, bytes32 child, bytes32[] calldata path) external {
        _enter(id, state, Phase.Point);
        (uint32 first, uint32 count) = _child(state, index, child, path);
        state.setCursor(first, count);
        state.claim = child;
        if (count > 1) state.setPhase(Phase.Open);
        else _reachLeaf(state);
        emit Pointed(id, _store(id, state), index);
    }

    /// @notice Defendant: open the cursor into its children.
    function open(uint256 id, State memory state, bytes32[] calldata children) external {
        _enter(id, state, Phase.Open);
        bytes32 combined = _combine(state.count(), children);
        if (combined != state.claim) revert WrongChildren(combined, state.claim);
        state.setPhase(Phase.Point);
        emit Opened(id, _store(id, state), children);
    }

    /// @notice Challenger: nothing in the step log is wrong, but it does not end in `endRoot`.
    function doubtEnd(
        uint256 id,
        State memory state,
        bytes32 program,
        History calldata history,
        Context calldata context
    ) external {
        _enterPoint(id, state, Level.Steps);
        _checkPast(state, program, history);
        bytes32 hash = keccak256(abi.encode(context));
        if (hash != history.origin) revert WrongContext(hash, history.origin);
        state.claim = Merkle.leafHash32(context.endRoot);
        state.setCursor(Phase.Show, Level.Steps, context.steps - 1, context.steps);
        emit EndDoubted(id, _store(id, state));
    }

    /// @notice Challenger: nothing in the trace is wrong, but the state of its step is another.
    function doubtState(
        uint256 id,
        State memory state,
        bytes32 program,
        History calldata history,
        bytes32 contextHash,
        bytes32 logRoot,
        bytes32 stepLeaf
    ) external {
        _enterPoint(id, state, Level.Trace);
        _checkPast(state, program, history);
        bytes32 origin = _origin(contextHash, logRoot, stepLeaf);
        if (origin != history.origin) revert WrongContext(origin, history.origin);
        state.claim = stepLeaf;
        state.setCursor(Phase.Reveal, Level.State, 0, state.nState());
        emit StateDoubted(id, _store(id, state));
    }

    /// @notice Defendant: open the tree whose root the cursor, a leaf, holds: a state, or a node's tensor.
    function reveal(uint256 id, State memory state, bytes32[] calldata children) external {
        _enter(id, state, Phase.Reveal);
        bytes32 root = _combine(state.count(), children);
        bytes32 leaf = Merkle.leafHash32(root);
        if (leaf != state.claim) revert WrongLeaf(leaf, state.claim);
        state.claim = root;
        if (state.count() > 1) state.setPhase(Phase.Point);
        else _reachLeaf(state);
        emit Revealed(id, _store(id, state), children);
    }

    /// @notice Defendant: show that the doubted leaf is where it belongs, which wins the dispute.
    function show(
        uint256 id,
        State memory state,
        bytes32 program,
        History calldata history,
        bytes32[] calldata proof
    ) external {
        _enter(id, state, Phase.Show);
        _checkPast(state, program, history);
        if (!Merkle.verifyInclusion(history.tree, state.count(), state.first(), state.claim, proof)) {
            revert WrongInclusion(history.tree, state.count(), state.first());
        }
        _finish(id, history.arbiter, false, false);
    }

    /// @dev What a trace adds to the hash of the context: the step that it belongs to.
    function _origin(bytes32 contextHash, bytes32 logRoot, bytes32 stepLeaf) internal pure returns (bytes32) {
        return keccak256(abi.encode(contextHash, logRoot, stepLeaf));
    }

    function _enterPoint(uint256 id, State memory state, Level level) internal view {
        _enter(id, state, Phase.Point);
        if (state.level() != level) revert WrongPointer(state.level(), state.count());
    }

    /// @return the first leaf of a child of the cursor, and how many it has.
    function _child(State memory state, uint32 index, bytes32 child, bytes32[] calldata path)
        internal
        view
        returns (uint32, uint32)
    {
        (uint256 children, uint256 first, uint256 count) = Merkle.child(state.count(), index);
        if (!Merkle.verifyInclusion(state.claim, children, index, child, path)) revert WrongChild(index, child);
        unchecked {
            return (state.first() + uint32(first), uint32(count));
        }
    }

    /// @dev The root of a tree of `count` leaves from its children; the only child of one leaf is itself.
    function _combine(uint256 count, bytes32[] calldata children) private view returns (bytes32) {
        uint256 expected = count > 1 ? Merkle.childCount(count) : 1;
        if (children.length != expected) revert WrongChildCount(children.length, expected);
        return Merkle.combine(children);
    }

    function _reachLeaf(State memory state) private pure {
        if (state.level() == Level.Steps) {
            state.setStep(state.first());
            state.setPhase(Phase.CommitTrace);
        } else if (state.level() == Level.State) {
            // INVARIANT: which node gives a state tensor is the program's choice.
            uint32 output = state.nNodes() - state.nState() + state.first();
            state.setCursor(Phase.Show, Level.State, output, state.nNodes());
        } else if (state.level() == Level.Chunk) {
            state.setPhase(Phase.RevealChunk);
        } else {
            revert WrongPointer(state.level(), state.count());
        }
    }
}
