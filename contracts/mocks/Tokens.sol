// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

/// @title A plain ERC-20 token of which anybody may mint
contract PlainToken {
    error Insufficient(address account, uint256 needed);

    mapping(address account => uint256 amount) public balanceOf;
    mapping(address owner => mapping(address spender => uint256 amount)) public allowance;

    function mint(address account, uint256 amount) external {
        balanceOf[account] += amount;
    }

    function approve(address spender, uint256 amount) external returns (bool) {
        allowance[msg.sender][spender] = amount;
        return true;
    }

    function transfer(address to, uint256 amount) external virtual returns (bool) {
        _move(msg.sender, to, amount);
        return true;
    }

    function transferFrom(address from, address to, uint256 amount) external virtual returns (bool) {
        _spend(from, amount);
        _move(from, to, amount);
        return true;
    }

    function _spend(address from, uint256 amount) internal {
        if (allowance[from][msg.sender] < amount) revert Insufficient(from, amount);
        allowance[from][msg.sender] -= amount;
    }

    function _move(address from, address to, uint256 amount) internal {
        if (balanceOf[from] < amount) revert Insufficient(from, amount);
        balanceOf[from] -= amount;
        balanceOf[to] += amount;
    }
}

/// @title A token that takes one per cent of every transfer
contract FeeToken is PlainToken {
    function transferFrom(address from, address to, uint256 amount) external override returns (bool) {
        _spend(from, amount);
        _move(from, to, amount);
        _move(to, address(this), amount / 100);
        return true;
    }
}

/// @title A token that says false instead of reverting, and moves nothing
contract FalseToken is PlainToken {
    bool public refusing;

    function refuse(bool refusing_) external {
        refusing = refusing_;
    }

    function transfer(address to, uint256 amount) external override returns (bool) {
        if (refusing) return false;
        _move(msg.sender, to, amount);
        return true;
    }

    function transferFrom(address from, address to, uint256 amount) external override returns (bool) {
        if (refusing) return false;
        _spend(from, amount);
        _move(from, to, amount);
        return true;
    }
}

/// @title A token that tells an account of its next transfer, before it moves anything
contract ReentrantToken is PlainToken {
    address public listener;
    bytes public message;
    bool public accepted; // whether the listener's call succeeded

    function tell(address listener_, bytes calldata message_) external {
        (listener, message) = (listener_, message_);
    }

    function transfer(address to, uint256 amount) external override returns (bool) {
        _reenter();
        _move(msg.sender, to, amount);
        return true;
    }

    function transferFrom(address from, address to, uint256 amount) external override returns (bool) {
        _spend(from, amount);
        _reenter();
        _move(from, to, amount);
        return true;
    }

    function _reenter() private {
        address told = listener;
        if (told == address(0)) return;
        listener = address(0);
        (accepted,) = told.call(message);
    }
}

/// @title An old token, whose transfers return nothing
contract SilentToken {
    mapping(address account => uint256 amount) public balanceOf;

    function mint(address account, uint256 amount) external {
        balanceOf[account] += amount;
    }

    /// @notice Everybody may spend everybody's tokens: nothing here is about allowances.
    function approve(address, uint256) external {}

    function transfer(address to, uint256 amount) external {
        _move(msg.sender, to, amount);
    }

    function transferFrom(address from, address to, uint256 amount) external {
        _move(from, to, amount);
    }

    function _move(address from, address to, uint256 amount) private {
        balanceOf[from] -= amount;
        balanceOf[to] += amount;
    }
}
