// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {MarketBase} from "./MarketBase.sol";

/// @title Joining and leaving the verifiers that may be drawn
abstract contract VerifierRegistry is MarketBase {
    /// @notice Locks `slots` stakes from the sender's free balance and joins the list.
    function registerVerifier(uint32 slots) external {
        Verifier storage record = verifierOf[msg.sender];
        if (record.places != 0) revert AlreadyRegistered(msg.sender);
        if (slots == 0 || slots > MAX_SLOTS) revert InvalidSlots(slots);
        _lock(msg.sender, slots * VERIFIER_STAKE);
        uint32[] storage places = _placesOf[msg.sender];
        for (uint256 vacant = _vacant.length; places.length < slots;) {
            if (vacant != 0) {
                uint32 place = _vacant[--vacant];
                _vacant.pop();
                verifiers[place] = msg.sender;
                places.push(place);
            } else {
                places.push(uint32(verifiers.length));
                verifiers.push(msg.sender);
            }
        }
        record.places = slots;
        record.slots = slots;
        record.joinedBlock = uint64(block.number);
        record.leavesAt = 0;
        record.lost = 0;
        emit VerifierRegistered(msg.sender, slots);
    }

    /// @notice Announces leaving. The sender may still be drawn until it is removed.
    function leaveVerifiers() external {
        Verifier storage record = verifierOf[msg.sender];
        if (record.places == 0) revert NotRegistered(msg.sender);
        if (record.leavesAt == 0) {
            record.leavesAt = uint64(block.timestamp) + LEAVE_DELAY;
            emit VerifierLeaving(msg.sender, record.leavesAt);
        }
    }

    /// @notice Takes the sender off the list, once its delay is over, and frees its unused stakes.
    function removeVerifier() external {
        Verifier storage record = verifierOf[msg.sender];
        if (record.places == 0) revert NotRegistered(msg.sender);
        if (record.leavesAt == 0 || block.timestamp < record.leavesAt) {
            revert StillBound(msg.sender, record.leavesAt);
        }
        uint32[] storage places = _placesOf[msg.sender];
        for (uint256 i = record.places; i > 0; --i) {
            verifiers[places[i - 1]] = address(0);
            _vacant.push(places[i - 1]);
        }
        delete _placesOf[msg.sender];
        uint32 slots = record.slots;
        record.places = 0;
        record.slots = 0;
        _credit(msg.sender, slots * VERIFIER_STAKE, "slots");
        emit VerifierRemoved(msg.sender, slots);
    }
}
