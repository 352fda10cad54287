# SPDX-License-Identifier: GPL-3.0-or-later
"""Kernels on disk and compilers in child processes: neither changes a bit or is trusted blindly."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from protocol.errors import NumericsError
from protocol.executor import CompiledExecutor, NativeExecutor, cache, compiling, native, self_check
from protocol.executor.native import Library
from protocol.executor.target import Target, host_target
from protocol.reference import ReferenceExecutor
from tests import hand_built as building
from tests.executing import USABLE, assert_equal
from tests.hand_built import case_of

ANSWER = "define i32 @answer(ptr %a, ptr %b) {\nret i32 42\n}\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "kernels"))
    found = cache.folder()
    assert found == tmp_path / "kernels"
    return found


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that have been compiled, not loaded."""
    texts: list[str] = []

    def compile_all(some: list[str], target: Target, speed: int) -> list[bytes]:
        texts.extend(some)
        return compiling.compile_all(some, target, speed)

    monkeypatch.setattr(native, "compile_all", compile_all)
    return texts


def answer() -> int:
    return Library([ANSWER], host_target()).function("answer")(0, 0)


@pytest.mark.parametrize("target", USABLE.values(), ids=USABLE)
def test_loaded_kernels_compute_what_compiled_ones_do(
    place: Path, compiled: list[str], target: Target
) -> None:
    case = case_of(building.every_primitive(), seed=3)
    wanted = ReferenceExecutor(case.program, case.inputs).trace(case.state, case.step)
    amounts = []
    for _ in range(2):
        found = NativeExecutor(case.program, case.inputs, target=target).trace(
            case.state, case.step
        )
        for node, mine, other in zip(case.program.nodes, found, wanted, strict=True):
            assert_equal(mine, other, node)
        amounts.append(len(compiled))
    assert amounts[0] == amounts[1] > 0
    self_check(target)
    assert len(list(place.iterdir())) >= len(compiled)


def test_key_tells_texts_targets_and_levels_apart() -> None:
    ways = [
        (text, target, speed)
        for text in ("a", "b")
        for target in (Target("x86-64", ""), Target("x86-64", "+fma"), Target("", "x86-64"))
        for speed in (2, 3)
    ]
    assert len({cache.key(*way) for way in ways}) == len(ways)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "truncated": lambda content: content[:-1],
    "longer": lambda content: content + b"\0",
    "a bit flipped": lambda content: content[:200] + bytes([content[200] ^ 1]) + content[201:],
    "wrong digest": lambda content: content[:20] + bytes(32) + content[52:],
    "not ours": lambda content: b"\x7fELF" + content[4:],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_file_is_compiled_again(
    place: Path, compiled: list[str], damage: Callable[[bytes], bytes]
) -> None:
    assert answer() == 42
    (path,) = place.iterdir()
    content = path.read_bytes()
    path.write_bytes(damage(content))
    assert answer() == 42
    assert compiled == [ANSWER] * 2
    assert path.read_bytes() == content


def test_file_of_another_name_is_compiled_again(place: Path, compiled: list[str]) -> None:
    other = ANSWER.replace("42", "41")
    Library([other], host_target())
    (path,) = place.iterdir()
    path.rename(place / cache.key(ANSWER, host_target(), 2))
    assert answer() == 42
    assert compiled == [other, ANSWER]


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_folder_that_others_may_write_to_is_not_used(
    place: Path, compiled: list[str], mode: int
) -> None:
    place.chmod(mode)
    assert cache.folder() is None
    assert answer() == answer() == 42
    assert compiled == [ANSWER] * 2
    assert not list(place.iterdir())


def test_folder_that_others_own_is_not_used(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: place.stat().st_uid + 1)
    assert cache.folder() is None


def test_file_that_others_may_write_to_and_links_are_not_read(place: Path, tmp_path: Path) -> None:
    cache.save(place, "name", b"payload")
    assert cache.load(place, "name") == b"payload"
    (place / "name").chmod(0o666)
    assert cache.load(place, "name") is None
    cache.save(place, "name", b"payload")
    (place / "name").rename(tmp_path / "elsewhere")
    (place / "name").symlink_to(tmp_path / "elsewhere")
    assert cache.load(place, "name") is None
    assert (tmp_path / "elsewhere").exists()


def test_link_instead_of_a_folder_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "link"))
    assert cache.folder() is None


def test_cache_can_be_switched_off_and_follows_the_users_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiled: list[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(cache.VARIABLE, "off")
    assert answer() == answer() == 42
    assert compiled == [ANSWER] * 2
    assert not list(tmp_path.iterdir())
    monkeypatch.delenv(cache.VARIABLE)
    assert answer() == answer() == 42
    assert compiled == [ANSWER] * 3
    assert (tmp_path / "bitcourt" / "kernels").stat().st_mode & 0o777 == 0o700


def test_disk_that_takes_nothing_costs_only_time(
    place: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.mkstemp", full)
    assert answer() == answer() == 42
    assert compiled == [ANSWER] * 2


def test_what_was_used_longest_ago_goes_first(place: Path) -> None:
    for age, name in enumerate(("new", "old", "older")):
        cache.save(place, name, bytes(1000))
        os.utime(place / name, (1000 - age, 1000 - age))
    assert cache.load(place, "older") is not None  # now it is the newest
    size = (place / "new").stat().st_size
    cache.trim(place, 2 * size)
    assert sorted(path.name for path in place.iterdir()) == ["new", "older"]


# Children ----------------------------------------------------------------------------------------

FATAL = 'define void @f() {\ncall void asm sideeffect "nonsense", ""()\nret void\n}\n'


def test_text_that_llvm_refuses_is_an_error_with_its_message() -> None:
    with pytest.raises(NumericsError, match=r"refuses.*\n.*expected type"):
        Library(["define nonsense"], host_target())
    assert answer() == 42


def test_text_that_ends_the_compiler_is_an_error_and_the_next_one_compiles(
    place: Path,
) -> None:
    with pytest.raises(NumericsError, match="ended with status -6"):
        Library([FATAL, ANSWER], host_target())
    assert answer() == 42


def variants(value: int) -> list[str]:
    """Texts enough for all children."""
    return [ANSWER.replace("42", str(value + i)) for i in range(compiling._pool.size)]


def test_compiler_that_was_killed_is_named_and_replaced(place: Path) -> None:
    Library(variants(50), host_target())
    for child in compiling._pool._free:
        child._process.kill()
        child._process.wait()
    with pytest.raises(NumericsError, match="status -9"):
        Library(variants(60), host_target())
    for child in compiling._pool._free:
        child.stop()
    compiling._pool._free.clear()
    assert answer() == 42


def test_compiler_that_was_idle_for_too_long_is_replaced(place: Path) -> None:
    answer()
    for child in compiling._pool._free:
        requests, _ = child._pipes()
        requests.close()
        child._process.wait()
        read, write = os.pipe()
        os.close(read)
        child._process.stdin = os.fdopen(write, "wb")
    other = ANSWER.replace("42", "44")
    assert Library([other], host_target()).function("answer")(0, 0) == 44


def test_executors_in_a_fork_have_compilers_of_their_own(place: Path) -> None:
    code = """
import os, sys
from protocol.executor import CompiledExecutor
from tests import hand_built as building
from tests.hand_built import case_of
case = case_of(building.adder())
first = CompiledExecutor(case.program, case.inputs).step(case.state, 0)
os.environ["BITCOURT_KERNEL_CACHE"] = "off"
child = os.fork()
again = CompiledExecutor(case.program, case.inputs).step(case.state, 0)
same = all((a == b).all() for a, b in zip(first, again))
if child == 0:
    os._exit(0 if same else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) + (not same))
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_self_check_runs_whether_kernels_are_loaded_or_compiled(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel in the cache that computes other bits is noticed by the canary, if it is in it."""
    self_check()
    case = case_of(building.adder())
    assert CompiledExecutor(case.program, case.inputs).step(case.state, 0)
    load = cache.load

    def wrong(folder: Path, name: str) -> bytes | None:
        found = load(folder, name)
        return found and found.replace((0x3F800000).to_bytes(4, "little"), bytes(4))

    monkeypatch.setattr(cache, "load", wrong)
    with pytest.raises(NumericsError, match="canary"):
        self_check()
