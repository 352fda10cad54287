// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {Vault} from "./Vault.sol";

/// @title Verifiers that may be drawn, and the stake that each draw locks
/// @notice A verifier registers a number of slots and locks one stake for each. A draw takes a
/// slot, the end of the task gives it back or burns its stake.
abstract contract VerifierRegistry is Vault {
    struct Verifier {
        uint32 position; // place in the list, plus one
        uint32 slots; // stakes locked that no task holds
        uint64 joinedBlock; // eligible for logs completed after this block
        uint64 leavesAt; // may be removed from this time on; 0: stays
    }

    error AlreadyRegistered(address verifier);
    error NotRegistered(address verifier);
    error InvalidSlots(uint32 slots);
    error StillBound(address verifier, uint64 leavesAt);

    event VerifierRegistered(address indexed verifier, uint32 slots);
    event VerifierLeaving(address indexed verifier, uint64 leavesAt);
    event VerifierRemoved(address indexed verifier, uint32 slots);

    uint32 internal constant MAX_SLOTS = 64;
    /// @notice Seconds between announcing and leaving, so that nobody leaves to change a draw.
    uint64 internal constant LEAVE_DELAY = 7 days;
    /// @notice Wei that one slot locks.
    uint256 public immutable VERIFIER_STAKE;

    /// @notice Verifiers by place; zero where one has left and nobody has come since.
    /// @dev INVARIANT: nobody's place changes while it is registered, so joining and leaving
    /// cannot change a draw whose randomness is known already.
    address[] public verifiers;
    uint32[] private _vacant;
    mapping(address account => Verifier record) public verifierOf;

    constructor(uint256 verifierStake) {
        VERIFIER_STAKE = verifierStake;
    }

    /// @notice Number of registered verifiers.
    function verifierCount() external view returns (uint256) {
        return verifiers.length - _vacant.length;
    }

    /// @notice Locks `slots` stakes from the sender's free balance and joins the list.
    function registerVerifier(uint32 slots) external {
        Verifier storage record = verifierOf[msg.sender];
        if (record.position != 0) revert AlreadyRegistered(msg.sender);
        if (slots == 0 || slots > MAX_SLOTS) revert InvalidSlots(slots);
        _lock(msg.sender, slots * VERIFIER_STAKE);
        uint256 vacant = _vacant.length;
        if (vacant != 0) {
            uint32 place = _vacant[vacant - 1];
            _vacant.pop();
            verifiers[place] = msg.sender;
            record.position = place + 1;
        } else {
            verifiers.push(msg.sender);
            record.position = uint32(verifiers.length);
        }
        record.slots = slots;
        record.joinedBlock = uint64(block.number);
        record.leavesAt = 0;
        emit VerifierRegistered(msg.sender, slots);
    }

    /// @notice Announces leaving. The sender may still be drawn until it is removed.
    function leaveVerifiers() external {
        Verifier storage record = verifierOf[msg.sender];
        if (record.position == 0) revert NotRegistered(msg.sender);
        if (record.leavesAt == 0) {
            record.leavesAt = uint64(block.timestamp) + LEAVE_DELAY;
            emit VerifierLeaving(msg.sender, record.leavesAt);
        }
    }

    /// @notice Takes the sender off the list, once its delay is over, and frees its unused stakes.
    function removeVerifier() external {
        Verifier storage record = verifierOf[msg.sender];
        if (record.position == 0) revert NotRegistered(msg.sender);
        if (record.leavesAt == 0 || block.timestamp < record.leavesAt) {
            revert StillBound(msg.sender, record.leavesAt);
        }
        uint32 place = record.position - 1;
        verifiers[place] = address(0);
        _vacant.push(place);
        uint32 slots = record.slots;
        record.position = 0;
        record.slots = 0;
        _credit(msg.sender, slots * VERIFIER_STAKE, "slots");
        emit VerifierRemoved(msg.sender, slots);
    }

    /// @dev Gives a drawn verifier its slot back; one that has left gets the money instead.
    function _returnSlot(address verifier) internal {
        Verifier storage record = verifierOf[verifier];
        if (record.position != 0) record.slots += 1;
        else _credit(verifier, VERIFIER_STAKE, "slots");
    }

    /// @dev Draws a seat among the first `pool` places: up to 64 random tries, then the next eligible
    /// one in list order, at most 64 further. Returns address(0) if none was found. Nobody in `taken`
    /// is eligible. The drawn verifier's slot is taken.
    function _drawVerifier(uint256 random, uint256 pool, uint64 beforeBlock, address[] memory taken)
        internal
        returns (address)
    {
        if (pool == 0) return address(0);
        uint256 place;
        for (uint256 i = 0; i < 128; ++i) {
            place = i < 64 ? uint256(keccak256(abi.encode(random, i))) % pool : (place + 1) % pool;
            address candidate = verifiers[place];
            Verifier storage record = verifierOf[candidate];
            if (record.slots == 0 || record.joinedBlock >= beforeBlock) continue;
            // From that time on it may remove itself, which must change no draw either.
            if (record.leavesAt != 0 && block.timestamp >= record.leavesAt) continue;
            bool isTaken = false;
            for (uint256 j = 0; j < taken.length; ++j) {
                if (taken[j] == candidate) isTaken = true;
            }
            if (isTaken) continue;
            record.slots -= 1;
            return candidate;
        }
        return address(0);
    }
}
