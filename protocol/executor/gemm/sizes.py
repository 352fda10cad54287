# SPDX-License-Identifier: GPL-3.0-or-later
"""Sizes of blocks, groups and chunks; but for the block, none of them changes a bit."""

from __future__ import annotations

from typing import Final

BLOCK: Final = 256
"""Terms of a chain, and so of a block of packed factors."""
COLUMNS: Final = 512
"""Columns of a group, at most: the right factor is packed for one group at a time."""
ROWS: Final = 192
"""Rows of a group, at most; those of one block must fit the second-level cache."""
CHUNK: Final = 4 * BLOCK
"""Terms that are packed at a time where all of them would take more than..."""
WHOLE: Final = 8 * BLOCK
"""... so many."""
BOX: Final = 1 << 22
"""Elements of a box that may be held at a time."""
