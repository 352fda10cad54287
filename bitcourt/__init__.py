# SPDX-License-Identifier: GPL-3.0-or-later
"""Bitcourt: buy and sell machine-learning training between strangers, and trust the result."""

from bitcourt.job import Job, load_job
from bitcourt.trainer import Checkpoint, Trainer
from protocol.bundle import Bundle
from protocol.chain import Chain, Deployment, deploy, embedded_chain
from protocol.errors import BitcourtError
from protocol.market import Market
from protocol.program import Program
from protocol.store import Store
from protocol.task import Status, TaskSpec

__all__ = [
    "BitcourtError",
    "Bundle",
    "Chain",
    "Checkpoint",
    "Deployment",
    "Job",
    "Market",
    "Program",
    "Status",
    "Store",
    "TaskSpec",
    "Trainer",
    "deploy",
    "embedded_chain",
    "load_job",
]
