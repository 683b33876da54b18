"""The admin as staff use it: a real browser on a real server, one test for each thing they come for."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Dialog, Locator, Page, expect, sync_playwright

from tests.programs import needs, path_of
from tests.whole.archives import IDLE, SOLVE, pack, task
from tests.whole.running import HOTKEY, Server

pytestmark = needs("chromium")

WAIT_SECONDS = 60
expect.set_options(timeout=WAIT_SECONDS * 1000)

ARGUMENTS = [
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-default-apps", "--disable-extensions", "--no-first-run"),
]

MISCHIEF = """
print("<script>document.title = 'taken'; alert(1)</script>")
print("<img src=x onerror=alert(2)> <b id=injected>bold</b> &amp;")
print("\\x1b[31mred\\x1b[0m")
"""
FLOOD = "for number in range(4000): print('line', number)\n" + SOLVE
SLEEP = "import os\nos.execvp('sleep', ['sleep', '98765'])\n"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for the module.

    Playwright keeps an event loop running for as long as it lives, so it must be
    gone again before an asynchronous test of another module runs.
    """
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=path_of("chromium"), args=ARGUMENTS, timeout=WAIT_SECONDS * 1000
        )
        yield started
        started.close()


@pytest.fixture(scope="module")
def login(browser: Browser, server: Server) -> Any:
    """The cookies of somebody who has logged in."""
    with browser.new_context(base_url=server.url) as context:
        page = context.new_page()
        log_in(page, server)
        return context.storage_state()


@pytest.fixture
def page(browser: Browser, server: Server, login: Any, tmp_path: Path) -> Iterator[Page]:
    """A page of somebody logged in; fails the test for whatever a developer's console would show."""
    yield from watched(browser, tmp_path, base_url=server.url, storage_state=login)


@pytest.fixture
def strangers_page(browser: Browser, server: Server, tmp_path: Path) -> Iterator[Page]:
    yield from watched(browser, tmp_path, base_url=server.url)


def watched(browser: Browser, tmp_path: Path, **options: Any) -> Iterator[Page]:
    troubles: list[str] = []
    size = {"width": 1280, "height": 900}

    def dismiss(dialog: Dialog) -> None:
        troubles.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    with browser.new_context(viewport=size, **options) as context:  # type: ignore[arg-type]
        page = context.new_page()
        page.set_default_timeout(WAIT_SECONDS * 1000)
        page.on("console", lambda said: troubles.append(f"console: {said.type}: {said.text}"))
        page.on("pageerror", lambda error: troubles.append(f"script: {error}"))
        page.on("requestfailed", lambda request: troubles.append(f"no answer: {request.url}"))
        page.on("response", lambda it: troubles.append(it.url) if it.status >= 400 else None)
        page.on("dialog", dismiss)
        yield page
        page.screenshot(path=tmp_path / "page.png")
    assert troubles == []


@pytest.fixture(scope="module")
def batch(server: Server, repo: Path) -> str:
    """A batch that has ended, in every way that looks different."""
    tasks = {
        "lost": task(repo, SOLVE, base_commit="f" * 40),
        "mischief": task(repo, MISCHIEF, "echo '<i>wrong</i>'; exit 3", install=["echo ready"]),
        "solved": task(repo, FLOOD),
    }
    batch_id = server.accepted(pack(tasks), concurrent_tasks=2)
    server.ended(batch_id)
    return batch_id


def log_in(page: Page, server: Server) -> None:
    page.goto("/admin/")
    page.get_by_label("Username").fill("admin")
    page.get_by_label("Password").fill((server.state / "admin.password").read_text().strip())
    follow(page.get_by_role("button", name="Log in"))


def follow(link: Locator) -> None:
    """Click, and wait until the page that it leads to is complete."""
    with link.page.expect_navigation():
        link.click()


def batch_page(batch_id: str) -> str:
    return f"/admin/batches/batch/{batch_id}/change/"


def row_of(page: Page, batch_id: str) -> Locator:
    """The batch's row in the list of batches."""
    return page.locator("#result_list tbody tr").filter(
        has=page.locator(f'a[href^="{batch_page(batch_id)}"]')
    )


def choose(page: Page, batch_id: str, action: str) -> None:
    """Tick a batch in the list and choose what is done with it."""
    page.goto("/admin/batches/batch/")
    row_of(page, batch_id).get_by_role("checkbox").check()
    page.get_by_label("Action:").select_option(label=action)
    follow(page.get_by_role("button", name="Go"))


def test_staff_log_in_with_the_generated_password_and_find_the_batches(
    strangers_page: Page, server: Server, batch: str
) -> None:
    page = strangers_page

    log_in(page, server)
    follow(page.get_by_role("link", name="Batches", exact=True))

    headings = page.locator("#result_list thead .text").all_inner_texts()
    cells = row_of(page, batch).locator("th, td").all_inner_texts()
    shown = dict(zip([text.strip().lower() for text in headings], cells, strict=True))
    answer = server.get(f"/batch/{batch}")
    assert shown | {"": ""} == {
        "": "",
        "batch": f"{batch[:8]}…{batch[-4:]}",
        "status": "completed",
        "progress": "3 of 3, 1 passed",
        "reward": "0.333",
        "hotkey": f"{HOTKEY[:8]}…{HOTKEY[-4:]}",
        "created (utc)": answer["created_at"][:19].replace("T", " "),
        "duration": f"{answer['duration_ms'] / 1000:.1f} s",
        "error": "-",
    }


def test_batch_shows_what_happened_to_which_task_and_why(
    page: Page, server: Server, batch: str
) -> None:
    page.goto("/admin/batches/batch/")
    follow(row_of(page, batch).get_by_role("link"))

    rows = page.locator(".story tbody tr").all()
    shown = [row.locator("th, td").all_inner_texts() for row in rows]
    tasks = server.get(f"/batch/{batch}/tasks")["tasks"]
    durations = [f"{row['duration_ms'] / 1000:.1f} s" for row in tasks]
    red = "run.sh failed (exit code 3)"
    assert shown == [
        ["lost", "failed", "0.000", "task", tasks[0]["reason"], "1", durations[0]],
        ["mischief", "failed", "0.000", "agent", red, "1", durations[1]],
        ["solved", "completed", "1.000", "", "the test passed", "1", durations[2]],
    ]
    colours = [
        row.locator(".status").evaluate("node => getComputedStyle(node).backgroundColor")
        for row in rows
    ]
    assert colours == ["rgb(251, 227, 225)", "rgb(251, 227, 225)", "rgb(220, 243, 227)"]


def test_task_shows_its_commands_in_order_and_what_strangers_printed_as_text(
    page: Page, batch: str
) -> None:
    page.goto(batch_page(batch))
    follow(page.get_by_role("link", name="mischief"))

    runs = page.locator(".run")
    assert [text.split()[0] for text in runs.locator("h3").all_inner_texts()] == [
        "clone",
        "install",
        "agent",
        "tests",
    ]
    figures = runs.locator(".figures").all_inner_texts()
    assert [figure.split("\n")[0] for figure in figures] == ["exit code 0"] * 3 + ["exit code 3"]
    assert all(re.search(r"\d+\.\d\d s wall", figure) for figure in figures)
    assert runs.locator("pre").all_inner_texts() == [
        "ready\n",
        "<script>document.title = 'taken'; alert(1)</script>\n"
        "<img src=x onerror=alert(2)> <b id=injected>bold</b> &amp;\n"
        "\\x1b[31mred\\x1b[0m\n",
        "<i>wrong</i>\n",
    ]
    assert page.locator("pre *, #injected").count() == 0
    expect(page).to_have_title("mischief | View task | term-executor")


def test_long_output_is_cut_and_its_whole_is_one_click_away(page: Page, batch: str) -> None:
    page.goto(batch_page(batch))
    follow(page.get_by_role("link", name="solved"))

    output = page.locator(".run pre")
    text = output.inner_text()
    assert text.startswith("line 0\n")
    assert text.endswith("\nline 3999\n")
    printed = sum(len(f"line {number}\n") for number in range(4000))
    assert f"\n[... {printed - 2 * 8192} bytes cut ...]\n" in text
    assert output.evaluate("node => node.clientHeight") <= 340
    follow(page.get_by_role("link", name="bytes cut"))
    whole = page.locator("pre").inner_text()
    assert whole == "".join(f"line {number}\n" for number in range(4000))


def test_events_of_a_batch_are_told_in_their_order(page: Page, server: Server, batch: str) -> None:
    page.goto(batch_page(batch))
    follow(page.get_by_role("link", name="events"))

    rows = page.locator("#result_list tbody tr")
    cells = rows.locator(".field-seq, .field-event, .field-task_name").all_inner_texts()
    shown = [tuple(cells[at : at + 3]) for at in range(0, len(cells), 3)]
    told = [(str(it["seq"]), it["event"], it.get("task_id", "-")) for it in server.events(batch)]
    assert shown == told
    expect(rows.last.locator(".field-batch_link a")).to_have_attribute("href", batch_page(batch))


def test_page_of_a_running_batch_follows_it_to_its_end(
    page: Page, server: Server, repo: Path
) -> None:
    batch_id = server.accepted(pack({"slow": task(repo, f"import time\ntime.sleep(2)\n{SOLVE}")}))

    page.goto(batch_page(batch_id))

    expect(page.locator(".summary .status")).to_have_text("completed")
    expect(page.locator(".summary")).to_contain_text("1 of 1")


def test_cancelling_a_running_batch_stops_what_it_runs(
    page: Page, server: Server, repo: Path
) -> None:
    tasks = {"runs": task(repo, SLEEP), "waits": task(repo, IDLE)}
    batch_id = server.accepted(pack(tasks), concurrent_tasks=1)
    server.wait_for(lambda: server.pids("sleep 98765"), WAIT_SECONDS, "the agent to sleep")

    choose(page, batch_id, "Cancel selected batches")

    expect(page.locator(".messagelist")).to_have_text("Cancelled: 1.")
    expect(row_of(page, batch_id).locator(".status")).to_have_text("failed")
    server.wait_for(lambda: not server.pids("sleep 98765"), WAIT_SECONDS, "the agent's end")
    page.goto(batch_page(batch_id))
    rows = page.locator(".story tbody tr")
    assert [cell.inner_text() for cell in rows.locator(".why").all()] == ["cancelled"] * 2
    assert server.get(f"/batch/{batch_id}")["error"] == "cancelled"


def test_deleting_a_batch_leaves_nothing_of_it(page: Page, server: Server, repo: Path) -> None:
    batch_id = server.accepted(pack({"a": task(repo, SOLVE)}))
    server.ended(batch_id)
    kept = [server.state / "archives" / f"{batch_id}.archive", server.workspaces / batch_id]
    assert kept[0].exists()

    choose(page, batch_id, "Delete selected batches with their files")

    expect(page.locator(".messagelist")).to_have_text("Deleted: 1.")
    expect(row_of(page, batch_id)).to_have_count(0)
    assert httpx.get(f"{server.url}/batch/{batch_id}").status_code == 404
    assert [path.exists() for path in kept] == [False, False]
