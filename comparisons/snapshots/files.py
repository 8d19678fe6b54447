"""The baseline files of one test: which file is compared, and when one is written."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import threadpoolctl
import torch

from ..report import files
from ..report.files import stem
from . import arrays as stored
from .arrays import Array
from .tolerances import tolerance


class Entry(NamedTuple):
    """What the record of the run holds of one file: the first test to settle it, and on what."""

    digest: str  # of the content
    done: str  # "written" or "kept"
    test: str


@dataclass
class Files:
    """What one test keeps. A file is written after the test, and only if nothing else failed."""

    folder: Path  # of the files, named after the test's module
    test: str  # its node id
    own: str  # the test's name in the module, for checks without a name
    record: Path  # a folder that all processes of this run share
    force_regen: bool  # the options of pytest
    regen_all: bool
    regen_platform: bool
    checked: set[str] = field(default_factory=set, init=False)
    asked: set[str] = field(default_factory=set, init=False)  # the files, without their suffix
    pending: list[tuple[Path, bytes, str]] = field(default_factory=list, init=False)

    def check(self, name: str | None, arrays: Any, **allowed: Any) -> None:
        """AssertionError if the arrays are not those of the file; ValueError if the file is none.

        What is `allowed` is that of `tolerance`. A file that has to be written waits for `finish`.
        """
        __tracebackhide__ = True  # pytest shows the line of the test
        now = stored.collect(arrays)
        within = tolerance(now, **allowed)
        path, special = self._paths(stem(self._named(name)))
        if not path.exists():
            self._wait(path, now, f"Written, for it did not exist: {path}")
            return
        try:
            then, origin = stored.load(path)
        except ValueError as error:
            if not (self.force_regen or self.regen_all):
                raise ValueError(f"{error}. To replace it: {self._command} --force-regen") from None
            self._wait(path, now, f"Written anew: {error}")
            return
        found = stored.differences(now, then, within.margins if within else None)
        if found:
            more = f" by more than is allowed ({within.said})" if within else ""
            message = (
                f"{len(found)} of {len(now.keys() | then.keys())} arrays differ from {path}{more}\n"
                f"  {stored.table(found)}\n"
                f"written on {origin}\nthis is    {here()}"
            )
            of_bits = all(difference.of_bits for difference in found)
            self._differs(now, path, special if of_bits else None, message, name is not None)
        elif self.force_regen or self.regen_all or self._entry(path).exists():
            self._wait(path, then, "")

    def _paths(self, file: str) -> tuple[Path, Path]:
        """The file that is compared, and that of this platform. The first is the second if that
        exists, or else one of this machine without a number of threads, as they were before these
        were known to matter."""
        self.asked.add(str(self.folder / file))
        special, machine, common = (
            self.folder / f"{file}{tag}.npz" for tag in (f".{platform_tag()}", f".{_machine()}", "")
        )
        return next((path for path in (special, machine) if path.exists()), common), special

    def _named(self, name: str | None) -> str:
        if name is not None and not (isinstance(name, str) and name):
            raise TypeError(f"name is {name!r}; expected a name, or None for that of the test")
        name = name or self.own
        if name in self.checked:
            raise ValueError(f"name: {name!r} is checked twice in this test; expected another name")
        self.checked.add(name)
        return name

    def _differs(
        self,
        now: Mapping[str, Array],
        path: Path,
        special: Path | None,  # the file of this platform, if nothing but bits differ
        message: str,
        named: bool,
    ) -> None:
        __tracebackhide__ = True
        if self.regen_platform and special:
            self._wait(special, now, f"{message}\nWritten for this platform: {special}")
        elif self.force_regen or self.regen_all:
            self._wait(path, now, f"{message}\nThe file is now written anew.")
        else:
            advice = "\n".join(self._advice(path, special, named))
            raise AssertionError(f"{message}\n{advice}")

    def _advice(self, path: Path, special: Path | None, named: bool) -> Iterator[str]:
        yield f"If that is wanted: {self._command} --force-regen"
        if special and path != special:
            yield f"for this platform alone ({special.name}): {self._command} --regen-platform"
        elif self.regen_platform:
            yield "--regen-platform writes only where nothing but bits differ."
        if named and self.own.endswith("]"):
            yield "All parameters of the test share this file; with None as name each has its own."
        if self._entry(path).exists():
            yield f"{self._first(path).test} has given what is in the file, in this run."

    @property
    def _command(self) -> str:
        return f"pytest {shlex.quote(self.test)}"

    def _wait(self, path: Path, arrays: Mapping[str, Array], message: str) -> None:
        """Keeps the content, for the test may change its arrays; without a message it is equal."""
        self.pending.append((path, stored.encoded(arrays, here()), message))

    def finish(self) -> list[str]:
        """Writes what waits; the reasons for which the test fails nevertheless."""
        pending, self.pending = self.pending, []
        return [told for each in pending if (told := self._settled(*each))]

    def _settled(self, path: Path, content: bytes, message: str) -> str:
        done = "written" if message else "kept"
        mine = Entry(hashlib.sha256(content).hexdigest(), done, self.test)
        first = self._enter(path, mine)
        if first is None:
            if message:
                try:
                    files.write(files.folder(path.parent) / path.name, content)
                except BaseException:
                    self._entry(path).unlink()
                    raise
            return "" if self.regen_all else message
        if first.digest != mine.digest:
            return (
                f"Not written: {first.test} has given other arrays for {path} in this run; "
                "expected a name of its own for each check, or None."
            )
        written = first.done == "written" and not self.regen_all
        return f"Written in this run, by {first.test}: {path}" if written else ""

    def _entry(self, path: Path) -> Path:
        return self.record / hashlib.sha256(str(path).encode()).hexdigest()

    def _first(self, path: Path) -> Entry:
        return Entry(*self._entry(path).read_text(encoding="utf-8").split("\n", 2))

    def _enter(self, path: Path, mine: Entry) -> Entry | None:
        """Enters a file into the record, whole and once; None, or the entry that was first."""
        self.record.mkdir(exist_ok=True)
        entry = self._entry(path)
        draft = entry.with_suffix(f".{os.getpid()}")
        draft.write_text("\n".join(mine), encoding="utf-8")
        try:
            os.link(draft, entry)
        except FileExistsError:
            return self._first(path)
        finally:
            draft.unlink()
        return None


def platform_tag() -> str:
    """This platform in words that decide about bits: the machine, and the number of threads that
    torch divides a sum among, and that of NumPy's BLAS where it is another."""
    threads = torch.get_num_threads()
    others = {lib["num_threads"] for lib in _blas()[:1]} - {threads}
    words = [_machine(), f"threads{threads}", *(f"blas{number}" for number in others)]
    return "-".join(words)


@functools.cache
def _machine() -> str:
    """The instructions that torch and NumPy choose their kernels by, and the processor that NumPy's
    BLAS takes it for."""
    cores = [lib["architecture"] for lib in _blas() if lib.get("architecture")]
    words = [platform.system(), platform.machine(), torch.backends.cpu.get_cpu_capability()]
    return re.sub(r"[^\w-]", "_", "-".join([*words, *cores[:1]]).lower())


def _blas() -> list[dict[str, Any]]:
    """What is known of each BLAS, NumPy's first."""
    found = [lib for lib in _libraries().info() if lib["user_api"] == "blas"]
    return sorted(found, key=lambda lib: "numpy" not in lib["filepath"])


@functools.cache
def _libraries() -> threadpoolctl.ThreadpoolController:
    """The libraries that this process has loaded, looked up once."""
    return threadpoolctl.ThreadpoolController()


def here() -> str:
    """This machine, and the libraries that compute."""
    return f"{platform_tag()}, torch {torch.__version__}, NumPy {np.__version__}"
