# SPDX-License-Identifier: GPL-3.0-or-later
"""The only part of Bitcourt that talks to a chain."""

from protocol.chain.client import Account, Chain, Receipt
from protocol.chain.deployment import Deployment, deploy
from protocol.chain.embedded import embedded_chain

__all__ = ["Account", "Chain", "Deployment", "Receipt", "deploy", "embedded_chain"]
