// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {IERC20} from "../interfaces/IERC20.sol";

/// @title Money: deposits, credits, and nothing that pushes
/// @notice Every payment is a credit that its owner withdraws. What the contract holds is at all
/// times the sum of free balances and of what tasks, seats, bids and disputes hold. All amounts are in
/// the smallest unit of one currency: the chain's own, or an ERC-20 token.
abstract contract Vault {
    error InsufficientBalance(address account, uint256 needed, uint256 free);
    error NothingToWithdraw(address account);
    error TransferFailed(address account, uint256 amount);
    /// The market takes the other currency.
    error WrongCurrency(address token);
    /// The token took a fee, or did not move what it said.
    error WrongAmountReceived(uint256 received, uint256 expected);

    event Deposited(address indexed account, uint256 amount);
    event Withdrawn(address indexed account, uint256 amount);
    event Credited(address indexed account, uint256 amount, bytes32 indexed reason);
    event Burned(uint256 amount, bytes32 indexed reason);

    /// @notice Its balance is what was burned and has not left the contract yet: see `burn`.
    address public constant BURN_ADDRESS = 0x000000000000000000000000000000000000dEaD;

    /// @notice The currency; zero for the chain's own.
    IERC20 public immutable TOKEN;
    /// @notice What an account may withdraw or lock.
    mapping(address account => uint256 amount) public balanceOf;

    constructor(IERC20 token) {
        TOKEN = token;
    }

    /// @dev Takes `amount` from the sender: from what it has sent, then from its free balance.
    function _pay(uint256 amount) internal {
        if (msg.value != 0 && address(TOKEN) != address(0)) revert WrongCurrency(address(TOKEN));
        if (msg.value == amount) return;
        balanceOf[msg.sender] += msg.value;
        _lock(msg.sender, amount);
    }

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

    function _burn(uint256 amount, bytes32 reason) internal {
        if (amount == 0) return;
        balanceOf[BURN_ADDRESS] += amount;
        emit Burned(amount, reason);
    }

    /// @dev Pays an account its whole free balance.
    function _withdraw(address account) internal {
        uint256 amount = balanceOf[account];
        // INVARIANT: only what is free leaves, and it is zero before the call is made.
        if (amount == 0) revert NothingToWithdraw(account);
        balanceOf[account] = 0;
        bool sent;
        if (address(TOKEN) == address(0)) (sent,) = account.call{value: amount}("");
        else sent = _callToken(abi.encodeCall(IERC20.transfer, (account, amount)));
        if (!sent) revert TransferFailed(account, amount);
        emit Withdrawn(account, amount);
    }

    /// @dev Takes tokens that the sender has approved; refuses those that arrive diminished.
    function _receiveToken(uint256 amount) internal {
        if (address(TOKEN) == address(0)) revert WrongCurrency(address(0));
        uint256 before = TOKEN.balanceOf(address(this));
        if (!_callToken(abi.encodeCall(IERC20.transferFrom, (msg.sender, address(this), amount)))) {
            revert TransferFailed(msg.sender, amount);
        }
        uint256 received = TOKEN.balanceOf(address(this)) - before;
        if (received != amount) revert WrongAmountReceived(received, amount);
    }

    /// @dev Old tokens return nothing where the standard has them return true.
    function _callToken(bytes memory data) private returns (bool) {
        (bool done, bytes memory result) = address(TOKEN).call(data);
        return done && (result.length == 0 || abi.decode(result, (bool)));
    }
}
