"""How rows are written for people: template filters, which the admin's columns use too."""

from datetime import UTC, datetime
from typing import Any

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString

from batches.models import Run
from batches.sandbox.promise import Reason

register = template.Library()

NOTHING = "–"

# Strangers choose what is printed. A terminal's control characters are spelled out, and
# those that turn the direction of text, which could make a line read as another.
CONTROLS = [*range(0x20), *range(0x7F, 0xA0)]
DIRECTIONS = [0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
VISIBLE = {
    **{code: f"\\x{code:02x}" for code in CONTROLS if chr(code) not in "\t\n\r"},
    **{code: f"\\u{code:04x}" for code in DIRECTIONS},
}


@register.filter
def visible(text: str) -> str:
    """Strangers' text with nothing hidden in it. Not yet escaped."""
    return text.translate(VISIBLE)


@register.filter
def pill(status: str) -> SafeString:
    """A status in its colour."""
    return format_html('<span class="status status-{0}">{0}</span>', status)


@register.filter
def short(name: object) -> SafeString:
    """The two ends of a long id or key; all of it when pointed at."""
    text = str(name)
    cut = text if len(text) <= 16 else f"{text[:8]}…{text[-4:]}"
    return format_html('<span title="{}">{}</span>', text, cut)


@register.filter
def reward(value: float) -> str:
    """A reward; all of them line up."""
    return f"{value:.3f}"


@register.filter
def seconds(milliseconds: int | None) -> str:
    """A duration; a dash while it is not over."""
    if milliseconds is None:
        return NOTHING
    if milliseconds < 60_000:
        return f"{milliseconds / 1000:.1f} s"
    minutes, rest = divmod(round(milliseconds / 1000), 60)
    return f"{minutes} min {rest:02} s"


@register.filter
def moment(time: datetime | None) -> str:
    """A time in UTC, to the second."""
    return NOTHING if time is None else f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


@register.filter
def outcome(run: Run) -> str:
    """How a command ended."""
    if run.reason == Reason.EXITED:
        return f"exit code {run.exit_code}"
    if run.reason == Reason.KILLED:
        return f"killed by signal {-(run.exit_code or 0)}"
    return run.reason


@register.filter
def told(data: dict[str, Any]) -> str:
    """What an event says, without what stands beside it and without what is empty."""
    said = {name: f"{it:g}" if isinstance(it, float) else it for name, it in data.items()}
    words = [f"{name} {it}" for name, it in said.items() if name != "task_id" and it is not None]
    return visible(", ".join(words))
