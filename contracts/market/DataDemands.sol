// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {IReferee} from "../interfaces/IReferee.sol";
import {IRefereed} from "../interfaces/IDisputeGame.sol";
import {Merkle} from "../lib/Merkle.sol";
import {Claims} from "./Claims.sol";
import {Opening, Run, Seat, SeatState, Status, Task, TaskSpec} from "./MarketTypes.sol";

/// @title Chunks that the solver must post on chain, or lose its stake
/// @notice Answers small gaps in what the solver serves: a named chunk of a checkpoint, with all proofs. It
/// is priced, since it costs the solver gas; it prolongs the phase it is made in, since the asker waits
/// for it; and it says nothing about the rest of the state.
abstract contract DataDemands is Claims {
    /// @notice In each phase of the audit, and in the challenge window.
    uint256 internal constant MAX_DEMANDS = 16;
    /// @notice Open at a time, with all else that is open.
    uint256 internal constant MAX_OPEN_DEMANDS = 128;
    /// @notice A demand costs the bond of a challenge divided by this, rounded up.
    uint256 internal constant DEMAND_SHARE = 8;
    /// @notice The price doubles with every so many demands of a phase. Half of it burns if it is answered, so
    /// that a solver which fills all places itself, to leave none to others, pays for it.
    uint256 internal constant PRICE_DOUBLES = 4;
    uint256 internal constant CHUNK_BYTES = 1024;

    /// @notice Demands chunk `chunk` of tensor `tensor` of the state in leaf `leaf` of the log. A drawn
    /// verifier may name the start of a run before it seals, and the log's last state before it reveals;
    /// anybody may name any leaf in the challenge window, if no further round of the audit follows it, else the
    /// last one.
    /// @param ownSeat The sender's; not read in the challenge window.
    /// @param node Encoding of the tensor's OUTPUT node, which tells its size; `nodeProof` shows it in the
    /// program.
    function demand(
        uint256 id,
        TaskSpec calldata spec,
        uint256 ownSeat,
        uint32 leaf,
        uint32 tensor,
        uint32 chunk,
        bytes calldata node,
        bytes32[] calldata nodeProof
    ) external returns (uint256 demandId) {
        Task storage task = _taskOf(id, spec);
        _checkAsker(id, task, spec, ownSeat, leaf);
        _requireEarly(id, task.deadline);
        if (task.demands >= MAX_DEMANDS || task.open >= MAX_OPEN_DEMANDS) revert TooManyDemands(id);
        uint256 numel = _numel(id, spec, tensor, node, nodeProof);
        if (leaf >= task.logSize || uint256(chunk) * CHUNK_BYTES >= 4 * numel) {
            revert NothingToDemand(id, leaf, tensor, chunk);
        }
        // At most a bond, which fits.
        uint96 price = uint96(((spec.bond + DEMAND_SHARE - 1) / DEMAND_SHARE) << (task.demands / PRICE_DOUBLES));
        _lock(msg.sender, price);
        ++task.open;
        ++task.demands;
        task.deadline += spec.auditWindow;
        demandId = ++demandCount;
        uint40 deadline = uint40(block.timestamp) + spec.auditWindow;
        demands[demandId] = Demand(uint64(id), msg.sender, leaf, tensor, chunk, uint32(numel), deadline, price);
        emit Demanded(id, demandId, msg.sender, leaf, tensor, chunk, deadline);
    }

    /// @notice Answers a demand in time. Anybody may; the solver is paid half of the price.
    function answer(
        uint256 demandId,
        TaskSpec calldata spec,
        Opening calldata opening,
        bytes32 tensorRoot,
        bytes32[] calldata tensorProof,
        bytes calldata chunk,
        bytes32[] calldata chunkProof
    ) external {
        Demand memory asked = _demandOf(demandId);
        uint256 id = asked.task;
        Task storage task = _taskOf(id, spec);
        // What a conviction has made needless is paid back instead.
        if (task.status >= Status.Convicted) revert WrongStatus(id, task.status);
        _requireEarly(id, asked.deadline);
        bytes32 stateRoot = _checkOpening(id, task, asked.leaf, opening);
        if (!Merkle.verifyInclusion(stateRoot, spec.nState, asked.tensor, Merkle.leafHash32(tensorRoot), tensorProof)) {
            revert BadProof(id, "tensor");
        }
        uint256 rest = 4 * uint256(asked.numel) - CHUNK_BYTES * asked.chunk;
        uint256 chunks = (4 * uint256(asked.numel) + CHUNK_BYTES - 1) / CHUNK_BYTES;
        if (
            chunk.length != (rest < CHUNK_BYTES ? rest : CHUNK_BYTES)
                || !Merkle.verifyInclusion(tensorRoot, chunks, asked.chunk, Merkle.leafHash(chunk), chunkProof)
        ) revert BadProof(id, "chunk");
        delete demands[demandId];
        --task.open;
        uint256 paid = asked.price / 2;
        _credit(task.solver, paid, "answered");
        _burn(asked.price - paid, "demand");
        emit Answered(id, demandId, opening.salt, stateRoot, tensorRoot, chunk);
    }

    /// @notice Ends a demand that was not answered in time: the solver is convicted. What it cost goes back.
    function unanswered(uint256 demandId, TaskSpec calldata spec) external {
        Demand memory asked = _demandOf(demandId);
        uint256 id = asked.task;
        Task storage task = _taskOf(id, spec);
        bool needless = task.status >= Status.Convicted;
        if (!needless) {
            _requireOver(id, asked.deadline);
            _convict(task);
        }
        delete demands[demandId];
        --task.open;
        _credit(asked.asker, asked.price, "demand");
        emit Unanswered(id, demandId);
    }

    function _demandOf(uint256 demandId) private view returns (Demand memory asked) {
        asked = demands[demandId];
        if (asked.task == 0) revert UnknownDemand(demandId);
    }

    /// @dev INVARIANT: no demand shows an end to who was drawn and has not sealed, or may yet be drawn.
    function _checkAsker(uint256 id, Task storage task, TaskSpec calldata spec, uint256 ownSeat, uint256 leaf)
        private
        view
    {
        Status status = task.status;
        if (status == Status.Window) {
            bool again = _owesSecond(task, spec) || _isLacking(id, task);
            if (again && (task.endsHash == 0 || leaf + 1 != task.logSize)) revert WrongStatus(id, status);
            return;
        }
        if (status != Status.Sealing && status != Status.Revealing) revert WrongStatus(id, status);
        Seat storage seat = _seatOf(id, task, ownSeat);
        if (status == Status.Sealing) {
            if (seat.state == SeatState.Drawn) {
                (uint256 first, uint256 end) = (task.firstRun, task.runs);
                for (uint256 i = first; i < end; ++i) {
                    if (_runAt(id, i).first == leaf) return;
                }
            }
        } else if (seat.state == SeatState.Sealed && leaf + 1 == task.logSize) {
            return;
        }
        revert NotDrawn(id, msg.sender);
    }

    /// @dev Elements of a state tensor, as its OUTPUT node says.
    function _numel(
        uint256 id,
        TaskSpec calldata spec,
        uint256 tensor,
        bytes calldata node,
        bytes32[] calldata nodeProof
    ) private view returns (uint256) {
        // Behind the last there is no node.
        _checkNode(id, spec, spec.nNodes - spec.nState + tensor, node, nodeProof);
        return _referee().facts(node).numel;
    }

    /// @dev Reverts unless a node is number `index` of the program.
    function _checkNode(
        uint256 id,
        TaskSpec calldata spec,
        uint256 index,
        bytes calldata node,
        bytes32[] calldata proof
    ) internal view {
        if (!Merkle.verifyInclusion(spec.programRoot, spec.nNodes, index, Merkle.leafHash(node), proof)) {
            revert BadProof(id, "node");
        }
    }

    function _referee() internal view returns (IReferee) {
        return IRefereed(address(GAME)).REFEREE();
    }
}
