"""The admin: a window on the rows. Read-only, but for cancelling and deleting batches.

Nothing in it reads an agent's tree. What agents print may hold their code, and
is shown here, to staff, and nowhere else.
"""

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.db.models.functions import Length
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from batches import submissions, transitions
from batches.models import Batch, Event, Run, Task, Worker
from batches.statuses import ACTIVE_BATCH

admin.site.site_header = "term-executor"
admin.site.site_title = "term-executor"
admin.site.index_title = "Evaluation"


class ReadOnly:
    """Nobody adds, changes or deletes by form: rows change through transitions alone."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class TaskInline(ReadOnly, admin.TabularInline):
    """The tasks of a batch, each linked to its story."""

    model = Task
    fields = ("link", "status", "passed", "reward", "fault", "reason", "attempt", "duration")
    readonly_fields = fields
    ordering = ("position",)
    extra = 0
    can_delete = False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Task]:
        return super().get_queryset(request).defer("spec", "patch", "test_output")

    @admin.display(description="task")
    def link(self, task: Task) -> SafeString:
        return format_html('<a href="{}">{}</a>', task_url(task.pk), task.name)

    @admin.display(description="duration")
    def duration(self, task: Task) -> str:
        return seconds(task.duration_ms)


@admin.register(Batch)
class BatchAdmin(ReadOnly, admin.ModelAdmin):
    """All batches: how far, how good, who sent them, when, and how long they took."""

    list_display = (
        "id",
        "status",
        "progress",
        "reward",
        "hotkey",
        "created_at",
        "duration",
        "error",
    )
    list_filter = ("status", "created_at", "hotkey")
    search_fields = ("id", "hotkey", "error", "tasks__name")
    date_hierarchy = "created_at"
    inlines = (TaskInline,)
    actions = ("cancel", "delete_with_files")
    list_per_page = 50
    fields = (
        *("id", "status", "progress", "reward", "error", "hotkey", "concurrent_tasks"),
        *("created_at", "started_at", "finished_at", "duration"),
        *("archive_bytes", "archive_sha256", "events"),
    )
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> QuerySet[Batch]:
        return Batch.objects.with_progress()

    @admin.display(description="progress", ordering="ended")
    def progress(self, batch: Batch) -> str:
        return f"{batch.ended} of {batch.total_tasks}, {batch.passed} passed"

    @admin.display(description="reward", ordering="reward_sum")
    def reward(self, batch: Batch) -> str:
        return f"{batch.aggregate_reward:.3f}"

    @admin.display(description="duration")
    def duration(self, batch: Batch) -> str:
        return seconds(batch.duration_ms)

    @admin.display(description="events")
    def events(self, batch: Batch) -> SafeString:
        url = reverse("admin:batches_event_changelist")
        return format_html(
            '<a href="{}?batch__id__exact={}">{} events</a>', url, batch.pk, batch.last_seq
        )

    @admin.action(description="Cancel selected batches", permissions=["operate"])
    def cancel(self, request: HttpRequest, chosen: QuerySet[Batch]) -> None:
        """End batches; what they are running is stopped within seconds."""
        stopped = sum(transitions.stop_batch(batch, "cancelled") for batch in chosen)
        messages.success(request, f"{stopped} of {len(chosen)} batches were cancelled.")

    @admin.action(description="Delete selected batches with their files", permissions=["operate"])
    def delete_with_files(self, request: HttpRequest, chosen: QuerySet[Batch]) -> None:
        """Remove batches that have ended: rows, archive and workspaces."""
        ended = [batch for batch in chosen if batch.status not in ACTIVE_BATCH]
        for batch in ended:
            submissions.forget(batch)
        kept = len(chosen) - len(ended)
        messages.success(request, f"{len(ended)} batches were deleted.")
        if kept:
            messages.warning(request, f"{kept} are in progress and were kept; cancel them first.")

    def has_operate_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.is_superuser) or request.user.has_perm("batches.delete_batch")


class RunInline(ReadOnly, admin.StackedInline):
    """The commands of a task in their order, with what they printed."""

    model = Run
    fields = (
        *("phase", "attempt", "command", "outcome"),
        *("wall_seconds", "cpu_seconds", "peak_memory_bytes", "printed"),
    )
    readonly_fields = fields
    ordering = ("attempt", "id")
    extra = 0
    can_delete = False

    @admin.display(description="outcome")
    def outcome(self, run: Run) -> str:
        return f"exit code {run.exit_code}" if run.reason == "exited" else run.reason

    @admin.display(description="output")
    def printed(self, run: Run) -> SafeString:
        return format_html("<pre>{}</pre>", run.output)


@admin.register(Task)
class TaskAdmin(ReadOnly, admin.ModelAdmin):
    """All tasks; one by one with everything that was run for it."""

    list_display = (
        *("name", "batch_link", "status", "passed", "reward", "fault", "reason"),
        *("attempt", "duration"),
    )
    list_filter = ("status", "fault", "passed")
    list_select_related = ("batch",)
    search_fields = ("name", "batch__id", "error", "reason")
    inlines = (RunInline,)
    list_per_page = 50
    fields = (
        *("name", "batch_link", "status", "passed", "reward", "fault", "error", "reason"),
        *("attempt", "strikes", "base_commit", "patch_bytes", "worker"),
        *("started_at", "finished_at", "duration"),
    )
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> QuerySet[Task]:
        rows: QuerySet[Task] = super().get_queryset(request)
        return rows.defer("spec", "patch", "test_output").annotate(patch_length=Length("patch"))

    @admin.display(description="batch", ordering="batch")
    def batch_link(self, task: Task) -> SafeString:
        url = reverse("admin:batches_batch_change", args=[task.batch_id])
        return format_html('<a href="{}">{}</a>', url, task.batch_id)

    @admin.display(description="duration")
    def duration(self, task: Task) -> str:
        return seconds(task.duration_ms)

    @admin.display(description="patch")
    def patch_bytes(self, task: Any) -> str:
        return "none" if task.patch_length is None else f"{task.patch_length} bytes"


@admin.register(Event)
class EventAdmin(ReadOnly, admin.ModelAdmin):
    """What watchers were told, in its order."""

    list_display = ("batch", "seq", "event", "task_name", "data", "at")
    list_filter = ("event",)
    list_select_related = ("batch",)
    search_fields = ("batch__id", "task_name")
    ordering = ("-at", "-seq")

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest) -> bool:
        return lookup == "batch__id__exact" or super().lookup_allowed(lookup, value, request)


@admin.register(Worker)
class WorkerAdmin(ReadOnly, admin.ModelAdmin):
    """The workers that run tasks, and when each was last heard of."""

    list_display = ("__str__", "lanes", "draining", "started_at", "heartbeat_at")


def task_url(pk: int) -> str:
    return reverse("admin:batches_task_change", args=[pk])


def seconds(milliseconds: int | None) -> str:
    """A duration for people; a dash while it is not over."""
    return "–" if milliseconds is None else f"{milliseconds / 1000:.1f} s"
