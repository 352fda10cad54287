// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

/// @title An account for tests that acts for whoever calls it, and misbehaves when it is paid
contract HostileRecipient {
    enum Behaviour {
        Accept,
        Refuse,
        BurnGas,
        Reenter
    }

    error Refused();

    Behaviour public behaviour;
    bytes public reentry; // call data sent back to the payer
    uint256 public accepted; // how often the payer accepted such a call
    uint256 public payments;

    function behave(Behaviour behaviour_, bytes calldata reentry_) external {
        behaviour = behaviour_;
        reentry = reentry_;
    }

    /// @notice Makes a call in its own name and passes on what it returns, errors included.
    function act(address target, bytes calldata data) external payable returns (bytes memory) {
        (bool done, bytes memory result) = target.call{value: msg.value}(data);
        if (!done) {
            assembly ("memory-safe") {
                revert(add(result, 32), mload(result))
            }
        }
        return result;
    }

    receive() external payable {
        ++payments;
        if (behaviour == Behaviour.Refuse) revert Refused();
        if (behaviour == Behaviour.Reenter) {
            (bool done,) = msg.sender.call(reentry);
            if (done) ++accepted;
        }
        while (behaviour == Behaviour.BurnGas) {}
    }
}
