"""Batches in the admin, with the two things that staff may do to them."""

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.safestring import SafeString

from batches import submissions, transitions
from batches.admin.window import LARGE_COLUMNS, Window
from batches.models import Batch
from batches.statuses import ACTIVE_BATCH
from batches.templatetags import shown


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
        tasks = batch.tasks.defer(*LARGE_COLUMNS).order_by("position")
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
