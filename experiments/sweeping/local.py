"""Workers on this machine: processes that do job after job, each on devices of its own."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import IO, Protocol

from experiments.stamps import ROOT
from experiments.sweeping.devices import Share
from experiments.sweeping.index import FAILED
from experiments.sweeping.worker import CACHE_VARIABLE, Order, Outcome

GRACE_SECONDS = 5.0


class Executor(Protocol):
    """Who does the jobs.

    Attributes:
      slots: How many at a time.
    """

    slots: int

    def submit(self, order: Order) -> None:
        """Starts a job; at most `slots` are started and not yet ended."""

    def wait(self, seconds: float) -> list[Outcome]:
        """Jobs that have ended, after at most so many seconds."""

    def close(self) -> None:
        """Ends the workers, whatever they do."""


class LocalExecutor:
    """Worker processes, started when there is a job for them and again after a crash."""

    def __init__(self, shares: Sequence[Share], compile_cache: str | None = None) -> None:
        """Makes one worker for each share of the machine."""
        self._workers = [_Worker(share, compile_cache) for share in shares]
        self.slots = len(self._workers)

    def submit(self, order: Order) -> None:
        """Hands a job to a worker that has none, one that is running already if there is one."""
        idle = [worker for worker in self._workers if worker.order is None]
        if not idle:
            raise RuntimeError(f"all {self.slots} workers have a job: wait for one first")
        idle.sort(key=lambda worker: not worker.is_running)
        idle[0].start(order)

    def wait(self, seconds: float) -> list[Outcome]:
        """As in `Executor`."""
        with selectors.DefaultSelector() as selector:
            for worker in self._workers:
                if worker.order is not None:
                    selector.register(worker.answers, selectors.EVENT_READ, worker)
            if not selector.get_map():
                return []
            ready: list[_Worker] = [key.data for key, _ in selector.select(seconds)]
        return [outcome for worker in ready if (outcome := worker.answer()) is not None]

    def close(self) -> None:
        """Kills the workers: what they have written is whole."""
        for worker in self._workers:
            worker.end()


class _Worker:
    def __init__(self, share: Share, compile_cache: str | None) -> None:
        self.order: Order | None = None
        self._share, self._cache, self._since = share, compile_cache, 0.0
        self._process: subprocess.Popen[str] | None = None
        self._errors: IO[bytes] | None = None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def answers(self) -> IO[str]:
        assert self._process is not None
        assert self._process.stdout is not None
        return self._process.stdout

    def start(self, order: Order) -> None:
        if not self.is_running:
            self._launch()
        assert self._process is not None
        assert self._process.stdin is not None
        self.order, self._since = order, time.perf_counter()
        # A worker that has just died is noticed when its answer is read.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(order._asdict()) + "\n")
            self._process.stdin.flush()

    def answer(self) -> Outcome | None:
        order, line = self.order, self.answers.readline()
        assert order is not None
        self.order = None
        if not line.endswith("\n"):
            return self._crashed(order)
        outcome = Outcome(**json.loads(line))
        if outcome.tired:
            self.end()
        # With the worker's start, which the job paid for.
        return outcome._replace(seconds=time.perf_counter() - self._since)

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
            self._process = None
        if self._errors is not None:
            self._errors.close()
            self._errors = None

    def _launch(self) -> None:
        self.end()
        cores = ",".join(map(str, self._share.cores))
        command = [sys.executable, "-m", "experiments.sweeping.worker", f"--cores={cores}"]
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        variables = {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
        if self._cache:
            variables[CACHE_VARIABLE] = self._cache
        # For what a crashing interpreter says, outside of any job's output.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            command, env=os.environ | self._share.variables(os.environ) | variables,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
        )  # fmt: skip

    def _crashed(self, order: Order) -> Outcome:
        assert self._process is not None
        try:
            code: int | None = self._process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            code = None
        how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended: {code}"
        last = self._last_words()
        self.end()
        seconds = time.perf_counter() - self._since
        error = ": ".join([f"its worker {how}", *last])
        return Outcome(order.key, FAILED, seconds, error=error)

    def _last_words(self) -> list[str]:
        if self._errors is None:
            return []
        self._errors.seek(0)
        return self._errors.read().decode("utf8", "replace").strip().splitlines()[-1:]
