"""Events and workers in the admin: for those who follow what goes on."""

from typing import Any

from django.contrib import admin
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest

from batches.admin.window import Window
from batches.models import Event, Worker
from batches.statuses import IN_HAND
from batches.templatetags import shown


@admin.register(Event)
class EventAdmin(Window):
    """What watchers were told."""

    list_display = ("seq", "event", "task_name", "told", "moment", "batch_link")
    list_filter = ("event",)
    search_fields = ("batch__id", "task_name")
    search_help_text = "By batch id or task id."
    fields = ("batch_link", "seq", "event", "task_name", "told", "moment")
    readonly_fields = fields

    def get_ordering(self, request: HttpRequest) -> tuple[str, ...]:
        """One batch's events tell its story from the start; of all, the newest come first."""
        return ("seq",) if "batch__id__exact" in request.GET else ("-pk",)

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest) -> bool:
        return lookup == "batch__id__exact" or super().lookup_allowed(lookup, value, request)

    @admin.display(description="data")
    def told(self, event: Event) -> str:
        return shown.told(event.data)

    @admin.display(description="at (UTC)", ordering="pk")
    def moment(self, event: Event) -> str:
        return shown.moment(event.at)


@admin.register(Worker)
class WorkerAdmin(Window):
    """The workers that run tasks, how busy they are, and when each was last heard of."""

    list_display = ("__str__", "lanes", "busy", "accepts", "started", "heard")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Worker]:
        rows: QuerySet[Worker] = super().get_queryset(request)
        return rows.annotate(in_hand=Count("tasks", filter=Q(tasks__status__in=IN_HAND)))

    @admin.display(description="tasks in hand", ordering="in_hand")
    def busy(self, worker: Any) -> int:
        return int(worker.in_hand)

    @admin.display(description="takes tasks", boolean=True, ordering="-draining")
    def accepts(self, worker: Worker) -> bool:
        return not worker.draining

    @admin.display(description="started (UTC)", ordering="started_at")
    def started(self, worker: Worker) -> str:
        return shown.moment(worker.started_at)

    @admin.display(description="last heard of (UTC)", ordering="heartbeat_at")
    def heard(self, worker: Worker) -> str:
        return shown.moment(worker.heartbeat_at)
