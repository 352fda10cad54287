# SPDX-License-Identifier: GPL-3.0-or-later
"""RAND: Philox4x32-10, sixteen blocks at a time (specification, section 2).

The order of the words is made for this: the lanes of a group are consecutive blocks and each word
of the sixteen is stored as one vector.
"""

from __future__ import annotations

from protocol.executor.emitter import Emitter, vector, wrap
from protocol.executor.kernel import Shape
from protocol.program import Node
from protocol.randomness import GROUP, GROUP_LANES, MULTIPLIERS, ROUNDS, WEYL

WORDS = vector("i32", GROUP_LANES)
LONGS = vector("i64", GROUP_LANES)
PARAMETERS = 3
"""i32 words in scratch memory: step mod 2**32 and the two key words."""


def emit_philox(em: Emitter, node: Node) -> Shape:
    """Emit the body of a RAND kernel. Units are groups of 64 elements.

    Scratch memory holds the step (mod 2**32) and the key.
    """
    step, *key = [em.load("i32", em.element("%scratch", str(i))) for i in range(PARAMETERS)]
    groups = -(-node.numel // GROUP)
    buffer = em.alloca("i32", GROUP)
    with em.loop("%begin", "%end") as group:
        words = _block(em, group, step, node.stream, key)
        first = em.mul(group, GROUP)
        whole = em.op(f"icmp sle i64 {first}, {node.numel - GROUP}")
        with em.when(whole):
            _store(em, words, em.element("%out", first))
        if node.numel % GROUP:
            with em.when(em.op(f"icmp eq i64 {group}, {groups - 1}")):
                _store(em, words, buffer)
                with em.loop(0, node.numel % GROUP) as place:
                    value = em.load("i32", em.element(buffer, place))
                    em.store("i32", value, em.element("%out", em.add(first, place)))
    return Shape(groups)


def _store(em: Emitter, words: list[str], pointer: str) -> None:
    for number, word in enumerate(words):
        em.store(WORDS, word, em.element(pointer, str(number * GROUP_LANES)))


def _block(em: Emitter, group: str, step: str, stream: int, key: list[str]) -> list[str]:
    def words(name: str) -> str:
        return em.splat("i32", name, GROUP_LANES)

    first = em.op(f"trunc i64 {em.mul(group, GROUP_LANES)} to i32")
    lanes = ", ".join(f"i32 {lane}" for lane in range(GROUP_LANES))
    counter = em.op(f"add {WORDS} {words(first)}, <{lanes}>")
    x = [counter, words(step), words(str(wrap(stream, 32))), words("0")]
    for _ in range(ROUNDS):
        high0, low0 = _product(em, x[0], MULTIPLIERS[0])
        high1, low1 = _product(em, x[2], MULTIPLIERS[1])
        mixed = [em.op(f"xor {WORDS} {high1}, {x[1]}"), em.op(f"xor {WORDS} {high0}, {x[3]}")]
        x = [
            em.op(f"xor {WORDS} {mixed[0]}, {words(key[0])}"),
            low1,
            em.op(f"xor {WORDS} {mixed[1]}, {words(key[1])}"),
            low0,
        ]
        key = [em.op(f"add i32 {k}, {wrap(w, 32)}") for k, w in zip(key, WEYL, strict=True)]
    return x


def _product(em: Emitter, word: str, multiplier: int) -> tuple[str, str]:
    wide = em.op(f"zext {WORDS} {word} to {LONGS}")
    product = em.op(f"mul {LONGS} {wide}, {em.splat('i64', str(multiplier), GROUP_LANES)}")
    shifted = em.op(f"lshr {LONGS} {product}, {em.splat('i64', '32', GROUP_LANES)}")
    return (
        em.op(f"trunc {LONGS} {shifted} to {WORDS}"),
        em.op(f"trunc {LONGS} {product} to {WORDS}"),
    )
