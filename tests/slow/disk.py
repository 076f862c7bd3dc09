"""Disks that are full at random moments, that are small, and that cannot be written to."""

import contextlib
import functools
import os
import random
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import children
from children import ENDED, STORAGE

KNOBS = {"checkpoints_kept": 100, "checkpoint_every_steps": 20}
HALF_WAY = 80


def disk_full(options):
    """No file can grow beyond a random number of bytes, for runs from nothing and for resumed ones."""
    rng = random.Random(options.seed)
    with children.workshop() as folder:
        proof = _Proof(folder)
        for index in range(options.count):
            resumed = index % 2 == 1
            limit = int(1024 * (proof.largest / 1024) ** rng.random())
            proof.limited(f"{limit:,} bytes, {'resumed' if resumed else 'from nothing'}", limit, resumed)
        proof.limited("10,000 bytes, compiling", 10_000, False, cache=folder / "cold")
        proof.small_disk()
        proof.read_only()
        return proof.conclude()


class _Proof:
    """A run to its end, one that is half way, and what happened to copies of the latter."""

    def __init__(self, folder):
        self._folder, self._wrong, self._counts = folder, [], Counter()
        self._reference, self._half = folder / "uninterrupted", folder / "half"
        children.finish_well(self._words(self._reference))
        children.finish_well(self._words(self._half, num_steps=HALF_WAY))
        sizes = [path.stat().st_size for path in self._reference.rglob("*") if path.is_file()]
        self.largest = max(sizes)
        print(f"a run has {len(sizes)} files of {sum(sizes):,} bytes, the largest {self.largest:,}", flush=True)

    def limited(self, name, limit, resumed, cache=None):
        """A run under a limit, and the same command without."""
        run_dir = self._begin(self._folder / "copy", resumed)
        arguments = self._words(run_dir, **({} if cache is None else {"compile_cache": cache}))
        self._follow(name, run_dir, arguments, resumed, lambda: None, limit)

    def small_disk(self):
        """A file system with room for half of what a run writes; room is made afterwards."""
        used = sum(p.stat().st_blocks * 512 for p in self._half.rglob("*")) + 2**17
        for resumed in (True, False):
            with _mounted(self._folder / "disk", f"size={used if resumed else used // 3}") as mount:
                if mount is None:
                    return
                run_dir = self._begin(mount / "run", resumed)
                name = f"a file system of {used if resumed else used // 3:,} bytes"
                self._follow(
                    name, run_dir, self._words(run_dir), resumed, functools.partial(_remount, mount, "size=1g")
                )

    def read_only(self):
        """A directory that cannot be written to, in which a run is half way."""
        if os.getuid() != 0:
            run_dir = self._begin(self._folder / "copy", True)
            folders = [run_dir, *(path for path in run_dir.rglob("*") if path.is_dir())]
            for path in folders:
                path.chmod(0o500)
            free = lambda: [path.chmod(0o700) for path in folders]  # noqa: E731
            self._follow("a directory without permission to write", run_dir, self._words(run_dir), True, free)
            return
        print("a directory without permission to write: skipped: root may write anywhere", flush=True)
        with _mounted(self._folder / "disk", "size=1g") as mount:
            if mount is None:
                return
            run_dir = self._begin(mount / "run", True)
            _remount(mount, "ro")
            name = "a file system that cannot be written to"
            self._follow(name, run_dir, self._words(run_dir), True, functools.partial(_remount, mount, "rw"))

    def conclude(self):
        """Prints what came out; returns the exit status."""
        for status, count in sorted(self._counts.items()):
            print(f"exit status {status}: {count}")
        for complaint in self._wrong:
            print(complaint)
        what = (
            f"{sum(self._counts.values())} full disks, {len(self._wrong)} complaints; promised: status 6 and one line, "
        )
        what += "older checkpoints untouched, continued to the same end"
        return children.verdict(not self._wrong, what)

    def _words(self, run_dir, **changes):
        return children.words(run_dir, self._folder / "cache", **(KNOBS | changes))

    def _begin(self, run_dir, resumed):
        if run_dir.exists():
            shutil.rmtree(run_dir)
        if resumed:
            shutil.copytree(self._half, run_dir)
        return run_dir

    def _follow(self, name, run_dir, arguments, resumed, free, limit=None):
        """The command with no room, then with room."""
        process = children.finish(arguments, limit)
        self._counts[process.returncode] += 1
        last = (process.stderr.strip().splitlines() or [""])[-1]
        print(f"{name}: status {process.returncode}: {last[:200]}", flush=True)
        if process.returncode not in (ENDED, STORAGE) or "Traceback" in process.stderr:
            self._wrong.append(f"STATUS {process.returncode}: {name}: {process.stderr[-600:]}")
        if resumed and (touched := _touched(self._half / "checkpoints", run_dir / "checkpoints")):
            self._wrong.append(f"TOUCHED: {name}: {touched}")
        free()
        again = children.finish(arguments)
        if again.returncode != ENDED:
            self._wrong.append(f"DID NOT CONTINUE: {name}: status {again.returncode}: {again.stderr[-300:]}")
        elif differs := children.difference(run_dir, self._reference):
            self._wrong.append(f"CONTINUED WRONGLY: {name}: {differs}")


def _remount(mount, how):
    subprocess.run(["mount", "-o", f"remount,{how}", str(mount)], check=True)


def _touched(before, after):
    """The first file of the checkpoints that are older which is not as it was."""
    for path in sorted(before.rglob("*")):
        now = after / path.relative_to(before)
        if path.is_file() and not (now.is_file() and now.read_bytes() == path.read_bytes()):
            return path.relative_to(before)
    return None


@contextlib.contextmanager
def _mounted(folder, how):
    """A file system of its own at `folder`, as a Path; None where none may be mounted."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", how, "tmpfs", str(folder)], capture_output=True, text=True)
    if done.returncode != 0:
        print(f"a file system of its own: skipped: {done.stderr.strip()}", flush=True)
        yield None
        return
    try:
        yield Path(folder)
    finally:
        subprocess.run(["umount", str(folder)], check=True)
