"""The faults that may strike at any moment while jobs run, and leave the set whole again. Each is a row of the table.

A strike breaks something, waits a while, and repairs what an operator's init system would repair. What must hold
afterwards is in `tests.faults.invariants`.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.faults.processes import Process, wait_until_gone
from tests.given.running_service import kill
from tests.production import LEASE_SECONDS, Production

TRAINER = "workers.trainer"


@dataclass(frozen=True)
class Strike:
    """`name` is its row in the table; `hit` breaks and repairs, both at moments that the random numbers choose."""

    name: str
    hit: Callable[[Production, random.Random], None]


def _worker_with_trainer(production: Production, numbers: random.Random) -> Process:
    """A worker that holds a trainer, preferably; any, while none does."""
    holding = [worker for worker in production.workers if worker.running and worker.below(TRAINER)]
    return numbers.choice(holding or production.workers)


def kill_trainer(production: Production, numbers: random.Random) -> None:
    worker = _worker_with_trainer(production, numbers)
    for pid in worker.below(TRAINER):
        kill(pid)


def kill_supervisor(production: Production, numbers: random.Random) -> None:
    """Its trainer must end by itself."""
    worker = _worker_with_trainer(production, numbers)
    trainers = worker.below(TRAINER)
    worker.kill()
    wait_until_gone(trainers)
    time.sleep(numbers.uniform(0, LEASE_SECONDS))
    worker.start()


def kill_supervisor_and_trainer(production: Production, numbers: random.Random) -> None:
    worker = _worker_with_trainer(production, numbers)
    for pid in [*worker.below(TRAINER), worker.pid]:
        kill(pid)
    worker.restart()


def kill_whole_worker(production: Production, numbers: random.Random) -> None:
    """The machine is lost; the other worker must take over."""
    worker = _worker_with_trainer(production, numbers)
    worker.kill_all()
    time.sleep(numbers.uniform(LEASE_SECONDS, 2 * LEASE_SECONDS))
    worker.start()


def freeze_worker(production: Production, numbers: random.Random) -> None:
    """Past its lease: another one takes over, then it thaws and finds its writes refused."""
    worker = _worker_with_trainer(production, numbers)
    worker.freeze()
    time.sleep(numbers.uniform(1.5, 2.5) * LEASE_SECONDS)
    worker.thaw()


def stop_redis(production: Production, numbers: random.Random) -> None:
    production.valkey.stop()
    time.sleep(numbers.uniform(0.5, 4))
    production.valkey.start()


def kill_redis(production: Production, numbers: random.Random) -> None:
    production.valkey.kill()
    time.sleep(numbers.uniform(0, 2))
    production.valkey.start()


def flush_redis(production: Production, numbers: random.Random) -> None:
    for _ in range(3):
        production.valkey.flush()
        time.sleep(numbers.uniform(0, 0.5))


def restart_postgres(production: Production, numbers: random.Random) -> None:
    production.postgres.stop()
    time.sleep(numbers.uniform(0, 2))
    production.postgres.start()


def kill_postgres(production: Production, numbers: random.Random) -> None:
    production.postgres.kill()
    time.sleep(numbers.uniform(0, 1))
    production.postgres.start()


def cut_connections(production: Production, numbers: random.Random) -> None:
    for _ in range(4):
        production.postgres.sql(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity where pid <> pg_backend_pid() "
            "and backend_type = 'client backend'"
        )
        time.sleep(numbers.uniform(0, 0.4))


def refuse_s3(production: Production, numbers: random.Random) -> None:
    production.radosgw.stop_gateway()
    time.sleep(numbers.uniform(2, 8))
    production.radosgw.start_gateway()


def hang_s3(production: Production, numbers: random.Random) -> None:
    """Connections are accepted and nothing is answered, for half a minute."""
    production.radosgw.pause()
    time.sleep(30)
    production.radosgw.resume()


def kill_api(production: Production, numbers: random.Random) -> None:
    production.api.kill_all()
    time.sleep(numbers.uniform(0, 1))
    production.api.start()


def kill_engine(production: Production, numbers: random.Random) -> None:
    production.engine.kill_all()
    time.sleep(numbers.uniform(0, 3))
    production.engine.start()


STRIKES = [
    Strike("kill -9 of the trainer", kill_trainer),
    Strike("kill -9 of the supervisor", kill_supervisor),
    Strike("kill -9 of supervisor and trainer", kill_supervisor_and_trainer),
    Strike("kill -9 of everything on a worker's machine", kill_whole_worker),
    Strike("worker frozen past its lease, thawed later", freeze_worker),
    Strike("Redis stopped for seconds", stop_redis),
    Strike("Redis killed and restarted", kill_redis),
    Strike("Redis flushed", flush_redis),
    Strike("Postgres restarted", restart_postgres),
    Strike("Postgres killed and restarted", kill_postgres),
    Strike("Postgres connections cut", cut_connections),
    Strike("S3 refuses connections", refuse_s3),
    Strike("S3 hangs for 30 s", hang_s3),
    Strike("API killed", kill_api),
    Strike("engine killed and restarted empty", kill_engine),
]
