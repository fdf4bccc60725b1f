"""Jobs on a Dask cluster: `--engine dask=tcp://scheduler:8786`.

The cluster's scheduler gives jobs to its workers and gives those of a lost worker to others; mlhost adds what they are and what becomes of them. How
the scheduler is reached (TLS among it) is for Dask's own configuration to say. Source: distributed.dask.org, Client, Worker, Semaphore.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from provision.errors import Failed, Unreachable, UsageError
from provision.spread.job import Job, carry_out, show

if TYPE_CHECKING:
    from provision.model import HostReport
    from provision.progress import Progress

SCHEMES = ("tcp", "tls", "ucx", "ws", "wss")
CONNECT = 20.0
NO_WORKERS = 180.0
"""Seconds to wait for the scheduler, and for workers when there are none."""

LOOK = 5.0


def address_of(engine: str) -> str:
    """The scheduler's address in `dask=tcp://HOST:PORT`. Raises UsageError for other engines and addresses."""
    kind, equals, address = engine.partition("=")
    scheme, _, rest = address.partition("://")
    if kind != "dask" or not equals or scheme not in SCHEMES or not rest:
        raise UsageError(f"--engine cannot be {engine!r}.", "Write dask=tcp://SCHEDULER:8786 (or tls://…).")
    return address


def on_worker(job: Job, topic: str, at_once: int) -> HostReport:
    """What a worker runs."""
    from distributed import Semaphore, get_worker

    worker = get_worker()

    def heard(kind: str, arguments: tuple[str, ...]) -> None:
        worker.log_event(topic, {"name": job.name, "kind": kind, "arguments": list(arguments)})

    heard("stage", (f"at work on {worker.address}",))
    turns = Semaphore(max_leases=at_once, name=f"{topic}-reboots") if job.reboot != "never" or job.depth else None
    return carry_out(job, heard, turns)


class Cluster:
    """A cluster that jobs can be given to, by several threads at once."""

    def __init__(self, client: Any, address: str, reboots_at_once: int) -> None:
        self._client, self._address, self._at_once = client, address, reboots_at_once
        self._topic = f"mlhost-{secrets.token_hex(6)}"
        self._shown: dict[str, Progress] = {}
        self._lock = threading.Lock()
        self._seen = time.monotonic()
        client.subscribe_topic(self._topic, self._event)

    def run(self, job: Job, progress: Progress) -> HostReport:
        """A job's report, once some worker has done it. Raises Unreachable where the cluster is lost, Failed where a job brings its workers down."""
        from distributed import KilledWorker
        from distributed.client import FutureCancelledError

        self._shown[job.name] = progress
        # Each a key of its own: Dask takes equal calls for the same.
        future = self._client.submit(on_worker, job, self._topic, self._at_once, key=f"{self._topic}-{secrets.token_hex(4)}", pure=False)
        try:
            while not self._done(future):
                self._look(progress, job.name)
            report: HostReport = future.result(timeout=CONNECT)
            return report
        except KilledWorker:
            raise Failed(
                f"The workers that were given {job.name} were lost, one after another.", "Look at the workers' logs, and at their memory; then run the same command again."
            ) from None
        except (FutureCancelledError, OSError, TimeoutError) as error:
            raise Unreachable(
                f"The Dask scheduler at {self._address} was lost: {error or type(error).__name__}.",
                "What has begun on hosts goes on there. Start the scheduler, and run the same command again.",
            ) from None
        except ModuleNotFoundError as error:
            raise Failed(f"A worker of {self._address} has no {error.name}.", "Install mlhost on the workers, the same version as here: pip install 'mlhost[dask]'.") from None
        finally:
            self._shown.pop(job.name, None)
            with contextlib.suppress(Exception):  # a lost scheduler is no reason to lose the report
                future.release()

    @staticmethod
    def _done(future: Any) -> bool:
        from distributed import TimeoutError as NotYet

        with contextlib.suppress(NotYet):
            future.result(timeout=LOOK)
        return bool(future.done())

    def _look(self, progress: Progress, name: str) -> None:
        """Raises Unreachable where there have been no workers for too long, or no scheduler."""
        with self._lock:
            if time.monotonic() - self._seen < LOOK:
                return
            if self._client.scheduler_info(n_workers=-1).get("workers") and self._client.status == "running":
                self._seen = time.monotonic()
                return
            away = time.monotonic() - self._seen
        progress.wait(name, f"the Dask cluster has had no workers for {int(away)} s")
        if away > NO_WORKERS:
            raise Unreachable(
                f"The Dask cluster at {self._address} has no workers.",
                f"Start some: dask worker {self._address}. What has begun on hosts goes on there; the same command again finds it.",
            )

    def _event(self, event: Any) -> None:
        _, said = event
        if isinstance(said, dict) and isinstance(said.get("name"), str):
            progress = self._shown.get(said["name"])
            if progress is not None:
                show(progress, said["name"], str(said.get("kind")), tuple(said.get("arguments") or ()))


@contextmanager
def cluster(address: str, reboots_at_once: int) -> Iterator[Cluster]:
    """The cluster of a scheduler. Raises UsageError where Dask is not installed, Unreachable where no scheduler answers."""
    try:
        from distributed import Client
    except ModuleNotFoundError as error:
        raise UsageError(f"--engine dask: {error.name} is not installed.", "Install it with: pip install 'mlhost[dask]'.") from None
    try:
        client = Client(address, timeout=CONNECT, set_as_default=False, name="mlhost")
    except (OSError, TimeoutError, ValueError) as error:
        raise Unreachable(
            f"No Dask scheduler answers at {address}: {' '.join(str(error).split())[:300] or type(error).__name__}.", "Start one with: dask scheduler; and check the address."
        ) from None
    try:
        yield Cluster(client, address, reboots_at_once)
    finally:
        with contextlib.suppress(Exception):  # it may be lost already
            client.close(timeout=5)
