"""The admin: what staff see and may do, what they may not, and what it costs the database."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.contrib.contenttypes.models import ContentType
from django.core.files.base import ContentFile
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from batches import events, transitions, workspaces
from batches.excerpts import EDGE_CHARACTERS
from batches.models import Batch, Event, Run, Task, TaskPatch, Worker
from batches.statuses import BatchStatus, Fault, TaskStatus
from tests.factories import claimed, make_batch

pytestmark = pytest.mark.django_db

MARKER = "MARKER-of-an-agents-code"
LISTS = ("batch", "task", "event", "worker", "run")
READ_ONLY = pytest.mark.parametrize("model", LISTS)


@pytest.fixture
def staff(client: Client) -> Client:
    """Somebody who may look at everything and do nothing."""
    user = User.objects.create_user("looker", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    client.force_login(user)
    return client


def page(model: str, row: Any) -> str:
    return f"/admin/batches/{model}/{row.pk}/change/"


def make_run(task: Task, **changes: Any) -> Run:
    return Run.objects.create(
        **{
            "task": task,
            "attempt": 1,
            "phase": "tests",
            "name": "run.sh",
            "command": "bash run.sh",
            "exit_code": 0,
            "reason": "exited",
            "wall_seconds": 1.5,
            "cpu_seconds": 0.5,
            "peak_memory_bytes": 1024,
            "output_bytes": 0,
            "truncated": False,
            **changes,
        }
    )


def make_ended(*names: str, **changes: Any) -> Batch:
    """A completed batch; each of its tasks passed and has the run of its agent and of a test."""
    batch = make_batch(*names, **changes)
    for task in batch.tasks.all():
        claimed(task)
        make_run(task, phase="agent", name="agent", command="python3 agent.py", exit_code=1)
        make_run(task, output_head="fine\n", output_bytes=5)
        transitions.advance(task, TaskStatus.RUNNING_AGENT)
        transitions.advance(task, TaskStatus.RUNNING_TESTS)
        transitions.judge(task, passed=True, reward=1.0, reason="the test passed", test_output="")
    batch.refresh_from_db()
    return batch


def act(client: Client, action: str, *batches: Batch) -> list[str]:
    """Choose an action for ``batches`` in their list; returns the messages that it answers with."""
    form = {"action": action, "_selected_action": [str(batch.pk) for batch in batches]}
    answer = client.post("/admin/batches/batch/", form, follow=True)
    return [str(message) for message in answer.context["messages"]]


def listed(client: Client, model: str, query: str) -> set[str]:
    """The rows of a list, as their models write themselves."""
    answer = client.get(f"/admin/batches/{model}/?{query}")
    assert answer.status_code == 200, (answer.status_code, answer.headers)
    return {str(row) for row in answer.context["cl"].result_list}


@contextmanager
def queries(count: int) -> Iterator[None]:
    """Fails unless exactly ``count`` queries are made, by a process that remembers nothing."""
    ContentType.objects.clear_cache()
    with CaptureQueriesContext(connection) as captured:
        yield
    assert len(captured) == count, "\n".join(query["sql"] for query in captured)


@pytest.mark.parametrize("rows", [1, 40])
@pytest.mark.parametrize(
    ("model", "count"), [("batch", 7), ("task", 4), ("event", 5), ("worker", 4), ("run", 5)]
)
def test_list_takes_as_many_queries_however_long_it_is(
    admin_client: Client, model: str, count: int, rows: int
) -> None:
    for number in range(rows):
        batch = make_batch(status=BatchStatus.COMPLETED)
        make_run(batch.tasks.get())
        events.record(batch.pk, "task_started", "a", task_id="a")
        Worker.objects.create(host="host", boot="boot", pid=number, lanes=4)

    with queries(count):
        answer = admin_client.get(f"/admin/batches/{model}/")

    assert len(answer.context["cl"].result_list) == rows


@pytest.mark.parametrize("tasks", [1, 40])
def test_batch_takes_as_many_queries_however_many_tasks_it_has(
    admin_client: Client, tasks: int
) -> None:
    batch = make_ended(*(f"task-{number}" for number in range(tasks)))

    with queries(5):
        answer = admin_client.get(page("batch", batch))

    assert answer.content.count(b'<td class="why">') == tasks


@pytest.mark.parametrize("runs", [1, 40])
def test_task_takes_as_many_queries_however_much_was_run_for_it(
    admin_client: Client, runs: int
) -> None:
    task = make_batch("a").tasks.get()
    for _ in range(runs):
        make_run(task)

    with queries(5):
        answer = admin_client.get(page("task", task))

    assert answer.content.count(b"bash run.sh") == runs


def test_index_names_what_there_is_to_see(admin_client: Client) -> None:
    answer = admin_client.get("/admin/")

    shown = {
        app["name"]: [model["name"] for model in app["models"]]
        for app in answer.context["app_list"]
    }
    assert shown == {
        "Authentication and Authorization": ["Users"],
        "Evaluation": ["Batches", "Events", "Tasks", "Workers"],
    }


def test_batch_tells_what_happened_to_which_task_and_why(staff: Client) -> None:
    batch = make_batch("solved", "lost", "open")
    solved, lost, _ = batch.tasks.order_by("position")
    transitions.advance(claimed(solved), TaskStatus.RUNNING_AGENT)
    make_run(solved, phase="agent", reason="timeout", exit_code=None)
    transitions.advance(solved, TaskStatus.RUNNING_TESTS)
    transitions.judge(solved, passed=True, reward=1.0, reason="the test passed", test_output="")
    transitions.fail(claimed(lost), Fault.TASK, "there is no such commit")
    Task.objects.filter(pk=solved.pk).update(finished_at=solved.started_at + timedelta(seconds=61))
    Task.objects.filter(pk=lost.pk).update(finished_at=lost.started_at)

    html = staff.get(page("batch", batch)).content.decode()

    rows = re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL)[1:]
    cells = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.DOTALL) for row in rows]
    text = [
        [" ".join(unescape(re.sub("<[^>]+>", " ", cell)).split()) for cell in row] for row in cells
    ]
    assert text == [
        [
            "solved",
            "completed",
            "1.000",
            "",
            "the test passed",
            "1",
            "1 min 01 s",
        ],
        ["lost", "failed", "0.000", "task", "there is no such commit", "1", "0.0 s"],
        ["open", "queued", "0.000", "", "", "0", "–"],
    ]


def test_running_batch_is_looked_at_again_by_itself(staff: Client) -> None:
    ended, running = make_ended("a"), make_batch("a")

    refreshed = {
        batch.pk: b'http-equiv="refresh"' in staff.get(page("batch", batch)).content
        for batch in (ended, running)
    }

    assert refreshed == {ended.pk: False, running.pk: True}


def test_what_strangers_printed_is_text_and_hides_nothing(staff: Client) -> None:
    task = make_batch("a").tasks.get()
    printed = "<script>alert(1)</script> \x1b[31m\u202egnihton\u009b"
    make_run(task, output_head=printed, output_bytes=len(printed), command="echo '\x1b[2J<b>'")

    html = staff.get(page("task", task)).content.decode()

    assert "&lt;script&gt;alert(1)&lt;/script&gt; \\x1b[31m\\u202egnihton\\x9b</pre>" in html
    assert "<code>echo &#x27;\\x1b[2J&lt;b&gt;&#x27;</code>" in html


def test_long_output_is_cut_on_the_task_and_whole_on_its_own_page(staff: Client) -> None:
    text = "é" * EDGE_CHARACTERS + "left out" + "ü" * EDGE_CHARACTERS
    run = make_run(
        make_batch("a").tasks.get(), output_head=text, output_bytes=4 * EDGE_CHARACTERS + 8
    )

    short = staff.get(page("task", run.task)).content.decode()
    whole = staff.get(page("run", run)).content.decode()

    link = f'<a class="cut" href="{page("run", run)}">[... 8 bytes cut ...]</a>'
    edges = "é" * EDGE_CHARACTERS, "ü" * EDGE_CHARACTERS
    assert f"\n{edges[0]}\n{link}\n{edges[1]}</pre>" in short
    assert f"\n{text}</pre>" in whole


@pytest.mark.parametrize("tail", [0, 1, EDGE_CHARACTERS])
@pytest.mark.parametrize("head", [1, EDGE_CHARACTERS])
def test_output_that_fits_on_the_page_is_whole(staff: Client, head: int, tail: int) -> None:
    text = "".join(chr(0x4E00 + number) for number in range(head + tail))
    run = make_run(
        make_batch("a").tasks.get(),
        output_head=text[:head],
        output_tail=text[head:],
        output_bytes=len(text.encode()),
    )

    html = staff.get(page("task", run.task)).content.decode()

    assert f"\n{text}</pre>" in html


def test_output_that_was_cut_when_it_was_printed_says_so(staff: Client) -> None:
    run = make_run(
        make_batch("a").tasks.get(),
        output_head="first",
        output_tail="last",
        output_bytes=1009,
        truncated=True,
    )

    pages = [staff.get(page("task", run.task)), staff.get(page("run", run))]

    texts = [re.sub("<[^>]+>", "", answer.content.decode()) for answer in pages]
    assert ["first\n[... 1000 bytes cut ...]\nlast" in text for text in texts] == [True, True]


def test_what_leads_to_the_events_of_a_batch_tells_them_in_their_order(staff: Client) -> None:
    batch, _ = make_ended("a", "b"), make_ended("c")
    html = staff.get(page("batch", batch)).content.decode()

    link = re.search(r'href="([^"]+)">\d+ events</a>', html)
    assert link is not None
    rows = staff.get(link[1]).context["cl"].result_list

    assert [row.seq for row in rows] == list(range(1, batch.last_seq + 1))
    assert {row.batch_id for row in rows} == {batch.pk}


@READ_ONLY
def test_nothing_is_added_changed_or_deleted_by_form(admin_client: Client, model: str) -> None:
    batch = make_ended("a")
    rows = {
        "batch": batch,
        "task": batch.tasks.get(),
        "run": Run.objects.latest("pk"),
        "event": Event.objects.latest("pk"),
        "worker": Worker.objects.create(host="host", boot="boot", pid=1, lanes=4),
    }
    row = rows[model]
    before = type(row).objects.values().get(pk=row.pk)
    folder = f"/admin/batches/{model}/"
    form = {"status": "failed", "reward": "1", "name": "b", "event": "b", "host": "b"}

    answers = [
        admin_client.get(f"{folder}add/"),
        admin_client.post(f"{folder}add/", form),
        admin_client.post(page(model, row), form),
        admin_client.get(f"{folder}{row.pk}/delete/"),
        admin_client.post(f"{folder}{row.pk}/delete/", {"post": "yes"}),
    ]
    admin_client.post(
        folder, {"action": "delete_selected", "_selected_action": [row.pk], "post": "yes"}
    )

    assert [answer.status_code for answer in answers] == [403] * 5
    assert type(row).objects.values().get(pk=row.pk) == before
    shown = admin_client.get(page(model, row)).content
    assert re.findall(rb'<(?:input|select|textarea)(?! type="hidden")[^>]*>', shown) == []


@READ_ONLY
def test_strangers_and_users_without_staff_see_the_login_only(client: Client, model: str) -> None:
    user = User.objects.create_user("stranger")
    answers = [client.get(f"/admin/batches/{model}/")]
    client.force_login(user)
    answers.append(client.get(f"/admin/batches/{model}/"))

    assert [answer.headers.get("Location") for answer in answers] == [
        f"/admin/login/?next=/admin/batches/{model}/"
    ] * 2


def test_tasks_and_commands_are_shown_to_those_who_may_see_them(client: Client) -> None:
    user = User.objects.create_user("half", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename="view_batch"))
    client.force_login(user)
    batch = make_ended("secret-task")

    answers = [client.get(page("batch", batch)), client.get(page("task", batch.tasks.get()))]

    assert [answer.status_code for answer in answers] == [200, 403]
    assert b"secret-task" not in answers[0].content


def test_cancel_ends_batches_in_progress_and_leaves_the_others(admin_client: Client) -> None:
    ended = make_batch("a")
    transitions.stop_batch(ended, "expired")
    running = make_batch("b")
    claimed(running.tasks.get())

    said = act(admin_client, "cancel", running, ended)

    assert said == ["Cancelled: 1.", "Not cancelled, as they are not waiting or running: 1."]
    assert dict(Batch.objects.values_list("pk", "error")) == {
        running.pk: "cancelled",
        ended.pk: "expired",
    }
    task = running.tasks.get()
    assert (task.status, task.passed, task.fault) == (TaskStatus.FAILED, None, Fault.CANCELLED)
    history = admin_client.get(f"/admin/batches/batch/{running.pk}/history/").content
    assert b"Cancelled." in history


def test_button_on_a_batch_cancels_it(admin_client: Client) -> None:
    batch = make_batch("a")
    html = admin_client.get(page("batch", batch)).content.decode()
    form = re.search(r'<form method="post" action="([^"]+)">(.*?)Cancel</button>', html, re.DOTALL)
    assert form is not None

    fields = dict(re.findall(r'name="([^"]+)" value="([^"]*)"', form[2]))
    admin_client.post(form[1], fields)

    batch.refresh_from_db()
    assert (batch.status, batch.error) == (BatchStatus.FAILED, "cancelled")
    assert b"Cancel</button>" not in admin_client.get(page("batch", batch)).content


def test_deleting_removes_rows_archive_and_workspace(admin_client: Client) -> None:
    batch = make_ended("a")
    batch.archive.save("it.archive", ContentFile(b"archive"))
    stored = Path(batch.archive.path)
    workspace = workspaces.for_batch(batch)
    (workspace / "archive" / "tasks").mkdir(parents=True)
    kept = make_ended("b")

    said = act(admin_client, "delete_with_files", batch)

    assert said == ["Deleted: 1."]
    assert (stored.exists(), workspace.exists()) == (False, False)
    for rows in (Task.objects, Event.objects):
        assert set(rows.values_list("batch", flat=True)) == {kept.pk}
    assert set(Run.objects.values_list("task__batch", flat=True)) == {kept.pk}
    assert list(Batch.objects.all()) == [kept]


def test_deleting_refuses_batches_in_progress(admin_client: Client) -> None:
    ended, running = make_ended("a"), make_batch("b")

    said = act(admin_client, "delete_with_files", ended, running)

    assert said == ["Deleted: 1.", "Kept, as they are in progress: 1. Cancel them first."]
    assert list(Batch.objects.values_list("pk", "status")) == [(running.pk, BatchStatus.PENDING)]


@pytest.mark.parametrize("action", ["cancel", "delete_with_files"])
def test_staff_who_may_only_look_can_neither_cancel_nor_delete(staff: Client, action: str) -> None:
    ended, running = make_ended("a"), make_batch("b")

    act(staff, action, ended, running)

    assert set(Batch.objects.values_list("pk", "status")) == {
        (ended.pk, BatchStatus.COMPLETED),
        (running.pk, BatchStatus.PENDING),
    }
    assert (
        b"<button"
        not in re.findall(
            rb'<ul class="object-tools">.*?</ul>',
            staff.get(page("batch", running)).content,
            re.DOTALL,
        )[0]
    )


def test_staff_who_may_delete_batches_can_do_both(staff: Client) -> None:
    user = User.objects.get()
    user.user_permissions.add(Permission.objects.get(codename="delete_batch"))
    batch = make_batch("a")

    said = [*act(staff, "cancel", batch), *act(staff, "delete_with_files", batch)]

    assert (said, Batch.objects.count()) == (["Cancelled: 1.", "Deleted: 1."], 0)


def test_batches_are_found_by_what_is_known_of_them(staff: Client) -> None:
    first, second = (
        make_ended("alpha", "beta", hotkey="5First"),
        make_batch("gamma", hotkey="5Second"),
    )
    last_year = timezone.now().replace(year=2001, month=5, day=4)
    Batch.objects.filter(pk=first.pk).update(created_at=last_year)

    found = {
        query: listed(staff, "batch", query)
        for query in (
            f"q={str(first.pk)[:13]}",
            "q=5Second",
            "q=a",
            "q=alpha",
            "q=nothing",
            "status__exact=completed",
            "hotkey=5Second",
            "created_at__year=2001&created_at__month=5&created_at__day=4",
            "created_at__year=2002",
        )
    }

    one, two = {str(first.pk)}, {str(second.pk)}
    assert list(found.values()) == [one, two, one | two, one, set(), one, two, one, set()]


def test_search_by_a_task_does_not_change_what_is_counted(staff: Client) -> None:
    batch = make_ended("task-1", "task-2", "other")

    [row] = staff.get("/admin/batches/batch/?q=task-").context["cl"].result_list

    assert (row.pk, row.ended, row.passed, row.aggregate_reward) == (batch.pk, 3, 3, 1.0)


def test_tasks_events_and_commands_are_found_by_what_is_known_of_them(staff: Client) -> None:
    ended, open_batch = make_ended("alpha"), make_batch("beta")
    run = Run.objects.get(phase="agent")
    Run.objects.filter(pk=run.pk).update(reason="timeout")

    assert listed(staff, "task", "q=alph") == {"alpha"}
    assert listed(staff, "task", f"q={open_batch.pk}") == {"beta"}
    assert listed(staff, "task", "status__exact=completed") == {"alpha"}
    assert listed(staff, "task", "fault__exact=") == {"alpha", "beta"}
    assert listed(staff, "task", "passed__isnull=True") == {"beta"}
    assert listed(staff, "event", "event=batch_complete") == {
        f"{ended.last_seq - 1} batch_complete"
    }
    assert listed(staff, "event", "q=beta") == set()
    assert listed(staff, "run", "reason=timeout") == {"agent: agent"}


def test_no_page_shows_or_reads_an_agents_code(admin_client: Client) -> None:
    batch = make_ended("a")
    task = batch.tasks.get()
    TaskPatch.objects.create(task=Task.objects.first(), attempt=1, diff=MARKER.encode())
    batch.archive.save("it.archive", ContentFile(MARKER.encode()))
    tree = workspaces.for_batch(batch) / "archive" / "agent_code"
    tree.mkdir(parents=True)
    (tree / "agent.py").write_text(MARKER)
    run = make_run(task, phase="agent", output_head="printed", output_bytes=7)
    worker = Worker.objects.create(host="host", boot="boot", pid=1, lanes=4)
    rows = [("batch", batch), ("task", task), ("run", run), ("worker", worker)]
    rows += [("event", event) for event in batch.events.all()]
    addresses = ["/admin/", "/admin/batches/"]
    addresses += [f"/admin/batches/{model}/" for model in LISTS]
    addresses += [page(model, row) for model, row in rows]
    addresses += [f"/admin/batches/{model}/{row.pk}/history/" for model, row in rows]

    # The same pages once more when there is no tree and no archive left to read.
    with_code = {address: admin_client.get(address) for address in addresses}
    workspaces.remove(batch)
    Path(batch.archive.path).unlink()
    without = {address: admin_client.get(address) for address in addresses}

    assert {answer.status_code for answer in (with_code | without).values()} == {200}
    assert [
        address for address, answer in with_code.items() if MARKER.encode() in answer.content
    ] == []
    assert {a: bare(r) for a, r in with_code.items()} == {a: bare(r) for a, r in without.items()}


def bare(answer: Any) -> str:
    """A page without what differs each time: the form's token."""
    return re.sub(r'name="csrfmiddlewaretoken" value="\w+"', "", answer.content.decode())
