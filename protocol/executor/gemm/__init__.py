# SPDX-License-Identifier: GPL-3.0-or-later
"""Products of matrices, and all that are products under their views: convolutions, attention.

`factor` finds the two matrices in a DOT, `plan` decides how they are cut, `pack` copies blocks of
them, `micro` is the inner loop, `result` stores its results, `kernel` puts them together.
"""
