"""Checkpoints with flipped bits, damaged files and junk beside them."""

import os
import random
import re
import shutil
from collections import Counter
from pathlib import Path

import children
import restoring
from children import ENDED, STORAGE, tiny_runs

STEPS, AFTERWARDS = (100, 130, 160), 180  # where the run has checkpoints, and where it may go on to
KNOBS = {"checkpoint_every_steps": 1000, "checkpoints_kept": 10}
USAGE = 2


def bitflips(options):
    """One bit of the newest checkpoint, anywhere in it; half of the time in a file chosen first."""
    rng = random.Random(options.seed)
    with children.workshop() as folder:
        run_dir, truth = _make_run(folder)
        judge, counts, wrong, said = restoring.Judge(truth), Counter(), [], set()
        files = _newest_files(run_dir)
        sizes = [path.stat().st_size for path in files]
        print(f"the newest checkpoint has {len(files)} files, {sum(sizes):,} bytes", flush=True)
        for index in range(options.count):
            filled = [path for path, size in zip(files, sizes) if size]
            path = rng.choice(filled) if index % 2 else rng.choices(files, sizes)[0]
            position, bit = rng.randrange(path.stat().st_size), rng.randrange(8)
            copy = _copy(run_dir, folder / "copy")
            target = copy / path.relative_to(run_dir)
            data = bytearray(target.read_bytes())
            data[position] ^= 1 << bit
            target.write_bytes(data)
            found, detail = judge(copy)
            counts[found] += 1
            where = f"bit {bit} of byte {position:,} of {path.relative_to(run_dir)}"
            if found not in restoring.GOOD:
                wrong.append(f"{found}: {where}: {detail}")
            elif found not in said and said.add(found) is None:
                print(f"for example: {where}: {found}: {detail[:300]}", flush=True)
        judge.close()
    return _conclude(counts, wrong, f"{options.count} flipped bits")


def files(options):
    """Every file of the newest checkpoint damaged in turn, and junk among the checkpoints."""
    del options
    with children.workshop() as folder:
        run_dir, truth = _make_run(folder)
        judge, counts, wrong = restoring.Judge(truth), Counter(), []
        for path in _newest_files(run_dir):
            for name, damage in DAMAGES.items():
                copy = _copy(run_dir, folder / "copy")
                if not damage(copy / path.relative_to(run_dir), copy):
                    continue
                found, detail = judge(copy)
                counts[found] += 1
                if found not in restoring.GOOD:
                    wrong.append(f"{found}: {path.relative_to(run_dir)} {name}: {detail}")
        wrong += _prove_junk(folder, run_dir, judge, counts)
        judge.close()
    return _conclude(counts, wrong, f"{sum(counts.values())} damaged directories")


def _make_run(folder, **changes):
    """A run with checkpoints at STEPS, and what each of them holds."""
    run_dir, truth = folder / f"run{len(os.listdir(folder))}", {}
    for step in STEPS:
        tiny_runs.train(run_dir, num_steps=step, compile_cache=folder / "cache", **KNOBS, **changes)
        truth[step] = tiny_runs.saved(run_dir)
    return run_dir, truth


def _entries(run_dir):
    """step -> what belongs to the checkpoint of that step."""
    found = {}
    for path in (run_dir / "checkpoints").iterdir():
        if digits := re.match(r"\D*(\d+)", path.name):
            found.setdefault(int(digits[1]), []).append(path)
    return found


def _newest_files(run_dir):
    roots = _entries(run_dir)[max(STEPS)]
    every = [root for root in roots if root.is_file()] + [p for root in roots for p in root.rglob("*") if p.is_file()]
    return sorted(every)


def _copy(run_dir, target):
    if target.exists():
        shutil.rmtree(target)
    return Path(shutil.copytree(run_dir, target, symlinks=True))


def _rewrite(change):
    def damage(path, run_dir):
        before = path.read_bytes()
        path.write_bytes(change(before))
        return path.read_bytes() != before

    return damage


def _delete(path, run_dir):
    path.unlink()
    return True


def _swap(path, run_dir):
    """The file of the same name in the checkpoint before; data files of orbax have random names, so that few do."""
    newest, older = (_entries(run_dir)[step][0] for step in (max(STEPS), sorted(STEPS)[-2]))
    other = older / path.relative_to(newest) if path.is_relative_to(newest) else older
    if not other.is_file() or other.read_bytes() == path.read_bytes():
        return False
    shutil.copyfile(other, path)
    return True


DAMAGES = {
    "cut in half": _rewrite(lambda data: data[: len(data) // 2]),
    "cut by a byte": _rewrite(lambda data: data[:-1]),
    "emptied": _rewrite(lambda data: b""),
    "zeroed": _rewrite(lambda data: bytes(len(data))),
    "with a byte more": _rewrite(lambda data: data + b"\0"),
    "deleted": _delete,
    "of the checkpoint before": _swap,
}


# -- what does not belong there ------------------------------------------------------------------------------------


def _prove_junk(folder, run_dir, judge, counts):
    """Junk neither hides the newest checkpoint, nor is it deleted, nor does the run go wrong after it."""
    wrong = []
    reference = _copy(run_dir, folder / "reference")
    children.finish_well(_go_on(reference, folder))
    for name, plant in _junk(folder).items():
        copy = _copy(run_dir, folder / "copy")
        planted = plant(copy / "checkpoints")
        is_foreign = name.startswith("a checkpoint of")
        found, detail = (restoring.REFUSED, "not asked") if is_foreign else judge(copy)
        process = children.finish(_go_on(copy, folder))
        print(f"{name}: restored: {found}; going on: status {process.returncode}", flush=True)
        counts[found] += 1
        if found not in restoring.GOOD:
            wrong.append(f"{found}: {name}: {detail}")
        if not planted.is_symlink() and not planted.exists():
            wrong.append(f"DELETED: {name}")
        if process.returncode == ENDED and (differs := children.difference(copy, reference)):
            wrong.append(f"WENT ON WRONGLY: {name}: {differs}")
        if process.returncode not in (ENDED, STORAGE, USAGE) or "Traceback" in process.stderr:
            wrong.append(f"STATUS {process.returncode}: {name}: {process.stderr[-300:]}")
    return wrong


def _go_on(run_dir, folder):
    return children.words(run_dir, folder / "cache", num_steps=AFTERWARDS, **KNOBS)


def _junk(folder):
    """Name -> what plants it among the checkpoints, and returns where."""

    def made(name, fill):
        def plant(checkpoints):
            path = checkpoints / name
            fill(path)
            return path

        return plant

    def temporary(path):
        path.mkdir()
        (path / "half").write_bytes(b"half a file")

    def newest_of(checkpoints):
        return _entries(checkpoints.parent)[max(STEPS)][0]

    def copied(checkpoints):
        source = newest_of(checkpoints)
        return _clone(source, source.with_name(source.name.replace(str(max(STEPS)), "999")))

    def foreign(**changes):
        other, _ = _make_run(folder, **changes)

        def plant(checkpoints):
            source = newest_of(other / "checkpoints")
            return _clone(source, checkpoints / source.name.replace(str(max(STEPS)), "170"))

        return plant

    return {
        "an empty folder": made("999", Path.mkdir),
        "an empty folder that looks older": made("110", Path.mkdir),
        "a file named like a checkpoint": made("999", lambda path: path.write_text("hello")),
        "what orbax leaves behind": made("999.orbax-checkpoint-tmp-1", temporary),
        "a temporary folder": made("tmp123.tmp", temporary),
        "a link to itself": made("999", lambda path: path.symlink_to(path)),
        "a link to its parent": made("998", lambda path: path.symlink_to("..")),
        "a name that is no ASCII": made("٩٩٩", Path.mkdir),
        "the newest checkpoint under another name": copied,
        "a checkpoint of a run of other shapes": foreign(hidden_units=9),
        "a checkpoint of a run of the same shapes": foreign(learning_rate=1e-3),
    }


def _clone(source, target):
    (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)
    return target


def _conclude(counts, wrong, what):
    for found, count in counts.most_common():
        print(f"{found}: {count}")
    for complaint in wrong:
        print(complaint)
    return children.verdict(not wrong, f"{what}, {len(wrong)} of them neither right to the bit nor refused")
