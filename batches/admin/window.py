"""What all lists and pages of the admin have in common."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from batches.models import Batch, Event, Task
from batches.templatetags import shown

LARGE_COLUMNS = ("spec", "test_output")
"""What a task carries and no list of tasks needs."""


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
