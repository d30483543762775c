"""A run on the workers of a Dask cluster, which may be a SLURM job, Kubernetes pods or processes of this machine."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from uhrct.batch.ledger import RUNNING, WAITING, Ledger
from uhrct.batch.worker import DISK_FULL, Job, work
from uhrct.core.errors import UhrctError

#: a scheduler that is there answers sooner
ANSWER_S = 15.0
#: between two looks for series whose worker died
LOOK_S = 2.0
#: networks of two threads of one process would compete for its cores
_one_at_a_time = threading.Lock()


def run_on_dask(
    job: Job, ledger: Ledger, address: str, settled: Callable[[dict[str, int]], None], say: Callable[[str], None]
) -> None:
    """Let the workers of a cluster process what waits in the ledger.

    A task claims the next series that waits, whichever it is, and processes it. So a task that Dask starts twice
    (dask/distributed #8182) does no harm: the second one takes another series, or none.

    Parameters
    ----------
    address : of the scheduler, such as "tcp://10.0.0.1:8786"
    settled : is told the number of series in each state when it changes
    say : takes a line for the user

    Raises
    ------
    UhrctError
        If Dask is not installed, the scheduler cannot be reached, or a disk is full.
    """
    try:
        from distributed import Client, KilledWorker, as_completed
    except ImportError:
        raise UhrctError("--scheduler needs Dask: pip install 'uhrct[dask]'") from None
    logging.getLogger("distributed").setLevel(logging.ERROR)  # it tells of every connection and every dead worker
    try:
        client = Client(address, timeout=ANSWER_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise UhrctError(f"{address}: no Dask scheduler answers there ({error})") from error
    with client, client.as_current():
        say(f"dashboard of the cluster: {client.dashboard_link}")
        while True:
            ledger.release_dead()
            counts = ledger.counts()
            if not counts[WAITING] and not counts[RUNNING]:
                return
            tasks = client.map(one_series, [job] * counts[WAITING], pure=False)
            for task in as_completed(tasks):
                with suppress(KilledWorker):  # the ledger counts the deaths for each series, and decides
                    if task.result() == DISK_FULL:
                        raise UhrctError(f"{job.out}: no space left; make room and start the same command again")
                settled(ledger.counts())
            if not tasks:  # a worker that died left a series; its claim ends soon
                time.sleep(LOOK_S)


def one_series(job: Job) -> int:
    """Process the next series that waits, if there is one. Runs in a worker of the cluster."""
    with _one_at_a_time:
        return work(job, most=1, upscaler=_warm(job))


_loaded: dict[str, Any] = {}


def _warm(job: Job) -> Any:
    """The upscaler of a run, with the weights that this process has loaded."""
    from uhrct.upscaling.upscaler import Upscaler

    if job.wanted not in _loaded:
        _loaded.clear()
        _loaded[job.wanted] = Upscaler(**job.settings)
    return _loaded[job.wanted]
