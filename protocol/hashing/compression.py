# SPDX-License-Identifier: GPL-3.0-or-later
"""The SHA-256 compression function (FIPS 180-4, section 6.2.2) as LLVM IR, two streams at a time.

A CPU with the SHA extensions has a latency of four cycles and a throughput of two for its slowest
instruction, `sha256rnds2`: one stream leaves half of it idle, two independent ones fill it.

The instructions keep the eight state words in two vectors, here as lanes 0 to 3: `F E B A` and
`H G D C`.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isqrt
from typing import Final

_MASK: Final = 0xFFFFFFFF


def _primes(count: int) -> list[int]:
    found: list[int] = []
    candidate = 2
    while len(found) < count:
        if all(candidate % prime for prime in found):
            found.append(candidate)
        candidate += 1
    return found


def _cube_root(number: int) -> int:
    """Return the integer part of the cube root."""
    guess = 1 << -(-number.bit_length() // 3)
    while guess**3 > number:
        guess = (2 * guess + number // (guess * guess)) // 3
    return guess


# FIPS 180-4, sections 4.2.2 and 5.3.3: 32 bits of the fractions of the roots of the first primes.
ROUND_CONSTANTS: Final = [_cube_root(prime << 96) & _MASK for prime in _primes(64)]
INITIAL: Final = [isqrt(prime << 64) & _MASK for prime in _primes(8)]


def vector(words: list[int]) -> str:
    """Return four words as a constant."""
    return "<" + ", ".join(f"i32 {word}" for word in words) + ">"


def initial_vectors() -> tuple[str, str]:
    """Return the initial state as the instructions want it."""
    a, b, c, d, e, f, g, h = INITIAL
    return vector([f, e, b, a]), vector([h, g, d, c])


def _stream(name: str) -> Iterator[list[str]]:
    """Yield what one stream does in each of the sixteen groups of four rounds."""
    words = [f"%{name}m{group}" for group in range(16)]
    high, low = f"%{name}high", f"%{name}low"
    for group in range(16):
        lines: list[str] = []

        def op(result: str, text: str, lines: list[str] = lines) -> str:
            lines.append(f"  {result} = {text}")
            return result

        tag = f"{name}{group}"
        if group < 4:
            place = op(f"%p{tag}", f"getelementptr i8, ptr %{name}, i64 {16 * group}")
            raw = op(f"%r{tag}", f"load <4 x i32>, ptr {place}, align 1")
            op(words[group], f"call <4 x i32> @llvm.bswap.v4i32(<4 x i32> {raw})")
        else:
            # W[t] = s1(W[t-2]) + W[t-7] + s0(W[t-15]) + W[t-16], four at a time.
            oldest, old, recent, last = words[group - 4 : group]
            begun = op(
                f"%b{tag}",
                f"call <4 x i32> @llvm.x86.sha256msg1(<4 x i32> {oldest}, <4 x i32> {old})",
            )
            seventh = op(
                f"%s{tag}",
                f"shufflevector <4 x i32> {recent}, <4 x i32> {last}, "
                "<4 x i32> <i32 1, i32 2, i32 3, i32 4>",
            )
            summed = op(f"%t{tag}", f"add <4 x i32> {begun}, {seventh}")
            op(
                words[group],
                f"call <4 x i32> @llvm.x86.sha256msg2(<4 x i32> {summed}, <4 x i32> {last})",
            )
        constants = vector(ROUND_CONSTANTS[4 * group : 4 * group + 4])
        keyed = op(f"%k{tag}", f"add <4 x i32> {words[group]}, {constants}")
        upper = op(
            f"%u{tag}",
            f"shufflevector <4 x i32> {keyed}, <4 x i32> poison, "
            "<4 x i32> <i32 2, i32 3, i32 0, i32 1>",
        )
        rounds = "call <4 x i32> @llvm.x86.sha256rnds2(<4 x i32> {}, <4 x i32> {}, <4 x i32> {})"
        low = op(f"%l{tag}", rounds.format(low, high, keyed))
        high = op(f"%h{tag}", rounds.format(high, low, upper))
        yield lines


def compression_text() -> str:
    """Return `void @blocks(ptr states, ptr a, ptr b, i64 count)`.

    It compresses `count` blocks of 64 bytes at `a`, and as many at `b`, into the four vectors at
    `states` (two of each stream). Nothing needs to be aligned but `states`, to 16 bytes.
    """
    states = ("ahigh", "alow", "bhigh", "blow")
    lines = ["define private void @blocks(ptr %states, ptr %first, ptr %second, i64 %count)"]
    lines += ["    noinline #0 {", "entry:"]
    for number, name in enumerate(states):
        lines.append(f"  %at{name} = getelementptr <4 x i32>, ptr %states, i64 {number}")
        lines.append(f"  %old{name} = load <4 x i32>, ptr %at{name}, align 16")
    lines += ["  br label %head", "head:"]
    lines.append("  %done = phi i64 [ 0, %entry ], [ %next, %body ]")
    for name, start in (("a", "first"), ("b", "second")):
        lines.append(f"  %{name} = phi ptr [ %{start}, %entry ], [ %{name}next, %body ]")
    for name in states:
        lines.append(f"  %{name} = phi <4 x i32> [ %old{name}, %entry ], [ %new{name}, %body ]")
    lines += ["  %more = icmp ult i64 %done, %count", "  br i1 %more, label %body, label %end"]
    lines.append("body:")
    for ours, theirs in zip(_stream("a"), _stream("b"), strict=True):
        lines += [*ours, *theirs]
    for name in states:
        letter, vector_name = name[0], name[1]
        lines.append(f"  %new{name} = add <4 x i32> %{name}, %{vector_name}{letter}15")
    for name in ("a", "b"):
        lines.append(f"  %{name}next = getelementptr i8, ptr %{name}, i64 64")
    lines += ["  %next = add i64 %done, 1", "  br label %head", "end:"]
    lines += [f"  store <4 x i32> %{name}, ptr %at{name}, align 16" for name in states]
    lines += ["  ret void", "}"]
    operands = "<4 x i32>, <4 x i32>"
    lines += [
        f"declare <4 x i32> @llvm.x86.sha256rnds2({operands}, <4 x i32>)",
        f"declare <4 x i32> @llvm.x86.sha256msg1({operands})",
        f"declare <4 x i32> @llvm.x86.sha256msg2({operands})",
        "declare <4 x i32> @llvm.bswap.v4i32(<4 x i32>)",
    ]
    return "\n".join(lines) + "\n"
