// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.30;

import {MarketBase} from "./MarketBase.sol";
import {Run, Task, TaskSpec} from "./MarketTypes.sol";

/// @title Which segments are audited
/// @notice Uniformly drawn without replacement, adjacent ones merged into runs. What was drawn and not
/// audited stays drawn, so that withholding rids nobody of a draw; what was audited is not drawn again.
abstract contract Runs is MarketBase {
    function _currentRuns(uint256 id, Task storage task) internal view returns (Run[] memory runs) {
        (uint256 first, uint256 end) = (task.firstRun, task.runs);
        runs = new Run[](end - first);
        for (uint256 i = first; i < end; ++i) runs[i - first] = _runAt(id, i);
    }

    /// @dev Draws on, up to as many segments as this round has. None if nothing is left to draw.
    function _drawRuns(uint256 id, Task storage task, TaskSpec calldata spec, uint256 random)
        internal
        returns (Run[] memory runs)
    {
        (uint256 low, uint256 n) = (task.settled, task.logSize - 1 - task.settled);
        uint256 k = spec.samples + task.retries;
        if (k > MAX_SAMPLES) k = MAX_SAMPLES;
        if (k > n) k = n;
        (uint256[] memory drawn, uint256 count) = _drawnBefore(id, task, k);
        bool first = task.retries == 0 && task.agreed == 0; // nothing was audited yet
        while (count < k) {
            uint256 pick;
            bool isFree = false;
            // Fewer than 128 segments can be taken, so walking on from the last try finds a free one.
            for (uint256 i = 0; i < 192 && !isFree; ++i) {
                pick = i < 64 ? uint256(keccak256(abi.encode(random, count, i))) % n : (pick + 1) % n;
                isFree = first || !_audited[id][low + pick];
                for (uint256 j = 0; j < count; ++j) {
                    if (drawn[j] == low + pick) isFree = false;
                }
            }
            if (!isFree) break;
            uint256 place = count++;
            for (; place > 0 && drawn[place - 1] > low + pick; --place) drawn[place] = drawn[place - 1];
            drawn[place] = low + pick;
        }
        return _merge(id, task, drawn, count);
    }

    /// @dev The segments of the current runs, in order, with room for `k`.
    function _drawnBefore(uint256 id, Task storage task, uint256 k)
        private
        view
        returns (uint256[] memory drawn, uint256 count)
    {
        drawn = new uint256[](k);
        (uint256 first, uint256 end) = (task.firstRun, task.runs);
        for (uint256 i = first; i < end; ++i) {
            Run memory run = _runAt(id, i);
            for (uint256 j = 0; j < run.count; ++j) drawn[count++] = run.first + j;
        }
    }

    /// @dev Puts sorted segments in the place of the current runs.
    function _merge(uint256 id, Task storage task, uint256[] memory drawn, uint256 count)
        private
        returns (Run[] memory runs)
    {
        (uint256 first, uint8 round) = (task.firstRun, task.round);
        runs = new Run[](count);
        uint256 n = 0;
        for (uint256 i = 0; i < count;) {
            uint256 length = 1;
            while (i + length < count && drawn[i + length] == drawn[i] + length) ++length;
            _runs[id][first + n] = uint64(drawn[i] | length << 32 | uint256(round) << 40);
            runs[n++] = Run(uint32(drawn[i]), uint8(length), round);
            i += length;
        }
        task.runs = uint8(first + n);
        assembly ("memory-safe") {
            mstore(runs, n)
        }
    }

    /// @dev Remembers what this round has audited, and keeps its runs for those who attest them. INVARIANT: a
    /// segment whose end was only shown, as the start of another run or as the last state, may still be
    /// drawn: who copies its digest must still replay the others, and who is honest replays it.
    function _closeRuns(uint256 id, Task storage task) internal {
        Run[] memory runs = _currentRuns(id, task);
        for (uint256 i = 0; i < runs.length; ++i) {
            for (uint256 j = 0; j < runs[i].count; ++j) _audited[id][runs[i].first + j] = true;
        }
        task.firstRun = task.runs;
        task.endsHash = 0; // nothing more can be revealed
    }

    /// @dev Ends a first audit, in which enough attested, and lets a draw decide about a second one.
    function _startSecond(uint256 id, Task storage task, TaskSpec calldata spec) internal {
        _slashIdle(id, task, true);
        _closeRuns(id, task);
        task.agreed = task.round;
        task.retries = 0;
        ++task.round;
        _awaitDraw(id, task, block.timestamp + spec.auditWindow);
    }
}
