"""Runs that are killed, or asked to stop, at random moments again and again, against one that never was."""

import random
import signal
from collections import Counter

import children
from children import ENDED, STOPPED

REACH = 0.6  # of an uninterrupted run's time: the longest that a process is left alone, so that chains make progress
UNCACHED = 5  # one process in so many compiles for itself, and is mostly hit while it does


def kills(options):
    """SIGKILL, at moments uniform over the life of a process."""
    return _prove(options, lambda index: signal.SIGKILL)


def stops(options):
    """SIGTERM, SIGINT and SIGHUP in turns; the process has to save and leave with status 3, soon."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup the processes would inherit that it is ignored
    return _prove(options, lambda index: (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)[index % 3])


def _prove(options, signal_of):
    rng, knobs = random.Random(options.seed), {"seeds": "0,1", "num_steps": options.num_steps}
    with children.workshop() as folder:
        cache = folder / "cache"
        children.finish_well(children.words(folder / "warm", cache, seeds="0,1"))  # compiles everything once
        reference = folder / "uninterrupted"
        seconds = children.finish_well(children.words(reference, cache, **knobs))
        print(f"an uninterrupted run of {options.num_steps} steps took {seconds:.1f} s", flush=True)
        hits, wrong, num_chains = [], [], 0
        while len(hits) < options.count:
            run_dir, num_chains = folder / f"chain_{num_chains}", num_chains + 1
            while len(hits) < options.count:
                off = rng.randrange(UNCACHED) == 0
                arguments = children.words(run_dir, "off" if off else cache, **knobs)
                delay, number = rng.uniform(0.0, REACH * seconds), signal_of(len(hits))
                outcome = children.hit(arguments, run_dir, number, delay, folder / "stderr.txt")
                wrong += _complaints(outcome, number, run_dir, options)
                if outcome.was_hit:
                    hits.append(outcome)
                    _tell(len(hits), number, delay, outcome, off)
                if outcome.status == ENDED or not outcome.was_hit:
                    break
            last = children.finish(children.words(run_dir, cache, **knobs))
            if last.returncode != ENDED:
                wrong.append(f"{run_dir.name}: the last resumption ended with {last.returncode}: {last.stderr[-300:]}")
            elif found := children.difference(run_dir, reference):
                wrong.append(f"{run_dir.name} is not the uninterrupted run: {found}")
        return _conclude(hits, wrong, num_chains)


def _complaints(outcome, number, run_dir, options):
    """What is wrong with how a process ended."""
    if not outcome.was_hit:
        return [] if outcome.status == ENDED else [f"a resumption ended with {outcome.status}: {outcome.stderr[-300:]}"]
    if number == signal.SIGKILL or outcome.moment == "interpreter":
        return []  # before main there is nobody to listen, and nothing to lose
    where = f"{number.name} while {outcome.moment}"
    found = [f"{where}: a traceback: {outcome.stderr[-600:]}"] if "Traceback" in outcome.stderr else []
    if outcome.seconds > options.limit_s:
        found.append(f"{where}: {outcome.seconds:.1f} s until the end, more than {options.limit_s}")
    allowed = {STOPPED}
    if "ending" in (outcome.moment, "ending" if children.is_finished(run_dir, options.num_steps) else ""):
        allowed = {STOPPED, ENDED, -number}  # all is done and saved
    if outcome.status not in allowed:
        found.append(f"{where}: status {outcome.status}: {outcome.stderr[-300:]}")
    return found


def _tell(index, number, delay, outcome, off):
    cache = "no cache" if off else "cache"
    tail = "" if number == signal.SIGKILL else f", status {outcome.status} after {outcome.seconds:.2f} s"
    print(f"{index:4} {number.name} at {delay:5.1f} s ({cache}) while {outcome.moment}{tail}", flush=True)


def _conclude(hits, wrong, num_chains):
    for moment, count in Counter(outcome.moment for outcome in hits).most_common():
        slowest = max(outcome.seconds for outcome in hits if outcome.moment == moment)
        statuses = Counter(outcome.status for outcome in hits if outcome.moment == moment)
        listed = ", ".join(f"{status}: {times}" for status, times in sorted(statuses.items()))
        print(f"while {moment}: {count} signals, slowest end {slowest:.2f} s, exit statuses {listed}")
    for complaint in wrong:
        print(complaint)
    verb = "equals" if not wrong else "should equal"
    return children.verdict(
        not wrong, f"{len(hits)} signals in {num_chains} runs; the end of each {verb} that of an uninterrupted run"
    )
