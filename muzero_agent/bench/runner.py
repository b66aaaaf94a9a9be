"""All runs of a benchmark: several at a time, each in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TimeElapsedColumn

from muzero_agent.bench import agents
from muzero_agent.bench.plan import Run
from muzero_agent.bench.plots import write_plots
from muzero_agent.bench.results import REPORT, report, write_csv
from muzero_agent.bench.worker import Result, read_result, write_whole

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
# Python sees a signal between two instructions of the main thread alone: one that comes just before
# it begins to wait, or that the system gives to another thread, is seen when the wait is over.
WAIT_SECONDS = 0.5


def bench(
    plan: Sequence[Run],
    out: Path,
    *,
    jobs: int = 1,
    again: bool = False,
    progress: bool = True,
    command: str = "",
) -> list[str]:
    """Run what has not been run yet with these settings, and write down what all runs found.

    :param out: directory of the results
    :param jobs: runs at a time
    :param again: whether to repeat what is finished
    :param command: that is noted in the report
    :return: complaints of runs that failed; the others are done nevertheless
    :raises KeyboardInterrupt: after what is finished has been written down
    """
    if jobs < 1:
        raise ValueError(f"--jobs {jobs}: give at least 1")
    console = Console(highlight=False, markup=False, soft_wrap=True)
    try:
        failures = run_all(plan, out, jobs, again, progress, console)
    except KeyboardInterrupt:
        write_report(plan, out, command, console)
        raise
    write_report(plan, out, command, console)
    return failures


def write_report(plan: Sequence[Run], out: Path, command: str, console: Console) -> None:
    """Write and show what the finished runs found."""
    results = read_results(plan, out)
    if results:
        write_csv(results, out)
        write_plots(results, out)
        text = report(results, command)
        write_whole(out / REPORT, text)
        console.print(f"\n{text}\n{len(results)} of {len(plan)} runs are in {out}")


def run_all(
    plan: Sequence[Run], out: Path, jobs: int, again: bool, progress: bool, console: Console
) -> list[str]:
    """Run what has not been run yet; the CSV files grow whenever a run is over.

    :return: complaints of runs that failed
    """
    todo = [run for run in plan if again or is_due(run, out, console)]
    for run in {(run.env, run.algorithm): run for run in todo}.values():
        _check(run)
    failures = []
    known = len(plan) - len(todo)
    columns = ("{task.description}", BarColumn(), "{task.completed:.0f}{task.fields[note]}")
    with (
        noted_interrupts() as interrupted,
        Progress(*columns, TimeElapsedColumn(), console=console, disable=not progress) as bars,
        ThreadPoolExecutor(jobs) as pool,
    ):
        overall = bars.add_task("runs", total=len(plan), completed=known, note=f"/{len(plan)}")
        processes = Processes(out, bars)
        futures = {pool.submit(processes.run, run): run for run in todo}
        try:
            pending = set(futures)
            while pending:
                if interrupted.is_set():
                    raise KeyboardInterrupt
                done, pending = wait(pending, WAIT_SECONDS, FIRST_COMPLETED)
                for future in done:
                    complaint = future.result()
                    if complaint:
                        failures.append(complaint)
                    else:
                        write_csv(read_results(plan, out), out)
                    console.print(complaint or _line(futures[future], out))
                    bars.advance(overall)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            processes.end()
            raise
    return failures


@contextmanager
def noted_interrupts() -> Iterator[threading.Event]:
    """Ctrl-C sets the event, and raises nothing where the main thread happens to be: Python drops
    what is raised in a destructor or in a callback of a weak reference.

    Where something else is done with Ctrl-C, or in another thread than the main one, it is not set.
    """
    event = threading.Event()
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not ours or threading.current_thread() is not threading.main_thread():
        yield event
        return
    signal.signal(signal.SIGINT, lambda *_: event.set())
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def read_results(plan: Sequence[Run], out: Path) -> list[Result]:
    """The results of those runs that are finished."""
    found = [(run, read_result(out / run.file)) for run in plan]
    return [result for run, result in found if result is not None and result.run == run]


def is_due(run: Run, out: Path, console: Console) -> bool:
    """Whether a run has no result. What a result of other settings differs in is said."""
    found = read_result(out / run.file)
    if found is None or found.run == run:
        return found is None
    before, now = found.run.model_dump(), run.model_dump()
    for inner in "settings", "defaults":
        before |= before.pop(inner)
        now |= now.pop(inner)
    changed = sorted(key for key in before | now if before.get(key) != now.get(key))
    console.print(f"{run} is repeated: {', '.join(changed)} changed")
    return True


class Processes:
    """Those that run at the moment.

    :param out: directory of the results
    :param bars: show how far each of them is
    """

    def __init__(self, out: Path, bars: Progress) -> None:
        self.out, self.bars = out, bars
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._over = False

    def run(self, run: Run) -> str | None:
        """Run it to its end.

        :return: what went wrong
        """
        path = self.out / run.file
        path.parent.mkdir(parents=True, exist_ok=True)
        log = path.with_suffix(".log")
        with log.open("w", encoding="utf-8") as errors, self._lock:
            if self._over:
                return None
            process = subprocess.Popen(
                [sys.executable, "-m", "muzero_agent.bench.worker", run.model_dump_json(), path],
                stdin=subprocess.PIPE,  # the worker ends with whoever holds the other end
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=os.environ | dict.fromkeys(THREADS, str(run.threads)),
                start_new_session=True,  # Ctrl-C is for this process alone, which ends the others
            )
            self._running.add(process)
        bar = self.bars.add_task(str(run), total=100, note="%")
        with process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.strip().isdecimal():  # environments may print as well
                    self.bars.update(bar, completed=int(line))
        self.bars.remove_task(bar)
        with self._lock:
            self._running.discard(process)
        said = log.read_text(encoding="utf-8").strip().splitlines() or ["it said nothing"]
        if process.returncode == 0 or self._over:
            log.unlink()
            return None
        return f"{run} failed with code {process.returncode}: {said[-1]} (more in {log})"

    def end(self) -> None:
        """End what runs, and let nothing more begin."""
        with self._lock:
            self._over = True
            for process in self._running:
                process.terminate()


def _check(run: Run) -> None:
    """Whether the model can be built: better now than after hours."""
    lines = run.settings | {"n_timesteps": run.steps}
    settings = agents.settings_from(lines, str(run), run.algorithm)
    envs = agents.build(run.algorithm, run.env, settings, run.seed).get_env()
    assert envs is not None
    envs.close()


def _line(run: Run, out: Path) -> str:
    result = read_result(out / run.file)
    assert result is not None
    final = result.final
    return f"{run}: {final.mean:.1f} after {final.steps:,} steps and {final.seconds:.0f} s"
