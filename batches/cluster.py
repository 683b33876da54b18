"""A django-q2 cluster that dies as one: ``python -m batches.cluster``.

The supervisor starts it and watches it. Left to itself a cluster outlives the
death of its parts: workers of a killed main process go on pulling from the queue.
Here the kernel ends every process whose parent is gone, from the supervisor
down to the workers, and their sandboxes end with them.
"""

import os
import signal

import django


def main() -> None:
    from batches.processes import die_with_parent

    die_with_parent(signal.SIGKILL)
    # multiprocessing forks the sentinel and the workers; each asks the kernel for itself.
    os.register_at_fork(after_in_child=lambda: die_with_parent(signal.SIGKILL))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "executor_site.settings")
    django.setup()

    from django_q.cluster import Cluster

    Cluster().start()


if __name__ == "__main__":
    main()
