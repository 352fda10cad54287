# SPDX-License-Identifier: GPL-3.0-or-later
"""Developer tools of the checkout: toolchain, contract compilation, deployment. Never shipped."""
