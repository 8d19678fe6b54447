"""A Dask cluster that tasks run on, instead of the processes of this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import joblib

WAIT = 20  # seconds, for the scheduler and the first worker


@contextlib.contextmanager
def on(address: str) -> Iterator[int]:
    """Lets joblib's tasks run on the cluster whose scheduler has this address, tcp://HOST:PORT, and
    gives the number of its workers. A task of a worker that dies is done by another.

    Raises ConnectionError where dask is not installed, and for a cluster that does not answer or
    has no workers.
    """
    try:
        from distributed import Client
    except ImportError:
        raise ConnectionError(
            "expected dask and distributed, got neither: pip install 'gradtwin[cluster]'"
        ) from None
    try:
        client = Client(address, timeout=WAIT, set_as_default=False)
    except OSError as error:
        raise ConnectionError(f"expected a scheduler at {address}, got {error}") from None
    with client:
        try:
            client.wait_for_workers(1, timeout=WAIT)
        except TimeoutError:
            raise ConnectionError(f"expected workers at {address}, got none") from None
        with joblib.parallel_config(backend="dask", client=client, wait_for_workers_timeout=WAIT):
            yield len(client.scheduler_info()["workers"])
