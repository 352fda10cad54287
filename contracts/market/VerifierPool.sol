// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {Vault} from "./Vault.sol";

/// @title Verifiers that may be drawn, and the stake that each draw locks
/// @notice A verifier registers a number of slots and locks one stake for each. Each has a place in the
/// list, so the chance to be drawn follows the stake, however many accounts it is spread over. A draw
/// takes a slot, the end of the task gives it back or burns its stake.
abstract contract VerifierPool is Vault {
    struct Verifier {
        uint32 places; // in the list, one for each slot that was registered; 0: not registered
        uint32 slots; // stakes locked that no task holds
        uint64 joinedBlock; // eligible for logs completed after this block
        uint64 leavesAt; // may be removed from this time on; 0: stays
        uint32 lost; // stakes burned since it registered
    }

    error AlreadyRegistered(address verifier);
    error NotRegistered(address verifier);
    error InvalidSlots(uint32 slots);
    error StillBound(address verifier, uint64 leavesAt);
    error InvalidStake(uint256 stake);

    event VerifierRegistered(address indexed verifier, uint32 slots);
    event VerifierLeaving(address indexed verifier, uint64 leavesAt);
    event VerifierRemoved(address indexed verifier, uint32 slots);

    uint32 internal constant MAX_SLOTS = 64;
    /// @notice Verifiers without a free stake that the search for one passes over; at the next it ends.
    /// @dev INVARIANT: who fills the stakes of all others cannot make the draw find only its own: for each
    /// seat at most so many more places than one are looked at.
    uint256 internal constant MAX_BUSY = 3;
    /// @notice Seconds between announcing and leaving: longer than any window.
    uint64 internal constant LEAVE_DELAY = 30 days;
    /// @notice Wei that one slot locks.
    uint256 public immutable VERIFIER_STAKE;

    /// @notice Verifiers by place; zero where one has left and nobody has come since.
    /// @dev INVARIANT: nobody's places change while it is registered, so joining and leaving
    /// cannot change a draw whose randomness is known already.
    address[] public verifiers;
    uint32[] internal _vacant;
    mapping(address account => Verifier record) public verifierOf;
    mapping(address account => uint32[] places) internal _placesOf;

    constructor(uint256 verifierStake) {
        // INVARIANT: sums of bonds, of which each is at most 256 stakes, fit in 96 bits.
        if (verifierStake == 0 || verifierStake > 1 << 80) revert InvalidStake(verifierStake);
        VERIFIER_STAKE = verifierStake;
    }

    /// @dev Gives a drawn verifier its slot back; one that has left gets the money instead.
    function _returnSlot(address verifier) internal {
        Verifier storage record = verifierOf[verifier];
        if (record.places != 0) record.slots += 1;
        else _credit(verifier, VERIFIER_STAKE, "slots");
    }

    /// @dev The list never shrinks, so a place below a former length exists: no need to read its length.
    function _verifierAt(uint256 place) private view returns (address candidate) {
        assembly ("memory-safe") {
            mstore(0, verifiers.slot)
            candidate := sload(add(keccak256(0, 32), place))
        }
    }

    /// @dev Draws a seat among the first `pool` places: up to 64 random tries, then the next eligible
    /// one in list order, at most 64 further. Returns address(0) if none was found, and whether that is
    /// because too many were busy. Nobody in `taken` is eligible. The drawn verifier's slot is taken.
    function _drawVerifier(uint256 random, uint256 pool, uint256 beforeBlock, address[] memory taken)
        internal
        returns (address, bool)
    {
        if (pool == 0) return (address(0), false);
        uint256 place;
        uint256 busy = 0;
        for (uint256 i = 0; i < 128; ++i) {
            place = i < 64 ? uint256(keccak256(abi.encode(random, i))) % pool : (place + 1) % pool;
            address candidate = _verifierAt(place);
            Verifier storage record = verifierOf[candidate];
            if (record.places == 0 || record.joinedBlock >= beforeBlock) continue;
            // From that time on it may remove itself, which must change no draw either.
            if (record.leavesAt != 0 && block.timestamp >= record.leavesAt) continue;
            bool isTaken = false;
            for (uint256 j = 0; j < taken.length; ++j) {
                if (taken[j] == candidate) isTaken = true;
            }
            if (isTaken) continue;
            if (record.slots == 0) {
                // Who has lost all its stakes will never be free again.
                if (record.lost < record.places && ++busy > MAX_BUSY) return (address(0), true);
                continue;
            }
            record.slots -= 1;
            return (candidate, false);
        }
        return (address(0), false);
    }
}
