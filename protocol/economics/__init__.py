# SPDX-License-Identifier: GPL-3.0-or-later
"""What terms a task needs so that nobody gains by cheating (docs/economics.md).

audit      the chance that a faked share of the segments is noticed
stakes     the least stake, bond and second audit that make each cheat a loss
choices    all audits that the market offers, each with the stake that it needs
windows    how long windows and clocks must be for honest machines to take part
terms      what a submitter should ask for: the cheapest terms that do (with `inputs`, `reasons`)

Amounts are integers in wei, chances are fractions: nothing here rounds except upwards, at the end.
"""

from protocol.economics.audit import (
    Audit,
    audit_probability,
    catch_probability,
    detection,
    segments_for,
)
from protocol.economics.inputs import Assumptions, Demands, Prices
from protocol.economics.stakes import (
    Shares,
    least_bid_bond,
    least_bond,
    least_second_audit,
    least_solver_stake,
    least_verifier_stake,
    window_stakes,
)
from protocol.economics.terms import Terms, recommend

__all__ = [
    "Assumptions",
    "Audit",
    "Demands",
    "Prices",
    "Shares",
    "Terms",
    "audit_probability",
    "catch_probability",
    "detection",
    "least_bid_bond",
    "least_bond",
    "least_second_audit",
    "least_solver_stake",
    "least_verifier_stake",
    "recommend",
    "segments_for",
    "window_stakes",
]
