// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

/// @title Money: deposits, credits, and nothing that pushes
/// @notice Every payment is a credit that its owner withdraws. The contract's balance is at all
/// times the sum of free balances and of what tasks, seats and disputes hold.
abstract contract Vault {
    error InsufficientBalance(address account, uint256 needed, uint256 free);
    error NothingToWithdraw(address account);
    error TransferFailed(address account, uint256 amount);

    event Deposited(address indexed account, uint256 amount);
    event Withdrawn(address indexed account, uint256 amount);
    event Credited(address indexed account, uint256 amount, bytes32 indexed reason);
    event Burned(uint256 amount, bytes32 indexed reason);

    address internal constant BURN_ADDRESS = 0x000000000000000000000000000000000000dEaD;

    /// @notice Wei that an account may withdraw or lock.
    mapping(address account => uint256 amount) public balanceOf;

    function _lock(address account, uint256 amount) internal {
        uint256 free = balanceOf[account];
        if (free < amount) revert InsufficientBalance(account, amount, free);
        unchecked {
            balanceOf[account] = free - amount;
        }
    }

    function _credit(address account, uint256 amount, bytes32 reason) internal {
        if (amount == 0) return;
        balanceOf[account] += amount;
        emit Credited(account, amount, reason);
    }

    /// @dev A burn leaves the contract, so that the balance stays equal to what is owed.
    function _burn(uint256 amount, bytes32 reason) internal {
        if (amount == 0) return;
        (bool sent,) = BURN_ADDRESS.call{value: amount}("");
        if (!sent) revert TransferFailed(BURN_ADDRESS, amount);
        emit Burned(amount, reason);
    }
}
