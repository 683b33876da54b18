"""A worker: the supervisor of one queue cluster, and the sweeper of what crashes leave behind.

django-q2's cluster has ways to die that it does not notice itself. The worst: an
idle process killed while it holds the lock of the shared queue, after which nothing
is ever taken again. So the cluster's processes are watched from outside. When one vanishes that
was not at work on a task, the cluster is retired: a new one takes over at once, and the
old one is ended when the last task in its hands is done.
"""

import logging
import os
import socket
import time
from collections.abc import Callable

from django.conf import settings
from django.db import DatabaseError, connections
from django.db.models import Sum
from django.db.models.functions import Now

from batches import janitor, lanes, sweeper
from batches.models import Task, Worker
from batches.processes import ProcessId, boot_id
from batches.supervisor import Child, Stop

logger = logging.getLogger(__name__)

TICK_SECONDS = 1.0
TIDY_SECONDS = 5.0
UNANSWERED_CALLS = 4
"""So many calls for lanes in a row that nobody answered, and the cluster is taken for stuck."""


class WorkerSupervisor:
    """Runs one ``Worker`` until a stop is asked for."""

    def __init__(self) -> None:
        self.worker = Worker.objects.create(
            host=socket.gethostname(),
            boot=boot_id(),
            pid=os.getpid(),
            lanes=settings.MAX_CONCURRENT_TASKS,
        )
        self.cluster = self._new_cluster()
        self.retired: list[Child] = []
        self._met: set[ProcessId] = set()
        self._established: set[ProcessId] = set()
        self._unanswered = 0
        self._claims = 0
        self._tidied = 0.0

    def run(self, stop: Stop) -> None:
        """Work until ``stop`` is asked for, then hand everything back and leave nothing running."""
        try:
            self.cluster.start()
            logger.info("worker %s has %d lanes", self.worker, self.worker.lanes)
            while not stop.asked:
                self._safely(self.tick)
                stop.wait(TICK_SECONDS)
            self._safely(self.drain)
        finally:
            for cluster in (self.cluster, *self.retired):
                cluster.kill()
            self._safely(lambda: self.worker.delete())

    def tick(self) -> None:
        """What is due every second."""
        found = Worker.objects.filter(pk=self.worker.pk)
        if not found.update(heartbeat_at=Now()):
            self.worker.save(force_insert=True)  # somebody removed the row of a sleeper
        busy = self._busy()
        self._watch_cluster(busy)
        self._watch_answers(busy)
        sweeper.sweep(self.worker)
        if time.monotonic() - self._tidied > TIDY_SECONDS:
            self._tidied = time.monotonic()
            janitor.tidy()

    def drain(self) -> None:
        """Take no more tasks, let the running ones finish within ``GRACE_SECS``, hand back the rest."""
        Worker.objects.filter(pk=self.worker.pk).update(draining=True)
        end = time.monotonic() + settings.GRACE_SECS
        while self._busy() and time.monotonic() < end:
            Worker.objects.filter(pk=self.worker.pk).update(heartbeat_at=Now())
            time.sleep(0.1)
        returned = lanes.hand_back(self.worker)
        if returned:
            logger.info("%d running tasks were handed back to the queue", returned)

    def _busy(self) -> set[ProcessId]:
        """The processes of this worker that have a task in hand."""
        rows = Task.objects.in_hand().filter(worker=self.worker)
        return {
            ProcessId(pid, birth)
            for pid, birth in rows.values_list("worker_pid", "worker_birth")
            if pid is not None and birth is not None
        }

    def _watch_cluster(self, busy: set[ProcessId]) -> None:
        if not self.cluster.running:
            self.cluster.keep_alive()
            self._met, self._established = set(), set()
        else:
            members = self.cluster.members()
            vanished = self._established - members - busy
            # Only what was there twice belongs: a sandbox that is just being
            # started is a member for an instant, until it leads its own session.
            self._established = (self._established | self._met) & members
            self._met = members
            if vanished:
                logger.warning("the queue cluster lost %d processes", len(vanished))
                self._retire()
        for cluster in list(self.retired):
            if not cluster.members() & busy:
                cluster.kill()
                self.retired.remove(cluster)

    def _watch_answers(self, busy: set[ProcessId]) -> None:
        """Retire a cluster that has idle lanes and takes nothing, whatever the cause."""
        if not sweeper.ask_missing_lanes():
            return
        claims = Task.objects.unfinished().aggregate(total=Sum("attempt"))["total"] or 0
        self._unanswered = self._unanswered + 1 if claims == self._claims else 1
        self._claims = claims
        if self._unanswered > UNANSWERED_CALLS and len(busy) < self.worker.lanes:
            logger.warning("the queue cluster does not take the lanes that wait for it")
            self._retire()
            self._unanswered = 0

    def _retire(self) -> None:
        self.retired.append(self.cluster)
        self.cluster = self._new_cluster()
        self.cluster.start()
        self._met, self._established = set(), set()

    def _new_cluster(self) -> Child:
        environment = {lanes.WORKER_VARIABLE: str(self.worker.pk), "TERM_EXECUTOR_ROLE": "worker"}
        return Child("the queue cluster", ["-m", "batches.cluster"], environment)

    def _safely(self, step: Callable[[], object]) -> None:
        """Run a step; a database that cannot be reached for a while only delays what it was for."""
        try:
            step()
        except DatabaseError as error:
            logger.warning("the database could not be used: %s", error)
            connections.close_all()
