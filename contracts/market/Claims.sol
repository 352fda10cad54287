// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {IArbiter} from "../interfaces/IArbiter.sol";
import {Context} from "../interfaces/IReferee.sol";
import {MarketBase} from "./MarketBase.sol";
import {Opening, Run, Seat, SeatState, Status, Task, TaskSpec} from "./MarketTypes.sol";

/// @title Disputes: by drawn verifiers, by anybody else, against the solver or against who attested
/// @notice Anybody may challenge any segment while the window lasts. Who was not drawn seals first what it
/// challenges, and says it in a later block, so that nobody who copies it comes before it.
abstract contract Claims is MarketBase, IArbiter {
    /// @notice What is disputed: the state after some segments, from the one before them.
    struct Target {
        uint32 first; // segment
        uint32 count; // segments
        uint8 ownSeat; // the sender's, if its sealed digest differed; else NO_SEAT
        uint8 attestor; // seat of the verifier that is the defendant; NO_SEAT for the solver
        Opening start;
        Opening end;
    }

    uint256 internal constant CHALLENGER_SHARE = 40; // per cent of a convicted party's stake
    /// @notice Open challenges of the solver, and as many of attestors: each have places of their own, since
    /// who loses its own attestor to itself gets all bonds back that it has filled the others' with.
    uint256 internal constant MAX_OPEN = 32;
    /// @notice The bond of a challenger that was not drawn doubles with every so many open ones of its kind,
    /// so that filling all places costs far more than a stake.
    uint256 internal constant BOND_DOUBLES = 4;
    /// @dev Added to the rank of who was not drawn.
    uint64 internal constant AFTER_DRAWN = 1 << 63;

    /// @notice Locks the bond of a challenge whose target is told in a later block, and takes its place in
    /// the order of rewards.
    /// @param accuses True if it is an attestor that is challenged, false if it is the solver.
    function sealChallenge(uint256 id, TaskSpec calldata spec, bytes32 digest, bool accuses) external {
        Task storage task = _taskOf(id, spec);
        _requireChallengeable(id, task);
        if (digest == 0) revert EmptySeal();
        if (sealedChallenges[id][msg.sender].digest != 0) revert AlreadyChallenged(id, msg.sender);
        uint256 open = accuses ? task.accusations : task.challenges;
        if (open >= MAX_OPEN) revert TooManyDisputes(id);
        uint256 bond = uint256(spec.bond) << (open / BOND_DOUBLES);
        _lock(msg.sender, bond);
        ++task.open;
        if (accuses) ++task.accusations;
        else ++task.challenges;
        // What was locked is money that exists, so it fits.
        sealedChallenges[id][msg.sender] = SealedChallenge(
            digest, uint96(bond), AFTER_DRAWN | ++_ranks, uint40(block.number), uint40(block.timestamp), accuses
        );
        emit ChallengeSealed(id, msg.sender, bond);
    }

    /// @notice Disputes the state after some segments. A drawn verifier whose revealed digest differs has
    /// one dispute with the solver that its seat's stake stands for, finds a place at all times and is
    /// rewarded first. If the attestor that is accused was convicted after the seal, the bond comes back.
    /// @return disputeId 0 if there is none
    function challenge(uint256 id, TaskSpec calldata spec, Target calldata target, bytes32 nonce)
        external
        returns (uint256 disputeId)
    {
        Task storage task = _taskOf(id, spec);
        (uint96 bond, uint64 rank) = target.ownSeat == NO_SEAT
            ? _unsealChallenge(id, task, spec, target, nonce)
            : _usePriority(id, task, spec, target);
        // INVARIANT: only who sealed before that is excused, or sealing against a convict would cost nothing.
        if ((rank & ~AFTER_DRAWN) <= _convictedAt[id][target.attestor]) {
            _leavePlace(task, true);
            _returnBond(id, msg.sender, bond);
            return 0;
        }
        address defendant =
            target.attestor == NO_SEAT ? task.solver : _attestor(id, task, target);
        Context memory context = _context(id, task, spec, target);
        // The defence gets one clock more for everything that is open beside this dispute.
        uint32 clock = spec.disputeClock * task.open;
        disputeId = GAME.create(context, defendant, msg.sender, clock, spec.disputeClock);
        disputes[disputeId] = Dispute(uint64(id), msg.sender, target.attestor, target.ownSeat, bond, rank);
        emit DisputeOpened(id, disputeId, msg.sender, defendant, target.first, target.count, context);
    }

    /// @notice Ends a sealed challenge that was not told in time: its bond burns; or that the end of the
    /// task has made needless: then it goes back.
    function dropChallenge(uint256 id, TaskSpec calldata spec, address challenger) external {
        Task storage task = _taskOf(id, spec);
        SealedChallenge memory kept = sealedChallenges[id][challenger];
        if (kept.digest == 0) revert WrongSeal(id, challenger);
        bool needless = task.status >= Status.Convicted;
        if (!needless) _requireOver(id, uint256(kept.sealedAt) + spec.auditWindow);
        delete sealedChallenges[id][challenger];
        _leavePlace(task, kept.accuses);
        if (needless) {
            _returnBond(id, challenger, kept.bond);
        } else {
            _burn(kept.bond, "bond");
            emit ChallengeDropped(id, challenger);
        }
    }

    /// @inheritdoc IArbiter
    function onVerdict(uint256 disputeId, bool convicted) external {
        if (msg.sender != address(GAME)) revert NotGame(msg.sender);
        Dispute memory dispute = disputes[disputeId];
        if (dispute.task == 0) revert UnknownDispute(disputeId);
        delete disputes[disputeId];
        uint256 id = dispute.task;
        Task storage task = _tasks[id];
        if (dispute.ownSeat == NO_SEAT) _leavePlace(task, dispute.seat != NO_SEAT);
        else --task.open;
        emit DisputeEnded(id, disputeId, convicted);
        if (convicted) {
            _credit(dispute.challenger, dispute.bond, "bond");
            // INVARIANT: convicting the solver never slashes who attested, and the reverse.
            if (dispute.seat == NO_SEAT) _claim(id, task, dispute);
            else if (task.status <= Status.Convicted) _convictAttestor(id, dispute);
        } else if (task.status >= Status.Convicted) {
            _credit(dispute.challenger, dispute.bond, "bond");
        } else {
            // INVARIANT: a bond lost on purpose earns nothing: half burns now, the rest is the
            // solver's only if the task settles or expires without a conviction.
            uint96 kept = dispute.bond / 2;
            if (dispute.ownSeat == NO_SEAT) {
                _burn(dispute.bond - kept, "bond");
            } else {
                kept = uint96(VERIFIER_STAKE / 2);
                _slashSeat(id, _seats[id][dispute.ownSeat], kept);
            }
            if (dispute.seat == NO_SEAT) task.forfeited += kept;
            else _credit(_seats[id][dispute.seat].verifier, kept, "lost bonds");
        }
    }

    function _leavePlace(Task storage task, bool accuses) private {
        --task.open;
        if (accuses) --task.accusations;
        else --task.challenges;
    }

    function _returnBond(uint256 id, address challenger, uint96 bond) private {
        _credit(challenger, bond, "bond");
        emit ChallengeDropped(id, challenger);
    }

    function _requireChallengeable(uint256 id, Task storage task) private view {
        if (task.status != Status.Revealing && task.status != Status.Window) revert WrongStatus(id, task.status);
        _requireEarly(id, task.deadline);
    }

    /// @dev Until then drawn verifiers may still take their priority after a conviction.
    function _priorityEnd(Task storage task, TaskSpec calldata spec) internal view returns (uint256) {
        return uint256(task.deadline) + spec.auditWindow;
    }

    /// @dev INVARIANT: the reward follows priority, not the order of finishing, so that a solver
    /// cannot save it by a quick defeat against itself.
    function _claim(uint256 id, Task storage task, Dispute memory dispute) private {
        if (task.status > Status.Convicted) return;
        _convict(task);
        Claim storage claim = _claims[id];
        if (claim.challenger == address(0) || dispute.rank < claim.rank) {
            (claim.challenger, claim.rank) = (dispute.challenger, dispute.rank);
        }
    }

    function _convictAttestor(uint256 id, Dispute memory dispute) private {
        Seat storage seat = _seats[id][dispute.seat];
        // An earlier conviction has slashed it already.
        if (seat.state != SeatState.Attested) return;
        uint256 reward = VERIFIER_STAKE * CHALLENGER_SHARE / 100;
        _credit(dispute.challenger, reward, "conviction");
        _slashSeat(id, seat, reward);
        _convictedAt[id][dispute.seat] = _ranks;
    }

    /// @dev No bond: whose digests differ loses its stake anyhow, unless it convicts the solver. INVARIANT:
    /// nobody who was drawn needs money besides its stake to prove that it is right.
    function _usePriority(uint256 id, Task storage task, TaskSpec calldata spec, Target calldata target)
        private
        returns (uint96, uint64)
    {
        if (target.attestor != NO_SEAT) revert NotAttestor(id, target.attestor);
        if (task.status == Status.Convicted) _requireEarly(id, _priorityEnd(task, spec));
        else _requireChallengeable(id, task);
        Seat storage seat = _seatOf(id, task, target.ownSeat);
        if (seat.state != SeatState.Mismatched) revert AlreadyChallenged(id, msg.sender);
        seat.state = SeatState.Disputing;
        ++task.open;
        return (0, ++_ranks);
    }

    /// @dev Who was not drawn challenges single segments, or the run that an attestor answers for. One audit
    /// window after the seal is time enough; a second audit may have begun meanwhile.
    function _unsealChallenge(
        uint256 id,
        Task storage task,
        TaskSpec calldata spec,
        Target calldata target,
        bytes32 nonce
    ) private returns (uint96 bond, uint64 rank) {
        if (task.status >= Status.Convicted) revert WrongStatus(id, task.status);
        if (target.attestor == NO_SEAT && target.count != 1) revert UnknownRun(id, target.first, target.count);
        SealedChallenge memory kept = sealedChallenges[id][msg.sender];
        bytes32 digest = challengeDigest(id, msg.sender, target.first, target.count, target.attestor, nonce);
        // INVARIANT: what is seen in a block cannot be sealed and told in the same block.
        bool same = digest == kept.digest && kept.accuses == (target.attestor != NO_SEAT);
        if (!same || block.number <= kept.sealedBlock) revert WrongSeal(id, msg.sender);
        _requireEarly(id, uint256(kept.sealedAt) + spec.auditWindow);
        delete sealedChallenges[id][msg.sender];
        return (kept.bond, kept.rank);
    }

    /// @dev The verifier in a seat, if it attested the target.
    function _attestor(uint256 id, Task storage task, Target calldata target) private view returns (address) {
        Seat memory seat = _seats[id][target.attestor];
        if (target.attestor >= task.seats || seat.state != SeatState.Attested) {
            revert NotAttestor(id, target.attestor);
        }
        uint256 runs = task.runs;
        for (uint256 i = 0; i < runs; ++i) {
            Run memory run = _runAt(id, i);
            if (run.first == target.first && run.count == target.count && run.round == seat.round) {
                return seat.verifier;
            }
        }
        revert UnknownRun(id, target.first, target.count);
    }

    function _context(uint256 id, Task storage task, TaskSpec calldata spec, Target calldata target)
        private
        view
        returns (Context memory context)
    {
        uint256 last = uint256(target.first) + target.count;
        if (target.count == 0 || target.count > MAX_SAMPLES || last >= task.logSize) {
            revert UnknownRun(id, target.first, target.count);
        }
        uint256 first = uint256(target.first) * spec.segmentSteps;
        uint256 end = last * spec.segmentSteps;
        if (end > spec.steps) end = spec.steps;
        context = Context({
            programRoot: spec.programRoot,
            constRoot: spec.constRoot,
            dataRoot: spec.dataRoot,
            seed: spec.seed,
            startRoot: _checkOpening(id, task, target.first, target.start),
            endRoot: _checkOpening(id, task, last, target.end),
            firstStep: uint64(first),
            steps: uint32(end - first),
            nNodes: spec.nNodes,
            nState: spec.nState,
            nConst: spec.nConst,
            nData: spec.nData
        });
    }
}
