# SPDX-License-Identifier: GPL-3.0-or-later
"""The native loop that runs a whole step, the same for all programs, as LLVM IR.

`alone` calls all kernels in order. `run` and `work` share a step among threads: the caller's thread
runs `run` once per step, each other thread stays in `work` and waits there for the next step.

A step is a list of *tasks* in an order that respects what they read and overwrite. All threads walk
that list. At each task a thread waits until the tasks it depends on are done, then takes the task's
chunks, one by one, from an atomic counter. Nobody waits for all: a thread that finds no chunk
left walks on. A chunk in progress never waits and tasks wait for earlier ones only, so some thread
always gets on, whatever else the machine does. Waiting spins for a few microseconds, then yields
the CPU; between steps `work` falls asleep on a futex (Linux, futex(2)).

`gate` is odd while a step is open to helpers, and counts twice the helpers inside. A helper
that wakes late finds it closed and is not waited for.
"""

from __future__ import annotations

import re
from typing import Final

from protocol.executor.target import Target

LINE: Final = 64
"""Bytes of a cache line: what different threads write lies at least so far apart."""

# Words (8 bytes each) of the control block.
EPOCH, SLEEPERS, GATE, BAD, QUIT = 0, 8, 16, 24, 25
"""Number of the step (i32, wraps), helpers asleep, the gate, a wrong environment seen, the end."""
TASKS, COUNT, CALLS, POINTERS, AFTER, COUNTERS = 32, 33, 34, 35, 36, 37
"""Addresses of tables, and the number of tasks (of calls, for `alone`)."""
CONTROL: Final = 40
TASK: Final = 5
"""Words of a task: chunks, first call, end of its calls, first place in AFTER, end."""
CALL: Final = 3
"""Words of a call: entry of its kernel, byte offset of its pointers, number of units."""

SPINS: Final = 400
"""Pauses before a waiting thread yields the CPU: about ten microseconds."""
IDLE_SPINS: Final = 2000
"""Pauses before a helper without a step falls asleep: about as long as the caller's Python."""

# Multiplies the smallest normal number by a half (flush to zero), doubles the smallest subnormal
# (denormals are zero), and adds to one what rounds up, and down, only when rounding to nearest.
ENVIRONMENT: Final = """
@probe = private global [4 x i32] [i32 8388608, i32 1, i32 868220928, i32 855638016]
define private i32 @environment() noinline #0 {
  %normal = load volatile float, ptr @probe
  %tinyp = getelementptr i32, ptr @probe, i64 1
  %tiny = load volatile float, ptr %tinyp
  %upp = getelementptr i32, ptr @probe, i64 2
  %up = load volatile float, ptr %upp
  %downp = getelementptr i32, ptr @probe, i64 3
  %down = load volatile float, ptr %downp
  %half = fmul float %normal, 0.5
  %twice = fadd float %tiny, %tiny
  %above = fadd float %up, 1.0
  %below = fadd float %down, 1.0
  %halfb = bitcast float %half to i32
  %twiceb = bitcast float %twice to i32
  %aboveb = bitcast float %above to i32
  %belowb = bitcast float %below to i32
  %x0 = xor i32 %halfb, 4194304
  %x1 = xor i32 %twiceb, 2
  %x2 = xor i32 %aboveb, 1065353217
  %x3 = xor i32 %belowb, 1065353216
  %o0 = or i32 %x0, %x1
  %o1 = or i32 %x2, %x3
  %bad = or i32 %o0, %o1
  ret i32 %bad
}
"""

_CALLING: Final = """
define private i64 @word(ptr %table, i64 %index) alwaysinline #0 {
  %place = getelementptr i64, ptr %table, i64 %index
  %value = load i64, ptr %place
  ret i64 %value
}

define private ptr @table(ptr %control, i64 %index) alwaysinline #0 {
  %place = getelementptr ptr, ptr %control, i64 %index
  %value = load ptr, ptr %place
  ret ptr %value
}

define private void @one(ptr %control, ptr %scratch, i64 %number, i64 %chunk, i64 %chunks)
    alwaysinline #0 {
  %calls = call ptr @table(ptr %control, i64 CALLS)
  %all = call ptr @table(ptr %control, i64 POINTERS)
  %first = mul i64 %number, CALL
  %call = getelementptr i64, ptr %calls, i64 %first
  %entry = load ptr, ptr %call
  %offset = call i64 @word(ptr %call, i64 1)
  %units = call i64 @word(ptr %call, i64 2)
  %pointers = getelementptr i8, ptr %all, i64 %offset
  %scaled = mul i64 %units, %chunk
  %begin = udiv i64 %scaled, %chunks
  %more = add i64 %scaled, %units
  %end = udiv i64 %more, %chunks
  call void %entry(ptr %pointers, ptr %scratch, i64 %begin, i64 %end)
  ret void
}

define i32 @alone(ptr %control, ptr %scratch) #0 {
entry:
  %bad = call i32 @environment()
  %right = icmp eq i32 %bad, 0
  %count = call i64 @word(ptr %control, i64 COUNT)
  br i1 %right, label %head, label %done
head:
  %number = phi i64 [ 0, %entry ], [ %next, %body ]
  %more = icmp slt i64 %number, %count
  br i1 %more, label %body, label %done
body:
  call void @one(ptr %control, ptr %scratch, i64 %number, i64 0, i64 1)
  %next = add i64 %number, 1
  br label %head
done:
  ret i32 %bad
}
"""

_WALK: Final = """
define private i64 @rest(i64 %spins, i64 %limit) noinline #0 {
  %patient = icmp slt i64 %spins, %limit
  br i1 %patient, label %spin, label %yield
spin:
  PAUSE
  %more = add i64 %spins, 1
  ret i64 %more
yield:
  %ignored = call i32 @sched_yield()
  ret i64 %spins
}

define private void @walk(ptr %control, ptr %scratch) noinline #0 {
entry:
  %tasks = call ptr @table(ptr %control, i64 TASKS)
  %after = call ptr @table(ptr %control, i64 AFTER)
  %counters = call ptr @table(ptr %control, i64 COUNTERS)
  %count = call i64 @word(ptr %control, i64 COUNT)
  br label %head
head:
  %number = phi i64 [ 0, %entry ], [ %next, %leave ]
  %more = icmp slt i64 %number, %count
  br i1 %more, label %look, label %done
look:
  %first = mul i64 %number, TASK
  %task = getelementptr i64, ptr %tasks, i64 %first
  %chunks = load i64, ptr %task
  %line = mul i64 %number, LINE
  %claimed = getelementptr i8, ptr %counters, i64 %line
  %finished = getelementptr i64, ptr %claimed, i64 1
  %begin = call i64 @word(ptr %task, i64 3)
  %end = call i64 @word(ptr %task, i64 4)
  br label %waiting
waiting:
  %dependency = phi i64 [ %begin, %look ], [ %dependency, %stay ], [ %following, %met ]
  %spins = phi i64 [ 0, %look ], [ %rested, %stay ], [ 0, %met ]
  %taken = load atomic i64, ptr %claimed monotonic, align 8
  %left = icmp ult i64 %taken, %chunks
  br i1 %left, label %test, label %leave
test:
  %unmet = icmp slt i64 %dependency, %end
  br i1 %unmet, label %ask, label %take
ask:
  %other = call i64 @word(ptr %after, i64 %dependency)
  %otherfirst = mul i64 %other, TASK
  %otherchunks = call i64 @word(ptr %tasks, i64 %otherfirst)
  %otherline = mul i64 %other, LINE
  %otherclaimed = getelementptr i8, ptr %counters, i64 %otherline
  %otherfinished = getelementptr i64, ptr %otherclaimed, i64 1
  %complete = load atomic i64, ptr %otherfinished acquire, align 8
  %ready = icmp eq i64 %complete, %otherchunks
  br i1 %ready, label %met, label %stay
met:
  %following = add i64 %dependency, 1
  br label %waiting
stay:
  %rested = call i64 @rest(i64 %spins, i64 SPINS)
  br label %waiting
take:
  %chunk = atomicrmw add ptr %claimed, i64 1 acq_rel
  %own = icmp ult i64 %chunk, %chunks
  br i1 %own, label %compute, label %leave
compute:
  %call = call i64 @word(ptr %task, i64 1)
  %last = call i64 @word(ptr %task, i64 2)
  br label %calling
calling:
  %current = phi i64 [ %call, %compute ], [ %nextcall, %calling ]
  call void @one(ptr %control, ptr %scratch, i64 %current, i64 %chunk, i64 %chunks)
  %nextcall = add i64 %current, 1
  %again = icmp slt i64 %nextcall, %last
  br i1 %again, label %calling, label %report
report:
  %ignored = atomicrmw add ptr %finished, i64 1 release
  br label %take
leave:
  %next = add i64 %number, 1
  br label %head
done:
  ret void
}
"""

_THREADS: Final = """
define private void @wake(ptr %control) #0 {
  %sleepers = getelementptr i64, ptr %control, i64 SLEEPERS
  %ignored = atomicrmw add ptr %control, i32 1 seq_cst
  %asleep = load atomic i64, ptr %sleepers seq_cst, align 8
  %any = icmp ne i64 %asleep, 0
  br i1 %any, label %call, label %done
call:
  %woken = call i64 (i64, ...) @syscall(i64 FUTEX, ptr %control, i32 129, i32 2147483647, ptr null)
  br label %done
done:
  ret void
}

define i32 @run(ptr %control, ptr %scratch) #0 {
entry:
  %bad = call i32 @environment()
  %wrong = icmp ne i32 %bad, 0
  br i1 %wrong, label %refuse, label %open
refuse:
  ret i32 %bad
open:
  %counters = call ptr @table(ptr %control, i64 COUNTERS)
  %count = call i64 @word(ptr %control, i64 COUNT)
  %bytes = mul i64 %count, LINE
  call void @llvm.memset.p0.i64(ptr %counters, i8 0, i64 %bytes, i1 false)
  %seen = getelementptr i64, ptr %control, i64 BAD
  store atomic i32 0, ptr %seen monotonic, align 4
  %gate = getelementptr i64, ptr %control, i64 GATE
  store atomic i64 1, ptr %gate release, align 8
  call void @wake(ptr %control)
  call void @walk(ptr %control, ptr %scratch)
  %ignored = atomicrmw sub ptr %gate, i64 1 seq_cst
  br label %leaving
leaving:
  %spins = phi i64 [ 0, %open ], [ %rested, %stay ]
  %inside = load atomic i64, ptr %gate acquire, align 8
  %empty = icmp eq i64 %inside, 0
  br i1 %empty, label %done, label %stay
stay:
  %rested = call i64 @rest(i64 %spins, i64 SPINS)
  br label %leaving
done:
  %other = load atomic i32, ptr %seen monotonic, align 4
  ret i32 %other
}

define i32 @work(ptr %control, ptr %scratch) #0 {
entry:
  %default = inttoptr i64 -1 to ptr
  %ignored0 = call i32 @fesetenv(ptr %default)
  %sleepers = getelementptr i64, ptr %control, i64 SLEEPERS
  %gate = getelementptr i64, ptr %control, i64 GATE
  %seen = getelementptr i64, ptr %control, i64 BAD
  %quit = getelementptr i64, ptr %control, i64 QUIT
  br label %idle
idle:
  %known = phi i32 [ 0, %entry ], [ %known, %spin ], [ %known, %sleep ], [ %epoch, %back ]
  %spins = phi i64 [ 0, %entry ], [ %more, %spin ], [ 0, %sleep ], [ 0, %back ]
  %over = load atomic i32, ptr %quit acquire, align 4
  %end = icmp ne i32 %over, 0
  br i1 %end, label %done, label %watch
watch:
  %epoch = load atomic i32, ptr %control acquire, align 4
  %new = icmp ne i32 %epoch, %known
  br i1 %new, label %arrive, label %wait
wait:
  %patient = icmp slt i64 %spins, IDLE_SPINS
  br i1 %patient, label %spin, label %sleep
spin:
  PAUSE
  %more = add i64 %spins, 1
  br label %idle
sleep:
  %ignored1 = atomicrmw add ptr %sleepers, i64 1 seq_cst
  %slept = call i64 (i64, ...) @syscall(i64 FUTEX, ptr %control, i32 128, i32 %known, ptr null)
  %ignored2 = atomicrmw sub ptr %sleepers, i64 1 seq_cst
  br label %idle
arrive:
  %inside = load atomic i64, ptr %gate acquire, align 8
  %bit = and i64 %inside, 1
  %isopen = icmp ne i64 %bit, 0
  br i1 %isopen, label %enter, label %back
enter:
  %with = add i64 %inside, 2
  %pair = cmpxchg ptr %gate, i64 %inside, i64 %with acq_rel acquire
  %entered = extractvalue { i64, i1 } %pair, 1
  br i1 %entered, label %check, label %arrive
check:
  %bad = call i32 @environment()
  %right = icmp eq i32 %bad, 0
  br i1 %right, label %help, label %complain
help:
  call void @walk(ptr %control, ptr %scratch)
  br label %exit
complain:
  %ignored3 = atomicrmw or ptr %seen, i32 %bad monotonic
  br label %exit
exit:
  %ignored4 = atomicrmw sub ptr %gate, i64 2 release
  br label %back
back:
  br label %idle
done:
  ret i32 0
}

define i32 @stop(ptr %control, ptr %scratch) #0 {
  %quit = getelementptr i64, ptr %control, i64 QUIT
  store atomic i32 1, ptr %quit release, align 4
  call void @wake(ptr %control)
  ret i32 0
}

declare i32 @sched_yield()
declare i32 @fesetenv(ptr)
declare i64 @syscall(i64, ...)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
"""

_MACHINES: Final = {
    "x86_64": ("call void @llvm.x86.sse2.pause()", "declare void @llvm.x86.sse2.pause()", 202),
    "aarch64": (
        "call void @llvm.aarch64.hint(i32 1)",
        "declare void @llvm.aarch64.hint(i32)",
        98,
    ),
}
"""Per architecture: an instruction that eases spinning, and the number of futex(2)."""


def can_share(machine: str) -> bool:
    """Whether steps can be shared among threads on a machine: the first word of its triple."""
    return machine in _MACHINES


def driver_text(target: Target, machine: str) -> str:
    """Return the LLVM IR of the driver; without `run`, `work` and `stop` unless `can_share`."""
    parts = [ENVIRONMENT, _CALLING]
    words = {
        "TASKS": TASKS, "COUNT": COUNT, "CALLS": CALLS, "POINTERS": POINTERS, "AFTER": AFTER,
        "COUNTERS": COUNTERS, "TASK": TASK, "CALL": CALL, "LINE": LINE, "SPINS": SPINS,
        "IDLE_SPINS": IDLE_SPINS, "SLEEPERS": SLEEPERS, "GATE": GATE, "BAD": BAD, "QUIT": QUIT,
    }  # fmt: skip
    texts = {name: str(value) for name, value in words.items()}
    if can_share(machine):
        texts["PAUSE"], declaration, futex = _MACHINES[machine]
        texts["FUTEX"] = str(futex)
        parts += [_WALK, _THREADS, declaration]
    body = re.sub(r"\b[A-Z_]+\b", lambda found: texts[found[0]], "\n".join(parts))
    return f"{body}\nattributes #0 = {{ {target.attributes} }}\n"
