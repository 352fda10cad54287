// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {Primitives} from "./Primitives.sol";
import {Layout, Program} from "./Program.sol";

/// @title References of an expression that lead nowhere (specification, section 2)
library Faults {
    /// @notice Whether an operand of node `index` reads a node that is not before it, an instruction reads a
    /// register that holds nothing yet, or a result is no register.
    function inExpression(bytes calldata node, Layout memory l, uint256 index) internal pure returns (bool) {
        unchecked {
            uint256 at = l.operands;
            for (uint256 i = 0; i < l.operandCount; ++i) {
                if (Program.u8(node, at) != Program.IOTA && Program.u32(node, at + 1) >= index) return true;
                at = Program.skipOperand(node, at);
            }
            uint256 filled = l.operandCount + l.immediateCount;
            for (at = l.instructions; at < l.results; at += 4) {
                uint256 arity = Primitives.arity(uint8(Program.u8(node, at)));
                for (uint256 j = 1; j <= arity; ++j) {
                    if (Program.u8(node, at + j) >= filled) return true;
                }
                ++filled;
            }
            for (at = l.results; at < node.length; ++at) {
                if (Program.u8(node, at) >= filled) return true;
            }
            return false;
        }
    }
}
