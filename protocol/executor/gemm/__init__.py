# SPDX-License-Identifier: GPL-3.0-or-later
"""Products of matrices, and all that are products under their views: convolutions, attention.

`factor` finds the two matrices in a DOT (`box` lays padded views out without padding tests), `plan`
and `sizes` decide how they are cut, `pack`, `copy` and `transpose` pack blocks of them into
scratch `memory`, `span` finds zeros that may be left out, `micro` is the inner loop, `result`
stores what comes out of it, and `kernel` puts them together.
"""
