"""Tasks in the admin, and the commands that were run for them."""

from typing import Any

from django.contrib import admin
from django.db.models import OuterRef, QuerySet, Subquery
from django.db.models.fields.json import KT
from django.db.models.functions import Length
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from batches.admin.window import LARGE_COLUMNS, Window
from batches.excerpts import excerpt, with_excerpts
from batches.models import Run, Task, TaskPatch
from batches.templatetags import shown


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
        latest = TaskPatch.objects.filter(task=OuterRef("pk"), attempt=OuterRef("attempt"))
        return rows.defer(*LARGE_COLUMNS).annotate(
            patch_length=Subquery(latest.values(bytes=Length("diff"))),
            repo_named=KT("spec__repo"),
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
