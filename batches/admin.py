"""The admin: a window on the rows. Read-only, but for cancelling and deleting batches.

Nothing in it reads an archive, a workspace or a patch. What agents print may
hold their code, and is shown here, to staff, and nowhere else.
"""

from typing import Any

from django.contrib import admin, messages
from django.contrib.auth.models import Group
from django.db.models import Count, F, Prefetch, Q, QuerySet
from django.db.models.fields.json import KT
from django.db.models.functions import Length
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django_q.models import Failure, OrmQ, Schedule, Success

from batches import submissions, transitions
from batches.excerpts import excerpt, with_excerpts
from batches.models import Batch, Event, Run, Task, Worker
from batches.statuses import ACTIVE_BATCH, IN_HAND, Phase
from batches.templatetags import shown

admin.site.site_header = "term-executor"
admin.site.site_title = "term-executor"
admin.site.index_title = "Batches, and what happened to them"
admin.site.enable_nav_sidebar = False  # five lists need no third of the width
admin.site.site_url = None  # there is no page at the root to link to

# The queue's rows are messages, not work: what waits and what failed is told by tasks and
# events, and a form that deletes or runs lanes again would only mislead.
for queued in (Failure, OrmQ, Schedule, Success):
    admin.site.unregister(queued)
# A handful of staff accounts get their permissions one by one.
admin.site.unregister(Group)

LARGE_COLUMNS = ("spec", "patch", "test_output")
"""What a task carries and no list of tasks needs."""


AGENTS = Prefetch(
    "runs",
    Run.objects.filter(phase=Phase.AGENT, attempt=F("task__attempt"))
    .defer("output_head", "output_tail")
    .order_by("pk"),
    to_attr="agents",
)
"""How the agent ended in a task's latest attempt. Its verdict does not tell a time-out."""


class Window(admin.ModelAdmin):
    """Rows to look at. Nobody adds, changes or deletes by form: transitions alone do."""

    list_per_page = 50
    show_full_result_count = False

    class Media:
        css = {"all": ("batches/admin.css",)}

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @admin.display(description="batch")
    def batch_link(self, row: Task | Event) -> SafeString:
        url = reverse("admin:batches_batch_change", args=[row.batch_id])
        return format_html('<a href="{}">{}</a>', url, shown.short(row.batch_id))

    @admin.display(description="status", ordering="status")
    def state(self, row: Batch | Task) -> SafeString:
        return shown.pill(row.status)

    @admin.display(description="duration")
    def duration(self, row: Batch | Task) -> str:
        return shown.seconds(row.duration_ms)


@admin.register(Batch)
class BatchAdmin(Window):
    """All batches: how far, how good, who sent them, when, and how long they took."""

    list_display = ("key", "state", "progress", "mean", "sender", "created", "duration", "error")
    list_filter = ("status", "created_at", "hotkey")
    search_fields = ("id", "hotkey", "error", "tasks__name")
    search_help_text = "By batch id, hotkey, error or task id."
    date_hierarchy = "created_at"
    actions = ("cancel", "delete_with_files")
    fields = (
        *("hotkey", "entry", "concurrent_tasks", "created", "started", "finished"),
        *("archive_bytes", "archive_sha256"),
    )
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> QuerySet[Batch]:
        return Batch.objects.with_progress()

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Batch], search_term: str
    ) -> tuple[QuerySet[Batch], bool]:
        """Looks among bare rows: joined to tasks once more, each match would be counted again."""
        found, _ = super().get_search_results(request, Batch.objects.all(), search_term)
        return queryset.filter(pk__in=found.values("pk")) if search_term else queryset, False

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        """Adds the tasks: what happened to which, and why."""
        batch = context["original"]
        tasks = batch.tasks.defer(*LARGE_COLUMNS).order_by("position").prefetch_related(AGENTS)
        context |= {
            "tasks": tasks if request.user.has_perm("batches.view_task") else tasks.none(),
            "in_progress": batch.status in ACTIVE_BATCH,
            "may_cancel": batch.status in ACTIVE_BATCH and self.has_operate_permission(request),
        }
        return super().render_change_form(request, context, *args, **kwargs)

    @admin.display(description="batch", ordering="id")
    def key(self, batch: Batch) -> SafeString:
        return shown.short(batch.pk)

    @admin.display(description="hotkey", ordering="hotkey")
    def sender(self, batch: Batch) -> SafeString:
        return shown.short(batch.hotkey)

    @admin.display(description="progress", ordering="ended")
    def progress(self, batch: Batch) -> str:
        return f"{batch.ended} of {batch.total_tasks}, {batch.passed} passed"

    @admin.display(description="reward", ordering="reward_sum")
    def mean(self, batch: Batch) -> str:
        return shown.reward(batch.aggregate_reward)

    @admin.display(description="agent")
    def entry(self, batch: Batch) -> str:
        agent = batch.agent_spec
        return f"{agent.entry} ({agent.language})"

    @admin.display(description="created (UTC)", ordering="created_at")
    def created(self, batch: Batch) -> str:
        return shown.moment(batch.created_at)

    @admin.display(description="started (UTC)")
    def started(self, batch: Batch) -> str:
        return shown.moment(batch.started_at)

    @admin.display(description="finished (UTC)")
    def finished(self, batch: Batch) -> str:
        return shown.moment(batch.finished_at)

    @admin.action(description="Cancel selected batches", permissions=["operate"])
    def cancel(self, request: HttpRequest, chosen: QuerySet[Batch]) -> None:
        """End batches; what they are running is stopped within seconds."""
        batches = list(chosen)
        stopped = [batch for batch in batches if transitions.stop_batch(batch, "cancelled")]
        for batch in stopped:
            self.log_change(request, batch, "Cancelled.")
        if stopped:
            messages.success(request, f"Cancelled: {len(stopped)}.")
        if len(stopped) < len(batches):
            kept = len(batches) - len(stopped)
            messages.warning(request, f"Not cancelled, as they are not waiting or running: {kept}.")

    @admin.action(description="Delete selected batches with their files", permissions=["operate"])
    def delete_with_files(self, request: HttpRequest, chosen: QuerySet[Batch]) -> None:
        """Remove batches that have ended: rows, archive and workspaces."""
        ended = chosen.exclude(status__in=ACTIVE_BATCH)
        kept = len(chosen) - len(ended)
        self.log_deletions(request, ended)
        for batch in ended:
            submissions.forget(batch)
        if ended:
            messages.success(request, f"Deleted: {len(ended)}.")
        if kept:
            messages.warning(request, f"Kept, as they are in progress: {kept}. Cancel them first.")

    def has_operate_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("batches.delete_batch")


@admin.register(Task)
class TaskAdmin(Window):
    """All tasks; one by one with everything that was run for it."""

    list_display = (
        *("name", "batch_link", "state", "points", "blame", "why", "attempt", "duration"),
    )
    list_filter = ("status", "fault", "passed")
    search_fields = ("name", "batch__id", "error", "reason")
    search_help_text = "By task id, batch id, error or reason."
    ordering = ("-pk",)  # by batch, as the model has it, would be by random ids
    fields = (
        *("batch_link", "repo", "base_commit", "patch_bytes"),
        *("attempt", "strikes", "worker", "started", "finished"),
    )
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> QuerySet[Task]:
        rows: QuerySet[Task] = super().get_queryset(request)
        return rows.defer(*LARGE_COLUMNS).annotate(
            patch_length=Length("patch"), repo_named=KT("spec__repo")
        )

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        """Adds the commands in their order, with what they printed."""
        runs: list[Run] = []
        if request.user.has_perm("batches.view_run"):
            runs = list(with_excerpts(context["original"].runs.order_by("attempt", "pk")))
        context["runs"] = [(run, *excerpt(run)) for run in runs]
        return super().render_change_form(request, context, *args, **kwargs)

    @admin.display(description="reward", ordering="reward")
    def points(self, task: Task) -> str:
        return shown.reward(task.reward)

    @admin.display(description="fault", ordering="fault")
    def blame(self, task: Task) -> str:
        return task.fault

    @admin.display(description="why")
    def why(self, task: Task) -> str:
        return shown.visible(task.reason)

    @admin.display(description="repository")
    def repo(self, task: Any) -> str:
        return shown.visible(task.repo_named or shown.NOTHING)

    @admin.display(description="patch")
    def patch_bytes(self, task: Any) -> str:
        return shown.NOTHING if task.patch_length is None else f"{task.patch_length} bytes"

    @admin.display(description="started (UTC)")
    def started(self, task: Task) -> str:
        return shown.moment(task.started_at)

    @admin.display(description="finished (UTC)")
    def finished(self, task: Task) -> str:
        return shown.moment(task.finished_at)


@admin.register(Run)
class RunAdmin(Window):
    """Single commands with all that was kept of their output. Reached from their task's page."""

    list_display = ("line", "phase", "task", "attempt", "how")
    list_filter = ("phase", "reason")
    list_select_related = ("task",)
    ordering = ("-pk",)
    fields = ("task_link", "phase", "attempt", "name", "line", "how")
    readonly_fields = fields

    def has_module_permission(self, request: HttpRequest) -> bool:
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Run]:
        rows: QuerySet[Run] = super().get_queryset(request)
        return rows.defer("output_head", "output_tail", *(f"task__{it}" for it in LARGE_COLUMNS))

    @admin.display(description="task")
    def task_link(self, run: Run) -> SafeString:
        url = reverse("admin:batches_task_change", args=[run.task_id])
        return format_html('<a href="{}">{}</a>', url, run.task)

    @admin.display(description="command")
    def line(self, run: Run) -> str:
        return shown.visible(run.command)

    @admin.display(description="outcome", ordering="reason")
    def how(self, run: Run) -> str:
        return shown.outcome(run)


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
