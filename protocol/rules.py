# SPDX-License-Identifier: GPL-3.0-or-later
"""Numbers of the market that no terms can change, by the names that its contracts give them."""

from __future__ import annotations

from typing import Final

MAX_ROUNDS: Final = 3
"""Draws of one audit."""
MAX_COMMITTEE: Final = 4
"""Verifiers drawn at a time."""
QUORUM: Final = 2
"""Attestations without which nothing settles."""
MAX_SAMPLES: Final = 16
"""Segments drawn at a time."""
MAX_PROGRESS_WINDOWS: Final = 32
"""Progress windows of a task."""
MAX_WINDOW: Final = 28 * 86_400
"""Seconds of the longest window or clock that terms may have."""
HASH_BLOCKS: Final = 256
"""Blocks for which the chain keeps a block's hash."""
BOND_DOUBLES: Final = 4
"""The bond of who was not drawn doubles with every so many open challenges of the same kind."""
MAX_DEMANDS: Final = 16
"""Chunks demanded in each phase of an audit, by all together."""
DEMAND_SHARE: Final = 8
"""Demanding a chunk costs the bond divided by this, rounded up."""
PRICE_DOUBLES: Final = 4
"""The price of a demand doubles with every so many in a phase."""
SOLVER_STAKE_SHARE: Final = 4
"""A solver's stake is at least a verifier's divided by this."""
FEE_SHARE: Final = 1024
"""A verifier's fee is at least its stake divided by this."""
BOND_SHARE: Final = 32
"""A bond is at least a verifier's stake divided by this, and at most that stake."""
CHALLENGER_SHARE: Final = 40
"""Per cent of a convicted party's stake for the challenger."""
COMPENSATION_SHARE: Final = 20
"""Per cent of a convicted solver's stake for the submitter."""
