// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

/// @notice What halmos understands of Foundry's cheat codes.
interface Vm {
    /// @notice Only executions for which this holds are looked at.
    function assume(bool condition) external pure;

    /// @notice Set the time of the block.
    function warp(uint256 timestamp) external;
}

/// @title A contract whose functions `check_...` are theorems: no argument makes an assertion fail.
abstract contract Proof {
    Vm internal constant VM = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    /// @dev The error data of a call that must fail with exactly this error.
    function _equal(bytes memory a, bytes memory b) internal pure returns (bool) {
        return keccak256(a) == keccak256(b);
    }
}
