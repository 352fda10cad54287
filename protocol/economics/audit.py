# SPDX-License-Identifier: GPL-3.0-or-later
"""The chance that an audit notices a cheat: exact, in fractions.

k of N segments are drawn uniformly without replacement, so whoever faked j of them is missed with
the hypergeometric probability C(N - j, k) / C(N, k). An audit in which nobody honest takes part
notices nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil, comb

from protocol.errors import EconomicsError, UsageError
from protocol.rules import MAX_COMMITTEE, MAX_ROUNDS, QUORUM


def detection(segments: int, samples: int, faked: int) -> Fraction:
    """Return the chance that `samples` of `segments` drawn segments hit one of `faked` ones.

    Raises UsageError outside 1 <= samples <= segments,
    0 <= faked <= segments.
    """
    if not 1 <= samples <= segments:
        raise UsageError(f"{samples} of {segments} segments cannot be drawn")
    if not 0 <= faked <= segments:
        raise UsageError(f"{faked} of {segments} segments cannot be faked")
    # C(N-j, k) / C(N, k) = C(N-k, j) / C(N, j): whichever has the smaller lower index.
    few, many = sorted((samples, faked))
    return 1 - Fraction(comb(segments - many, few), comb(segments, few))


def segments_for(segments: int, probability: Fraction, share: Fraction) -> int:
    """Return how many segments to draw so that whoever fakes `share` of them or more is noticed.

    At least with `probability`, that is: the least such number, in 1..segments. Raises UsageError
    without segments, or unless both are above 0 and at most 1.
    """
    if segments < 1:
        raise UsageError("there is no segment to draw")
    if not 0 < share <= 1 or not 0 < probability <= 1:
        raise UsageError("a share and a probability lie above 0 and at most at 1")
    faked = ceil(share * segments)
    if probability == 1:
        return segments - faked + 1
    enough = 1
    while enough < segments and detection(segments, enough, faked) < probability:
        enough = min(2 * enough, segments)
    low = enough // 2
    while low + 1 < enough:
        middle = (low + enough) // 2
        if detection(segments, middle, faked) < probability:
            low = middle
        else:
            enough = middle
    return enough


def audit_probability(
    colluding: Fraction,
    committee: int,
    second_audit: Fraction = Fraction(0),
    sure_of_committee: bool = False,
) -> Fraction:
    """Return the chance `a` that an audit is real: somebody honest replays what was drawn.

    `colluding` is the chance that a seat goes to an accomplice: the share of the registered stake
    that belongs to the cheater, and up to four times that if it also fills the stakes of others.
    Nobody is drawn twice. The cheater need not have all of the `committee` seats: it serves its
    states only to its accomplices, and the others report that they got nothing. An audit that fails
    for that is drawn again, so it has MAX_ROUNDS tries. With the chance `second_audit`, another
    committee draws as many segments again; with `sure_of_committee` the first always colludes.

    The two audits draw their segments independently, and noticing in either is enough, so that the
    whole chance of being noticed is at least a * d(f). Raises UsageError for shares outside 0..1
    and committees that the market does not have.
    """
    _check_shares(colluding, committee, second_audit)
    real = _uncaptured(colluding, committee, needed(committee))
    first = Fraction(0) if sure_of_committee else real
    return first + (1 - first) * second_audit * real


def catch_probability(
    colluding: Fraction,
    committee: int,
    second_audit: Fraction = Fraction(0),
    sure_of_committee: bool = False,
) -> Fraction:
    """Return the chance that a verifier who attests to a faked segment is not alone with it.

    That is, that its accomplices have too few of the other seats, or that a second audit is real.
    Arguments and errors as in `audit_probability`.
    """
    _check_shares(colluding, committee, second_audit)
    least = needed(committee)
    others = _uncaptured(colluding, committee - 1, least - 1)
    first = Fraction(0) if sure_of_committee else others
    return first + (1 - first) * second_audit * _uncaptured(colluding, committee, least)


def needed(committee: int) -> int:
    """Return how many of a committee's seats must attest if the others say they got nothing."""
    enough = (n for n in range(QUORUM, committee + 1) if 2 * (committee - n) < n)
    return next(enough, committee)


def _uncaptured(colluding: Fraction, seats: int, least: int) -> Fraction:
    """Return the chance that in no try at least so many of the seats go to accomplices."""
    captured = sum(
        (
            comb(seats, n) * colluding**n * (1 - colluding) ** (seats - n)
            for n in range(least, seats + 1)
        ),
        Fraction(0),
    )
    return (1 - captured) ** MAX_ROUNDS


@dataclass(frozen=True)
class Audit:
    """An audit of `samples` of `segments` segments that is real with the chance `probability`.

    Raises UsageError for numbers out of range, and EconomicsError if it is never real.
    """

    segments: int
    samples: int
    probability: Fraction = Fraction(1)

    def __post_init__(self) -> None:
        detection(self.segments, self.samples, 0)
        if not 0 <= self.probability <= 1:
            raise UsageError(f"{self.probability} is no probability")
        if self.probability == 0:
            raise EconomicsError("no audit is ever real, so no stake deters: add honest verifiers")

    def caught(self, faked: int) -> Fraction:
        """Return the chance that faking so many segments is noticed, a * d(f)."""
        return self.probability * detection(self.segments, self.samples, faked)

    def least_loss(self, cost: int, gain: int = 0) -> Fraction:
        """Return what being noticed must cost at least: max over f of (f*C + G) / (a*d(f)).

        `cost` is what honest training costs, in wei, of which faking j of N segments saves j/N;
        `gain` comes from elsewhere, and from the first faked segment on.

        Only the ends matter. d is concave in j, because each further faked segment adds
        C(N-j-1, k-1) / C(N, k), which falls with j; a linear function over a concave one has no
        maximum inside.
        """
        if cost < 0 or gain < 0:
            raise UsageError("neither cost nor gain can be negative")
        n = self.segments
        return max(Fraction(j * cost + n * gain, n) / self.caught(j) for j in (1, n))


def _check_shares(colluding: Fraction, committee: int, second_audit: Fraction) -> None:
    if not 0 <= colluding <= 1 or not 0 <= second_audit <= 1:
        raise UsageError("shares and probabilities lie between 0 and 1")
    if not QUORUM <= committee <= MAX_COMMITTEE:
        raise UsageError(f"a committee has {QUORUM} to {MAX_COMMITTEE} seats, not {committee}")
