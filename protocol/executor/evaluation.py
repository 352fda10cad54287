# SPDX-License-Identifier: GPL-3.0-or-later
"""Evaluates an expression at one place, or at `width` neighbouring places along one axis.

A register that is the same in all lanes stays a scalar. Loads are contiguous vectors where the
address advances by one per lane, gathers otherwise; where a bounds test can fail the lanes outside
are masked off and hold the fill value. Masked lanes are never read, so their addresses may be wild.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from protocol.executor.access import Access, Affine, Body, Test
from protocol.executor.emitter import Emitter, mangled, vector, wrap
from protocol.executor.primitives import ELEMENT, Value, constant, emit, widened
from protocol.ops import SIGNATURES
from protocol.program import Expression

_LARGEST_I32: Final = (1 << 31) - 1
_LETTERS: Final = {op: signature.operands for op, signature in SIGNATURES.items()}


def dependencies(body: Body, expression: Expression) -> list[frozenset[int]]:
    """Return the axes that each register depends on."""
    result: list[frozenset[int]] = []
    for access in body.accesses:
        axes: set[int] = set()
        for affine in access.affines():
            axes |= {axis for axis, _ in affine.axes}
            for operand, _ in affine.values:
                axes |= result[operand]
        result.append(frozenset() if access.outside else frozenset(axes))
    result += [frozenset()] * len(expression.immediates)
    for instruction in expression.instructions:
        result.append(frozenset().union(*(result[register] for register in instruction.args)))
    return result


@dataclass(frozen=True)
class Lanes:
    """An integer in each lane: `base + stride * lane + extra[lane]` in LLVM type `kind`."""

    kind: str
    base: str
    stride: int = 0
    extra: str | None = None

    @property
    def uniform(self) -> bool:
        """Whether all lanes are equal."""
        return self.stride == 0 and self.extra is None


@dataclass
class Evaluation:
    """The registers of one expression at one place; each is emitted once, when first asked for."""

    em: Emitter
    body: Body
    expression: Expression
    coordinates: list[str]
    """i64 coordinate of each axis, of lane 0."""
    axis: int = -1
    """The axis along which the lanes lie; -1 for none."""
    width: int = 1
    active: int = -1
    """How many lanes are wanted, from the first; -1 for all. The others read nothing."""
    known: dict[int, Value] = field(default_factory=dict)

    def value(self, register: int, letter: str) -> Value:
        """Return a register; `letter` is the kind that its reader needs (for immediates)."""
        operands = len(self.expression.operands)
        if operands <= register < self.expression.first_result:
            return constant(self.expression.immediates[register - operands], letter)
        if register not in self.known:
            if register < operands:
                value = self._operand(self.body.accesses[register])
            else:
                code = self.expression.instructions[register - self.expression.first_result]
                letters = _LETTERS[code.op]
                arguments = [self.value(r, c) for r, c in zip(code.args, letters, strict=True)]
                value = emit(self.em, code.op, arguments)
            self.known[register] = value
        return self.known[register]

    def _affine(self, affine: Affine, bits: int) -> Lanes:
        """Return an affine form modulo 2**bits."""
        em, kind = self.em, f"i{bits}"
        total = str(wrap(affine.offset, bits))
        for axis, coef in affine.axes:
            x = self.coordinates[axis]
            if bits != 64:
                x = em.op(f"{'trunc' if bits < 64 else 'sext'} i64 {x} to {kind}")
            total = self._plus(kind, total, self._times(kind, x, coef, bits))
        extra = None
        for operand, coef in affine.values:
            value = self.value(operand, "i")
            wide, name = vector(kind, value.width), value.name
            if bits != 32:
                name = em.op(f"sext {value.type} {name} to {wide}")
            if coef != 1:
                factor = em.splat(kind, str(wrap(coef, bits)), value.width)
                name = em.op(f"mul {wide} {name}, {factor}")
            if value.width == 1:
                total = self._plus(kind, total, name)
            else:
                extra = name if extra is None else em.op(f"add {wide} {extra}, {name}")
        return Lanes(kind, total, affine.coef(self.axis), extra)

    def _plus(self, kind: str, a: str, b: str) -> str:
        if a == "0":
            return b
        return self.em.op(f"add {kind} {a}, {b}")

    def _times(self, kind: str, a: str, coef: int, bits: int) -> str:
        return a if coef == 1 else self.em.op(f"mul {kind} {a}, {wrap(coef, bits)}")

    def _spread(self, lanes: Lanes) -> str:
        """Return lanes as an LLVM vector of `width` elements (a scalar if width is 1)."""
        em, width, kind = self.em, self.width, lanes.kind
        wide = vector(kind, width)
        result = em.splat(kind, lanes.base, width)
        if lanes.stride and width > 1:
            bits = int(kind[1:])
            steps = ", ".join(f"{kind} {wrap(lanes.stride * i, bits)}" for i in range(width))
            result = em.op(f"add {wide} {result}, <{steps}>")
        if lanes.extra is not None:
            result = em.op(f"add {wide} {result}, {lanes.extra}")
        return result

    def _test(self, test: Test) -> list[tuple[str, bool]]:
        """Return conditions: i1 values, or vectors of them, and whether they are scalars."""
        em = self.em
        lanes = self._affine(test.affine, test.bits)
        conditions = []
        if test.bounded:
            kind, x, width = self._each(lanes)
            for relation, bound in (("sge", test.low), ("slt", test.high)):
                limit = em.splat(lanes.kind, str(bound), width)
                if test.bits == 32 and bound > _LARGEST_I32:
                    continue  # no i32 reaches it
                conditions.append((em.op(f"icmp {relation} {kind} {x}, {limit}"), width == 1))
        if test.dilation > 1:
            if lanes.extra is None and lanes.stride % test.dilation == 0:
                lanes = Lanes(lanes.kind, lanes.base)  # all lanes have the remainder of the first
            kind, x, width = self._each(lanes)
            # Division of 128 bits would be a library call; inside the bounds 64 bits are enough.
            small = "i64" if test.bits == 128 or test.dilation > _LARGEST_I32 else lanes.kind
            if test.bits == 128:
                x = em.op(f"trunc {kind} {x} to {vector(small, width)}")
            elif small != lanes.kind:
                x = em.op(f"sext {kind} {x} to {vector(small, width)}")
            kind = vector(small, width)
            divisor = em.splat(small, str(test.dilation), width)
            rest = em.op(f"srem {kind} {x}, {divisor}")
            whole = em.op(f"icmp eq {kind} {rest}, {em.splat(small, '0', width)}")
            conditions.append((whole, width == 1))
        return conditions

    def _each(self, lanes: Lanes) -> tuple[str, str, int]:
        """Return LLVM type, value and width of lanes; what is uniform stays a scalar."""
        if lanes.uniform:
            return lanes.kind, lanes.base, 1
        return vector(lanes.kind, self.width), self._spread(lanes), self.width

    def _and(self, kind: str, a: str, b: str) -> str:
        return self.em.op(f"and {kind} {a}, {b}")

    def _tests(self, tests: tuple[Test, ...]) -> tuple[str | None, str | None]:
        """Return what all lanes must pass (i1) and what each must (vector), None if nothing."""
        uniform: str | None = None
        varying: str | None = None
        flags = vector("i1", self.width)
        for condition, scalar in (one for test in tests for one in self._test(test)):
            if scalar:
                uniform = condition if uniform is None else self._and("i1", uniform, condition)
            else:
                varying = condition if varying is None else self._and(flags, varying, condition)
        return uniform, varying

    def active_mask(self) -> str:
        """Return the vector of i1 that says which lanes are wanted."""
        lanes = (f"i1 {'true' if lane < self.active else 'false'}" for lane in range(self.width))
        return f"<{', '.join(lanes)}>"

    def _wanted(self, varying: str | None) -> str:
        """Return a mask without the lanes that are not wanted."""
        if varying is None:
            return self.active_mask()
        flags = vector("i1", self.width)
        return self.em.op(f"and {flags} {varying}, {self.active_mask()}")

    def _address(self, access: Access) -> Lanes:
        em, lanes = self.em, self._affine(access.address, 64)
        base, stride, extra = lanes.base, lanes.stride, lanes.extra
        for affine, dilation, step in access.quotients:
            part = self._affine(affine, 64)
            if part.extra is None and part.stride % dilation == 0:
                stride += part.stride // dilation * step  # whole in every lane or in none
                part = Lanes(part.kind, part.base)
            kind, x, width = self._each(part)
            x = em.op(f"sdiv {kind} {x}, {em.splat('i64', str(dilation), width)}")
            x = em.op(f"mul {kind} {x}, {em.splat('i64', str(step), width)}")
            if part.uniform:
                base = self._plus("i64", base, x)
            else:
                extra = x if extra is None else em.op(f"add {kind} {extra}, {x}")
        return Lanes("i64", base, stride, extra)

    def _operand(self, access: Access) -> Value:
        em = self.em
        if access.outside:
            return constant(access.fill, access.letter)
        if access.source < 0:
            lanes = self._affine(access.address, 32)
            if lanes.uniform:
                return Value(lanes.base, "i", 1)
            return Value(self._spread(lanes), "i", self.width)
        address = self._address(access)
        uniform, varying = self._tests(access.tests)
        if self.active >= 0 and not address.uniform:
            varying = self._wanted(varying)
        width = 1 if address.uniform and varying is None else self.width
        element = ELEMENT[access.letter]
        kind = vector(element, width)
        fill = constant(access.fill, access.letter)
        pointer = f"%s{access.source}"
        if uniform is None:
            name = self._read(pointer, address, element, width, varying, fill)
        else:
            result = em.variable(kind, widened(em, fill, width).name)
            with em.when(uniform):
                result.set(self._read(pointer, address, element, width, varying, fill))
            name = result.get()
        return Value(name, access.letter, width, access.canonical)

    def _read(
        self, pointer: str, lanes: Lanes, element: str, width: int, mask: str | None, fill: Value
    ) -> str:
        """Load `width` elements, those that the mask excludes being `fill`."""
        em = self.em
        kind, flags = vector(element, width), vector("i1", width)
        place = em.element(pointer, lanes.base)
        contiguous = lanes.stride == 1 and lanes.extra is None
        if width == 1 or (contiguous and mask is None):
            return em.load(kind, place)
        other = em.splat(element, fill.name, width)
        if contiguous:
            arguments = [("ptr", place), (flags, str(mask)), (kind, other)]
            name = f"llvm.masked.load.{mangled(element, width)}.p0"
            return em.call(kind, name, arguments, align="align 4")
        small = lanes.extra is None and abs(lanes.stride) * width <= _LARGEST_I32
        offset = "i32" if small else "i64"
        index = self._spread(Lanes(offset, "0", lanes.stride, lanes.extra))
        pointers = vector("ptr", width)
        places = em.op(f"getelementptr i32, ptr {place}, {vector(offset, width)} {index}")
        lanes_read = mask or em.splat("i1", "true", width)
        arguments = [(pointers, places), (flags, lanes_read), (kind, other)]
        name = f"llvm.masked.gather.{mangled(element, width)}.v{width}p0"
        return em.call(kind, name, arguments, align="align 4")
