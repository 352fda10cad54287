# SPDX-License-Identifier: GPL-3.0-or-later
"""Every error that Bitcourt raises on purpose.

BitcourtError
├── ProgramError            a program is not valid (names the node and the op)
│   └── TraceError          a torch module uses something that cannot be lowered
├── CommitmentError         bytes, roots or proofs do not belong together
├── ArtifactError           a stored artifact is missing, damaged, or not what its root says
├── InfeasibleError         this machine cannot do its part in time, or its owner will not risk it
├── NumericsError           this machine does not compute the bits of the protocol (FTZ, DAZ)
├── ChainError              the chain cannot be reached, is another chain, or refused a transaction
│   ├── TransactionReverted carries the contract's custom error, decoded
│   └── InsufficientFunds
├── NotConfirmed            what the chain shows is too young to be believed
├── DisputeError            a move does not fit the state of the game
├── EconomicsError          no stake or terms can do what is asked
└── UsageError              a command was called with something it cannot use
"""

from __future__ import annotations


class BitcourtError(Exception):
    """Base class. Its message names the thing at fault and what to do about it."""


class ProgramError(BitcourtError):
    """A program breaks a rule of the specification and must be refused before any stake moves."""


class TraceError(ProgramError):
    """A torch program uses an operator, dtype or shape that Bitcourt cannot lower."""


class CommitmentError(BitcourtError):
    """Bytes, a root and a proof do not belong together."""


class ArtifactError(BitcourtError):
    """A stored artifact is missing, truncated, oversized, or does not hash to its root."""


class InfeasibleError(BitcourtError):
    """A task asks more of this machine, or risks more, than its owner can or wants to give.

    Unlike bytes that are missing, this does not change by waiting.
    """


class NumericsError(BitcourtError):
    """The machine would not compute the protocol's bits, so it must not stake money on them."""


class ChainError(BitcourtError):
    """The chain is unreachable, is not the one that was asked for, or refused a transaction."""


class NotConfirmed(BitcourtError):
    """The chain has begun to show something, and it may still be another thing in the end."""


class TransactionReverted(ChainError):
    """A contract refused a call.

    `error` is the name of its custom error, `arguments` the decoded arguments.
    """

    def __init__(self, message: str, error: str = "", arguments: tuple[object, ...] = ()) -> None:
        super().__init__(message)
        self.error = error
        self.arguments = arguments


class InsufficientFunds(ChainError):
    """The account cannot pay for the transaction and its gas."""


class DisputeError(BitcourtError):
    """A move does not fit the state of the game."""


class EconomicsError(BitcourtError):
    """No stake, bond or terms make cheating a loss under these assumptions."""


class UsageError(BitcourtError):
    """A command or function was called with something that it cannot use."""


def said(error: Exception) -> str:
    """What a log says of an error: its message, and its type if it is not one of ours."""
    return str(error) if isinstance(error, BitcourtError) else f"{type(error).__name__}: {error}"
