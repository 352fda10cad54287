// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

/// @title Elements of SAMPLE and RAND nodes (specification, section 2)
/// @notice `protocol/randomness.py` is the same in Python, a whole tensor at a time.
library Randomness {
    uint256 private constant WORD = 0xffffffff;

    // Multipliers and Weyl increments of Philox4x32 (Salmon et al. 2011, table 2 and section 4.1).
    uint256 private constant M0 = 0xD2511F53;
    uint256 private constant M1 = 0xCD9E8D57;
    uint256 private constant W0 = 0x9E3779B9;
    uint256 private constant W1 = 0xBB67AE85;

    /// @notice Element `e` of a SAMPLE node.
    /// @param bound Not zero, as the decoder of the node has checked.
    /// @return An index below `bound`. The bias is below 2**-224.
    function sample(bytes32 seed, uint32 stream, uint64 step, uint32 e, uint32 bound)
        internal
        pure
        returns (uint32)
    {
        return uint32(uint256(sha256(abi.encodePacked(seed, stream, step, e))) % bound);
    }

    /// @notice Element `e` of a RAND node: one word of a Philox4x32-10 block.
    /// @dev Sixteen neighbours take one word of sixteen blocks, so that a vector kernel stores whole
    /// registers. The key words are the first eight bytes of the seed.
    function philox(bytes32 seed, uint32 stream, uint64 step, uint32 e) internal pure returns (uint32) {
        unchecked {
            uint256 c0 = 16 * uint256(e / 64) + e % 16;
            uint256 c1 = step & WORD;
            uint256 c2 = stream;
            uint256 c3 = 0;
            uint256 k0 = uint256(seed) >> 224;
            uint256 k1 = (uint256(seed) >> 192) & WORD;
            for (uint256 round = 0; round < 10; ++round) {
                uint256 p0 = M0 * c0;
                uint256 p1 = M1 * c2;
                (c0, c1, c2, c3) = ((p1 >> 32) ^ c1 ^ k0, p1 & WORD, (p0 >> 32) ^ c3 ^ k1, p0 & WORD);
                k0 = (k0 + W0) & WORD;
                k1 = (k1 + W1) & WORD;
            }
            uint256 word = (e % 64) / 16;
            if (word < 2) return uint32(word == 0 ? c0 : c1);
            return uint32(word == 2 ? c2 : c3);
        }
    }
}
