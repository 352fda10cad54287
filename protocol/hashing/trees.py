# SPDX-License-Identifier: GPL-3.0-or-later
"""Tensor trees (specification, section 4) as LLVM IR on top of `compression`.

The work is cut into *units* of 64 leaves, whose subtree has its root at level 6 of the whole tree:
any number of threads take units from one atomic counter (`units`), then one of them joins the roots
of the units (`finish`). A unit is hashed in a buffer on the stack; of a tree that is to be kept,
its levels are copied out from there.

Messages are a prefix byte and then data, so all their blocks but the first are read where they lie,
one byte off; the first, and the last with its padding, are put together on the stack.
"""

from __future__ import annotations

import re
from typing import Final

from protocol.hashing.compression import compression_text, initial_vectors

UNIT: Final = 64
"""Leaves of a unit."""
UNIT_LEVEL: Final = 6

# Words (8 bytes) of a job: one tensor.
DATA, BYTES, LEAVES, OUT, KEEP, FIRST = range(6)
"""Address and length of the data, number of leaves, where to write, whether to keep all levels,
number of the first unit. If levels are kept, they lie at OUT one after the other, from the leaves
up; else OUT has one hash per unit, and ends with the root in its first place."""
JOB: Final = 6

# Words of the control block.
JOBS, COUNT, UNITS, TAKEN = range(4)
"""Address and number of the jobs, the number of all units, and how many are taken (atomic)."""
CONTROL: Final = 4

_TEXT: Final = """
define private void @begin(ptr %states) alwaysinline #0 {
  %1 = getelementptr i8, ptr %states, i64 16
  %2 = getelementptr i8, ptr %states, i64 32
  %3 = getelementptr i8, ptr %states, i64 48
  store <4 x i32> HIGH, ptr %states, align 16
  store <4 x i32> LOW, ptr %1, align 16
  store <4 x i32> HIGH, ptr %2, align 16
  store <4 x i32> LOW, ptr %3, align 16
  ret void
}

define private void @digest(ptr %states, ptr %out) alwaysinline #0 {
  %second = getelementptr i8, ptr %states, i64 16
  %high = load <4 x i32>, ptr %states, align 16
  %low = load <4 x i32>, ptr %second, align 16
  %abcd = shufflevector <4 x i32> %high, <4 x i32> %low, <4 x i32> <i32 3, i32 2, i32 7, i32 6>
  %efgh = shufflevector <4 x i32> %high, <4 x i32> %low, <4 x i32> <i32 1, i32 0, i32 5, i32 4>
  %left = call <4 x i32> @llvm.bswap.v4i32(<4 x i32> %abcd)
  %right = call <4 x i32> @llvm.bswap.v4i32(<4 x i32> %efgh)
  %rest = getelementptr i8, ptr %out, i64 16
  store <4 x i32> %left, ptr %out, align 1
  store <4 x i32> %right, ptr %rest, align 1
  ret void
}

define private void @open(ptr %block, ptr %data, i8 %prefix) alwaysinline #0 {
  %rest = getelementptr i8, ptr %block, i64 1
  store i8 %prefix, ptr %block
  call void @llvm.memcpy.p0.p0.i64(ptr %rest, ptr %data, i64 63, i1 false)
  ret void
}

define private void @close(ptr %block, ptr %data, i64 %bytes) alwaysinline #0 {
  call void @llvm.memset.p0.i64(ptr %block, i8 0, i64 64, i1 false)
  %end = getelementptr i8, ptr %data, i64 %bytes
  %lastp = getelementptr i8, ptr %end, i64 -1
  %last = load i8, ptr %lastp
  %mark = getelementptr i8, ptr %block, i64 1
  %length = getelementptr i8, ptr %block, i64 62
  %all = add i64 %bytes, 1
  %bits = shl i64 %all, 3
  %short = trunc i64 %bits to i16
  %big = call i16 @llvm.bswap.i16(i16 %short)
  store i8 %last, ptr %block
  store i8 -128, ptr %mark
  store i16 %big, ptr %length, align 1
  ret void
}

; Hashes prefix || 64*blocks bytes at a, and the same at b.
define private void @pair(ptr %a, ptr %b, ptr %outa, ptr %outb, i64 %blocks, i8 %prefix)
    noinline #0 {
  %states = alloca [4 x <4 x i32>], align 16
  %blocka = alloca [64 x i8], align 16
  %blockb = alloca [64 x i8], align 16
  call void @begin(ptr %states)
  call void @open(ptr %blocka, ptr %a, i8 %prefix)
  call void @open(ptr %blockb, ptr %b, i8 %prefix)
  call void @blocks(ptr %states, ptr %blocka, ptr %blockb, i64 1)
  %innera = getelementptr i8, ptr %a, i64 63
  %innerb = getelementptr i8, ptr %b, i64 63
  %inner = sub i64 %blocks, 1
  call void @blocks(ptr %states, ptr %innera, ptr %innerb, i64 %inner)
  %bytes = shl i64 %blocks, 6
  call void @close(ptr %blocka, ptr %a, i64 %bytes)
  call void @close(ptr %blockb, ptr %b, i64 %bytes)
  call void @blocks(ptr %states, ptr %blocka, ptr %blockb, i64 1)
  %other = getelementptr i8, ptr %states, i64 32
  call void @digest(ptr %states, ptr %outa)
  call void @digest(ptr %other, ptr %outb)
  ret void
}

; Hashes a leaf of 4 to 1,020 bytes.
define private void @short(ptr %data, i64 %bytes, ptr %out) noinline #0 {
  %states = alloca [4 x <4 x i32>], align 16
  %message = alloca [1088 x i8], align 16
  call void @begin(ptr %states)
  call void @llvm.memset.p0.i64(ptr %message, i8 0, i64 1088, i1 false)
  %rest = getelementptr i8, ptr %message, i64 1
  call void @llvm.memcpy.p0.p0.i64(ptr %rest, ptr %data, i64 %bytes, i1 false)
  %mark = getelementptr i8, ptr %rest, i64 %bytes
  store i8 -128, ptr %mark
  %padded = add i64 %bytes, 73
  %blocks = lshr i64 %padded, 6
  %end = shl i64 %blocks, 6
  %at = sub i64 %end, 2
  %length = getelementptr i8, ptr %message, i64 %at
  %all = add i64 %bytes, 1
  %bits = shl i64 %all, 3
  %low = trunc i64 %bits to i16
  %big = call i16 @llvm.bswap.i16(i16 %low)
  store i16 %big, ptr %length, align 1
  call void @blocks(ptr %states, ptr %message, ptr %message, i64 %blocks)
  call void @digest(ptr %states, ptr %out)
  ret void
}

; Pairs the hashes of one level; out may be in. Returns the width of the next level.
define private i64 @level(ptr %in, ptr %out, i64 %width) noinline #0 {
entry:
  %pairs = lshr i64 %width, 1
  %lastpair = sub i64 %pairs, 1
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %next, %body ]
  %more = icmp ult i64 %i, %pairs
  br i1 %more, label %body, label %odd
body:
  %i1 = add i64 %i, 1
  %k = call i64 @llvm.umin.i64(i64 %i1, i64 %lastpair)
  %fromi = getelementptr [64 x i8], ptr %in, i64 %i
  %fromk = getelementptr [64 x i8], ptr %in, i64 %k
  %toi = getelementptr [32 x i8], ptr %out, i64 %i
  %tok = getelementptr [32 x i8], ptr %out, i64 %k
  call void @pair(ptr %fromi, ptr %fromk, ptr %toi, ptr %tok, i64 1, i8 1)
  %next = add i64 %i, 2
  br label %head
odd:
  %left = and i64 %width, 1
  %single = icmp ne i64 %left, 0
  br i1 %single, label %carry, label %done
carry:
  %lastindex = sub i64 %width, 1
  %from = getelementptr [32 x i8], ptr %in, i64 %lastindex
  %to = getelementptr [32 x i8], ptr %out, i64 %pairs
  call void @llvm.memmove.p0.p0.i64(ptr %to, ptr %from, i64 32, i1 false)
  br label %done
done:
  %result = add i64 %pairs, %left
  ret i64 %result
}

define private i64 @word(ptr %table, i64 %index) alwaysinline #0 {
  %place = getelementptr i64, ptr %table, i64 %index
  %value = load i64, ptr %place
  ret i64 %value
}

define private void @unit(ptr %job, i64 %number) noinline #0 {
entry:
  %local = alloca [2048 x i8], align 16
  %datap = getelementptr i64, ptr %job, i64 DATA
  %data = load ptr, ptr %datap
  %outp = getelementptr i64, ptr %job, i64 OUT
  %out = load ptr, ptr %outp
  %bytes = call i64 @word(ptr %job, i64 BYTES)
  %leaves = call i64 @word(ptr %job, i64 LEAVES)
  %keep = call i64 @word(ptr %job, i64 KEEP)
  %kept = icmp ne i64 %keep, 0
  %first = mul i64 %number, UNIT
  %left = sub i64 %leaves, %first
  %count = call i64 @llvm.umin.i64(i64 %left, i64 UNIT)
  %wholeall = lshr i64 %bytes, 10
  %wholeleft = sub i64 %wholeall, %first
  %whole = call i64 @llvm.umin.i64(i64 %wholeleft, i64 UNIT)
  %lastwhole = sub i64 %whole, 1
  %start = getelementptr [1024 x i8], ptr %data, i64 %first
  br label %leafhead
leafhead:
  %i = phi i64 [ 0, %entry ], [ %nexti, %leaf ]
  %moreleaves = icmp ult i64 %i, %whole
  br i1 %moreleaves, label %leaf, label %tail
leaf:
  %i1 = add i64 %i, 1
  %k = call i64 @llvm.umin.i64(i64 %i1, i64 %lastwhole)
  %fromi = getelementptr [1024 x i8], ptr %start, i64 %i
  %fromk = getelementptr [1024 x i8], ptr %start, i64 %k
  %toi = getelementptr [32 x i8], ptr %local, i64 %i
  %tok = getelementptr [32 x i8], ptr %local, i64 %k
  call void @pair(ptr %fromi, ptr %fromk, ptr %toi, ptr %tok, i64 16, i8 0)
  %nexti = add i64 %i, 2
  br label %leafhead
tail:
  %ragged = icmp ult i64 %whole, %count
  br i1 %ragged, label %last, label %up
last:
  %from = getelementptr [1024 x i8], ptr %start, i64 %whole
  %to = getelementptr [32 x i8], ptr %local, i64 %whole
  %size = and i64 %bytes, 1023
  call void @short(ptr %from, i64 %size, ptr %to)
  br label %up
up:
  %height = phi i64 [ 0, %tail ], [ 0, %last ], [ %above, %rise ]
  %width = phi i64 [ %count, %tail ], [ %count, %last ], [ %narrower, %rise ]
  %all = phi i64 [ %leaves, %tail ], [ %leaves, %last ], [ %allabove, %rise ]
  %base = phi ptr [ %out, %tail ], [ %out, %last ], [ %nextbase, %rise ]
  br i1 %kept, label %copy, label %test
copy:
  %index = lshr i64 %first, %height
  %place = getelementptr [32 x i8], ptr %base, i64 %index
  %length = shl i64 %width, 5
  call void @llvm.memcpy.p0.p0.i64(ptr %place, ptr %local, i64 %length, i1 false)
  br label %test
test:
  %top = icmp eq i64 %height, UNIT_LEVEL
  %alone = icmp eq i64 %all, 1
  %enough = or i1 %top, %alone
  br i1 %enough, label %end, label %rise
rise:
  %narrower = call i64 @level(ptr %local, ptr %local, i64 %width)
  %nextbase = getelementptr [32 x i8], ptr %base, i64 %all
  %more = add i64 %all, 1
  %allabove = lshr i64 %more, 1
  %above = add i64 %height, 1
  br label %up
end:
  br i1 %kept, label %done, label %write
write:
  %target = getelementptr [32 x i8], ptr %out, i64 %number
  call void @llvm.memcpy.p0.p0.i64(ptr %target, ptr %local, i64 32, i1 false)
  br label %done
done:
  ret void
}

define i32 @units(ptr %control, ptr %ignored) #0 {
entry:
  %jobs = load ptr, ptr %control
  %count = call i64 @word(ptr %control, i64 COUNT)
  %units = call i64 @word(ptr %control, i64 UNITS)
  %taken = getelementptr i64, ptr %control, i64 TAKEN
  br label %take
take:
  %known = phi i64 [ 0, %entry ], [ %job, %compute ]
  %unit = atomicrmw add ptr %taken, i64 1 monotonic
  %more = icmp ult i64 %unit, %units
  br i1 %more, label %find, label %done
find:
  %job = phi i64 [ %known, %take ], [ %nextjob, %step ]
  %nextjob = add i64 %job, 1
  %exists = icmp ult i64 %nextjob, %count
  br i1 %exists, label %look, label %compute
look:
  %nextat = mul i64 %nextjob, JOB
  %nextp = getelementptr i64, ptr %jobs, i64 %nextat
  %nextfirst = call i64 @word(ptr %nextp, i64 FIRST)
  %later = icmp uge i64 %unit, %nextfirst
  br i1 %later, label %step, label %compute
step:
  br label %find
compute:
  %at = mul i64 %job, JOB
  %jobp = getelementptr i64, ptr %jobs, i64 %at
  %begin = call i64 @word(ptr %jobp, i64 FIRST)
  %own = sub i64 %unit, %begin
  call void @unit(ptr %jobp, i64 %own)
  br label %take
done:
  ret i32 0
}

define i32 @finish(ptr %control, ptr %ignored) #0 {
entry:
  %jobs = load ptr, ptr %control
  %count = call i64 @word(ptr %control, i64 COUNT)
  br label %head
head:
  %job = phi i64 [ 0, %entry ], [ %nextjob, %joined ]
  %more = icmp ult i64 %job, %count
  br i1 %more, label %begin, label %done
begin:
  %at = mul i64 %job, JOB
  %jobp = getelementptr i64, ptr %jobs, i64 %at
  %outp = getelementptr i64, ptr %jobp, i64 OUT
  %out = load ptr, ptr %outp
  %leaves = call i64 @word(ptr %jobp, i64 LEAVES)
  %keep = call i64 @word(ptr %jobp, i64 KEEP)
  %kept = icmp ne i64 %keep, 0
  br label %climb
climb:
  %height = phi i64 [ 0, %begin ], [ %above, %climbing ]
  %all = phi i64 [ %leaves, %begin ], [ %allabove, %climbing ]
  %base = phi ptr [ %out, %begin ], [ %baseabove, %climbing ]
  %arrived = icmp eq i64 %height, UNIT_LEVEL
  br i1 %arrived, label %reduce, label %climbing
climbing:
  %skip = getelementptr [32 x i8], ptr %base, i64 %all
  %baseabove = select i1 %kept, ptr %skip, ptr %base
  %plus = add i64 %all, 1
  %allabove = lshr i64 %plus, 1
  %above = add i64 %height, 1
  br label %climb
reduce:
  %in = phi ptr [ %base, %climb ], [ %next, %pairing ]
  %width = phi i64 [ %all, %climb ], [ %narrower, %pairing ]
  %many = icmp ugt i64 %width, 1
  br i1 %many, label %pairing, label %joined
pairing:
  %beyond = getelementptr [32 x i8], ptr %in, i64 %width
  %next = select i1 %kept, ptr %beyond, ptr %in
  %narrower = call i64 @level(ptr %in, ptr %next, i64 %width)
  br label %reduce
joined:
  %nextjob = add i64 %job, 1
  br label %head
done:
  ret i32 0
}

declare i16 @llvm.bswap.i16(i16)
declare i64 @llvm.umin.i64(i64, i64)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
declare void @llvm.memmove.p0.p0.i64(ptr, ptr, i64, i1)
"""


def trees_text(attributes: str) -> str:
    """Return the LLVM IR of `units` and `finish`, both `i32 (ptr control, ptr unused)`.

    `attributes` are those of all functions; they must name a CPU with the SHA extensions.
    """
    high, low = initial_vectors()
    words = {
        "HIGH": high, "LOW": low, "DATA": DATA, "BYTES": BYTES, "LEAVES": LEAVES, "OUT": OUT,
        "KEEP": KEEP, "FIRST": FIRST, "JOB": JOB, "COUNT": COUNT, "UNITS": UNITS, "TAKEN": TAKEN,
        "UNIT": UNIT, "UNIT_LEVEL": UNIT_LEVEL,
    }  # fmt: skip
    body = re.sub(r"\b[A-Z_]{3,}\b", lambda found: str(words[found[0]]), _TEXT)
    return f"{compression_text()}{body}\nattributes #0 = {{ {attributes} }}\n"
