# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes one LLVM IR function as text.

Text keeps the generator small and fast: a program of a few thousand nodes must compile in seconds.
Everything mutable (loop counters, accumulators) is an `alloca` in the entry block; LLVM's SROA
turns it into registers. No instruction here ever carries a fast-math flag, so LLVM may neither
contract, reassociate nor flush anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

MANGLED: Final = {"float": "f32", "i32": "i32", "i64": "i64", "ptr": "p0"}


def vector(element: str, width: int) -> str:
    """Return the LLVM type of `width` elements; one element is a scalar."""
    return element if width == 1 else f"<{width} x {element}>"


def mangled(element: str, width: int) -> str:
    """Return a type's suffix in the name of an intrinsic, such as `v16f32`."""
    return MANGLED[element] if width == 1 else f"v{width}{MANGLED[element]}"


def wrap(value: int, bits: int = 64) -> int:
    """Return the two's complement value of an exact integer, as LLVM constants want it."""
    half = 1 << bits - 1
    return (value + half) % (1 << bits) - half


@dataclass(frozen=True)
class Variable:
    """A mutable local of one LLVM type."""

    emitter: Emitter
    pointer: str
    type: str

    def get(self) -> str:
        """Return its present value."""
        return self.emitter.op(f"load {self.type}, ptr {self.pointer}")

    def set(self, value: str) -> None:
        """Overwrite it."""
        self.emitter.do(f"store {self.type} {value}, ptr {self.pointer}")


@dataclass
class Emitter:
    """The body of one function, and the intrinsics that it needs declared."""

    declarations: set[str] = field(default_factory=set)
    entry: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    count: int = 0
    functions: dict[str, str] = field(default_factory=dict)
    """Text of the functions that several kernels share, by name."""

    def fresh(self, prefix: str = "v") -> str:
        """Return a name that is not used in this function."""
        self.count += 1
        return f"{prefix}{self.count}"

    def do(self, text: str) -> None:
        """Append one instruction without a result."""
        self.lines.append(text)

    def op(self, text: str) -> str:
        """Append one instruction and return the name of its result."""
        name = f"%{self.fresh()}"
        self.lines.append(f"{name} = {text}")
        return name

    def label(self, name: str) -> None:
        """Begin a basic block; the one before must have ended."""
        self.lines.append(f"{name}:")

    def call(
        self, result: str, name: str, arguments: list[tuple[str, str]], align: str = ""
    ) -> str:
        """Call a pure intrinsic with (type, value) arguments; `align` annotates a first pointer."""
        types = ", ".join(kind for kind, _ in arguments)
        self.declarations.add(f"declare {result} @{name}({types})")
        texts = [f"{kind} {value}" for kind, value in arguments]
        for place, (kind, value) in enumerate(arguments):
            if align and ("ptr" in kind):
                texts[place] = f"{kind} {align} {value}"
        return self.op(f"call {result} @{name}({', '.join(texts)})")

    def alloca(self, type_: str, count: int = 1) -> str:
        """Return a pointer to uninitialized local memory, 64-byte aligned."""
        name = f"%{self.fresh('a')}"
        self.entry.append(f"{name} = alloca {type_}, i64 {count}, align 64")
        return name

    def variable(self, type_: str, value: str) -> Variable:
        """Return a new variable that is set here (again on every pass of a surrounding loop)."""
        result = Variable(self, self.alloca(type_), type_)
        result.set(value)
        return result

    @contextmanager
    def loop(self, start: str | int, stop: str | int, step: int = 1) -> Iterator[str]:
        """Emit `for i in range(start, stop, step)` around the body; yields the i64 counter."""
        counter = self.variable("i64", str(start))
        head, body, done = self.fresh("head"), self.fresh("body"), self.fresh("done")
        self.do(f"br label %{head}")
        self.label(head)
        i = counter.get()
        more = self.op(f"icmp slt i64 {i}, {stop}")
        self.do(f"br i1 {more}, label %{body}, label %{done}")
        self.label(body)
        yield i
        counter.set(self.op(f"add nsw i64 {i}, {step}"))
        self.do(f"br label %{head}")
        self.label(done)

    @contextmanager
    def when(self, condition: str) -> Iterator[None]:
        """Emit the body so that it runs only if the i1 `condition` holds."""
        then, after = self.fresh("then"), self.fresh("after")
        self.do(f"br i1 {condition}, label %{then}, label %{after}")
        self.label(then)
        yield
        self.do(f"br label %{after}")
        self.label(after)

    # i64 arithmetic, folded where both sides are constants ---------------------------------------

    def add(self, a: str | int, b: str | int) -> str:
        """Return a + b modulo 2**64."""
        if str(a) == "0":
            return str(b)
        if str(b) == "0":
            return str(a)
        return self.op(f"add i64 {a}, {b}")

    def mul(self, a: str, factor: int) -> str:
        """Return a * factor modulo 2**64."""
        if factor == 1:
            return a
        return "0" if factor == 0 or a == "0" else self.op(f"mul i64 {a}, {wrap(factor)}")

    def least(self, a: str, b: str | int) -> str:
        """Return the smaller of two signed i64."""
        return self.call("i64", "llvm.smin.i64", [("i64", a), ("i64", str(b))])

    def most(self, a: str, b: str | int) -> str:
        """Return the larger of two signed i64."""
        return self.call("i64", "llvm.smax.i64", [("i64", a), ("i64", str(b))])

    def unravel(self, index: str, sizes: tuple[int, ...]) -> list[str]:
        """Return the row-major coordinates of a nonnegative i64 index."""
        result: list[str] = []
        for place, size in reversed(list(enumerate(sizes))):
            if place == 0:
                result.append(index)
            else:
                result.append(self.op(f"urem i64 {index}, {size}"))
                index = self.op(f"udiv i64 {index}, {size}")
        return result[::-1]

    # Memory and vectors --------------------------------------------------------------------------

    def element(self, pointer: str, index: str) -> str:
        """Return the address of 4-byte element `index`."""
        return self.op(f"getelementptr i32, ptr {pointer}, i64 {index}")

    def load(self, type_: str, address: str) -> str:
        """Load a scalar or vector of 4-byte elements."""
        return self.op(f"load {type_}, ptr {address}, align 4")

    def store(self, type_: str, value: str, address: str) -> None:
        """Store a scalar or vector of 4-byte elements."""
        self.do(f"store {type_} {value}, ptr {address}, align 4")

    def splat(self, element: str, value: str, width: int) -> str:
        """Return a vector with `value` in every lane; the scalar itself if width is 1."""
        if width == 1:
            return value
        if not value.startswith("%"):
            return f"splat ({element} {value})"
        kind = vector(element, width)
        one = self.op(f"insertelement {kind} poison, {element} {value}, i64 0")
        return self.op(
            f"shufflevector {kind} {one}, {kind} poison, <{width} x i32> zeroinitializer"
        )

    def text(self, name: str, parameters: str) -> str:
        """Return the whole definition of a function that returns nothing."""
        body = "\n".join(["entry:", *self.entry, "br label %start", "start:", *self.lines])
        return f"define void @{name}({parameters}) noinline #0 {{\n{body}\nret void\n}}\n"
