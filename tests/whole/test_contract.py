"""The public contract, endpoint by endpoint, on a real server over a real socket."""

import json
import re
import subprocess
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.whole.archives import IDLE, SOLVE, pack, task
from tests.whole.running import HOTKEY, Server

UTC_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
NOBODY = str(uuid.UUID(int=0))
NOT_FOUND = {"error": "not_found", "message": "there is no such batch or task"}


@pytest.fixture(scope="module")
def batch(server: Server, repo: Path) -> dict[str, Any]:
    """A batch that has ended: one task solved, one not, one that cannot be judged."""
    tasks = {
        "solved": task(repo, SOLVE, "echo fine; grep -qx 2 number.txt"),
        "not solved/ünï": task(repo, IDLE, "echo wrong; grep -qx 2 number.txt"),
        "lost": task(repo, SOLVE, base_commit="f" * 40),
    }
    tasks = {name.replace("/", " "): parts for name, parts in tasks.items()}
    ended: dict[str, Any] = server.ended(server.accepted(pack(tasks), concurrent_tasks=2))
    return ended


def test_health(server: Server) -> None:
    answer = httpx.get(f"{server.url}/health")

    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_submission_is_answered_with_where_to_look(server: Server, repo: Path) -> None:
    answer = server.submit(pack({"a": task(repo, SOLVE)}), concurrent_tasks=99)

    body = answer.json()
    server.ended(body["batch_id"])
    assert answer.status_code == 202
    assert body == {
        "batch_id": str(uuid.UUID(body["batch_id"])),
        "total_tasks": 1,
        "concurrent_tasks": 4,
        "ws_url": f"/ws?batch_id={body['batch_id']}",
    }


def test_batch(server: Server, batch: dict[str, Any]) -> None:
    body = server.get(f"/batch/{batch['batch_id']}")

    times = [body.pop(name) for name in ("created_at", "started_at", "finished_at")]
    assert all(UTC_TIME.fullmatch(moment) for moment in times)
    assert times == sorted(times)
    assert isinstance(body.pop("duration_ms"), int)
    tasks = body.pop("tasks")
    assert body == {
        "batch_id": batch["batch_id"],
        "status": "completed",
        "total_tasks": 3,
        "completed_tasks": 3,
        "passed_tasks": 1,
        "failed_tasks": 2,
        "aggregate_reward": pytest.approx(1 / 3),
        "error": None,
        "concurrent_tasks": 2,
    }
    assert tasks == server.get(f"/batch/{batch['batch_id']}/tasks")["tasks"]


def test_tasks(server: Server, batch: dict[str, Any]) -> None:
    body = server.get(f"/batch/{batch['batch_id']}/tasks")

    assert list(body) == ["batch_id", "tasks"]
    found = {row.pop("task_id"): row for row in body["tasks"]}
    assert all(isinstance(row.pop("duration_ms"), int) for row in found.values())
    commit = found["solved"].pop("base_commit")
    assert re.fullmatch("[0-9a-f]{40}", commit)
    assert found == {
        "solved": {
            "status": "completed",
            "passed": True,
            "reward": 1.0,
            "test_output": "== run.sh: exit code 0\nfine\n",
            "error": None,
            "fault": None,
            "reason": "the test passed",
            "attempt": 1,
        },
        "not solved ünï": {
            "status": "failed",
            "passed": False,
            "reward": 0.0,
            "test_output": "== run.sh: exit code 1\nwrong\n",
            "error": None,
            "fault": "agent",
            "reason": "run.sh failed (exit code 1)",
            "attempt": 1,
            "base_commit": commit,
        },
        "lost": {
            "status": "failed",
            "passed": None,
            "reward": 0.0,
            "test_output": None,
            "error": found["lost"]["error"],
            "fault": "task",
            "reason": found["lost"]["error"],
            "attempt": 1,
            "base_commit": None,
        },
    }
    assert found["lost"]["error"].startswith(f"commit {'f' * 40} is not in file://")


def test_task_with_its_tests(server: Server, batch: dict[str, Any]) -> None:
    body = server.get(f"/batch/{batch['batch_id']}/task/not solved ünï")

    results = body.pop("test_results")
    assert body == next(row for row in batch["tasks"] if row["task_id"] == "not solved ünï")
    assert results[0].pop("wall_seconds") > 0
    assert results == [
        {
            "name": "run.sh",
            "passed": False,
            "exit_code": 1,
            "output": "wrong\n",
            "reason": "exited",
        }
    ]


def test_batches_newest_first(server: Server, batch: dict[str, Any], repo: Path) -> None:
    later = server.ended(server.accepted(pack({"a": task(repo, IDLE)})))

    rows = server.get("/batches")

    assert rows[0] == {
        "batch_id": later["batch_id"],
        "created_at": later["created_at"],
        "status": "completed",
    }
    assert [row["created_at"] for row in rows] == sorted(
        (row["created_at"] for row in rows), reverse=True
    )
    assert batch["batch_id"] in [row["batch_id"] for row in rows]


@pytest.mark.parametrize(
    "path",
    [
        f"/batch/{NOBODY}",
        f"/batch/{NOBODY}/tasks",
        f"/batch/{NOBODY}/task/a",
        "/batch/not-a-uuid",
        "/batch/not-a-uuid/tasks",
        "/batch/not-a-uuid/task/a",
    ],
)
def test_what_does_not_exist_is_not_found(server: Server, path: str) -> None:
    answer = httpx.get(server.url + path)

    assert (answer.status_code, answer.json()) == (404, NOT_FOUND)


def test_task_that_does_not_exist_is_not_found(server: Server, batch: dict[str, Any]) -> None:
    answer = httpx.get(f"{server.url}/batch/{batch['batch_id']}/task/nobody")

    assert (answer.status_code, answer.json()) == (404, NOT_FOUND)


def test_address_that_does_not_exist_is_answered_in_json(server: Server) -> None:
    answer = httpx.get(f"{server.url}/nothing/here")

    assert answer.status_code == 404
    assert answer.json()["error"] == "not_found"


def test_status_counts(server: Server, batch: dict[str, Any]) -> None:
    body = server.get("/status")

    assert list(body) == [
        "version",
        "uptime_secs",
        "active_batches",
        "total_batches",
        "completed_batches",
        "tasks_passed",
        "tasks_failed",
        "max_concurrent_tasks",
        "has_active_batch",
    ]
    batches = server.get("/batches")
    details = [server.get(f"/batch/{row['batch_id']}") for row in batches]
    assert body["uptime_secs"] >= 0
    assert body["max_concurrent_tasks"] == 4
    assert (body["active_batches"], body["has_active_batch"]) == (0, False)
    assert body["total_batches"] == body["completed_batches"] == len(batches)
    assert body["tasks_passed"] == sum(detail["passed_tasks"] for detail in details)
    assert body["tasks_failed"] == sum(detail["failed_tasks"] for detail in details)


def test_metrics_say_what_their_names_say(server: Server, batch: dict[str, Any]) -> None:
    answer = httpx.get(f"{server.url}/metrics")

    assert answer.headers["content-type"].startswith("text/plain")
    found = {
        sample.name: sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
        if not sample.labels
    }
    batches = [server.get(f"/batch/{row['batch_id']}") for row in server.get("/batches")]
    expected = {
        "term_executor_batches_total": len(batches),
        "term_executor_batches_active": 0,
        "term_executor_batches_completed": len(batches),
        "term_executor_tasks_total": sum(row["total_tasks"] for row in batches),
        "term_executor_tasks_passed": sum(row["passed_tasks"] for row in batches),
        "term_executor_tasks_failed": sum(row["failed_tasks"] for row in batches),
    }
    assert {name: found[name] for name in expected} == expected
    total = sum(row["duration_ms"] for row in batches)
    assert found["term_executor_duration_ms_sum"] == pytest.approx(total, abs=len(batches))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Hotkey": ""},
        {"X-Hotkey": "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"},
        {"X-Hotkey": HOTKEY[:-1]},
        {"X-Hotkey": HOTKEY + " x"},
        {"X-Hotkey": "ä"},
        {"Authorization": HOTKEY},
    ],
    ids=["none", "empty", "unknown", "short", "longer", "no-ascii", "elsewhere"],
)
def test_stranger_is_refused_and_the_key_is_not_echoed(
    server: Server, headers: dict[str, str]
) -> None:
    encoded = {name: value.encode("utf-8") for name, value in headers.items()}

    answer = httpx.post(f"{server.url}/submit", headers=encoded, content=b"x" * 1000)

    assert answer.status_code == 401
    assert answer.json() == {
        "error": "unauthorized",
        "message": "send an authorised hotkey in X-Hotkey",
    }
    assert not list((server.state / "incoming").iterdir())
    key = headers.get("X-Hotkey", "")
    assert len(key) < 10 or key not in server.log.read_text()


@pytest.mark.parametrize("asked", ["0", "-1", "two", "1.5", "", "٣", "9" * 30])
def test_concurrency_that_is_no_number_above_zero_is_refused(server: Server, asked: str) -> None:
    answer = server.submit(b"", concurrent_tasks=asked)

    assert answer.status_code == 400
    assert answer.json() == {
        "error": "invalid_concurrent_tasks",
        "message": "concurrent_tasks must be a whole number above zero",
    }


def test_request_without_an_archive_is_refused(server: Server) -> None:
    answer = httpx.post(f"{server.url}/submit", headers={"X-Hotkey": HOTKEY}, files={"other": b"x"})

    assert answer.status_code == 400
    assert answer.json()["error"] == "missing_archive"


def test_file_is_as_good_a_field_as_archive(server: Server, repo: Path) -> None:
    answer = httpx.post(
        f"{server.url}/submit",
        headers={"X-Hotkey": HOTKEY},
        files={"file": pack({"a": task(repo, IDLE)})},
    )

    assert answer.status_code == 202
    server.ended(answer.json()["batch_id"])


def test_every_problem_of_an_archive_is_named_at_once_and_nothing_stays(
    server: Server, repo: Path
) -> None:
    before = server.get("/batches")
    bad = pack(
        {
            "no-test": {"workspace.yaml": f"repo: {repo}\nversion: 1\n", "prompt.md": "x"},
            "no-prompt": {"workspace.yaml": f"repo: {repo}\nversion: 1\n", "tests/a.sh": "true"},
            "good": task(repo, SOLVE),
        }
    )

    answer = server.submit(bad)

    assert answer.status_code == 400
    body = answer.json()
    assert body["error"] == "extraction_failed"
    assert sorted(problem["file"].split("/")[1] for problem in body["problems"]) == [
        "no-prompt",
        "no-test",
    ]
    assert server.get("/batches") == before
    kept = {path.name for path in (server.state / "archives").iterdir()}
    assert kept == {f"{row['batch_id']}.archive" for row in before}
    assert not list((server.state / "incoming").iterdir())


@pytest.mark.parametrize(
    ("repo_line", "why"),
    [
        ("ext::sh -c id", "must be an https:// address or owner/name"),
        ("https://user:secret@example.org/x.git", "must not contain a user name or password"),
        ("--upload-pack=id", "is not a repository address"),
    ],
)
def test_repository_that_would_not_be_fetched_is_refused_at_once(
    server: Server, repo_line: str, why: str
) -> None:
    parts = task(repo_line, SOLVE)

    answer = server.submit(pack({"a": parts}))

    assert answer.status_code == 400
    (problem,) = answer.json()["problems"]
    assert problem["file"] == "tasks/a/workspace.yaml"
    assert why in problem["message"]
    assert "secret" not in answer.text


def test_of_fifty_submissions_at_once_exactly_one_is_admitted(server: Server, repo: Path) -> None:
    archive = pack({"a": task(repo, "import time; time.sleep(2)")})

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: server.submit(archive), range(50)))

    codes = sorted(answer.status_code for answer in answers)
    assert codes == [202] + [503] * 49
    assert {answer.json()["error"] for answer in answers if answer.status_code == 503} == {"busy"}
    (batch_id,) = [answer.json()["batch_id"] for answer in answers if answer.status_code == 202]
    assert server.ended(batch_id)["completed_tasks"] == 1


def test_busy_server_refuses_by_header_and_a_watcher_of_the_end_may_submit(
    server: Server, repo: Path
) -> None:
    archive = pack({"a": task(repo, "import time; time.sleep(1)")})
    batch_id = server.accepted(archive)
    assert server.get("/status")["has_active_batch"] is True
    assert server.submit(archive).status_code == 503

    server.frames(batch_id)

    server.ended(server.accepted(archive))


def test_polls_see_progress_as_it_happens(server: Server, repo: Path) -> None:
    slow = task(repo, "import time; time.sleep(2)")
    batch_id = server.accepted(pack({"a": slow, "b": slow}), concurrent_tasks=1)

    seen = server.wait_for(
        lambda: (
            (body := server.get(f"/batch/{batch_id}"))["tasks"][0]["status"] == "running_agent"
            and body
        ),
        20,
        "the agent to run",
    )

    assert (seen["status"], seen["completed_tasks"], seen["duration_ms"]) == ("running", 0, None)
    assert [row["status"] for row in seen["tasks"]] == ["running_agent", "queued"]
    half = server.wait_for(
        lambda: (body := server.get(f"/batch/{batch_id}"))["completed_tasks"] == 1 and body,
        20,
        "the first verdict",
    )
    assert (half["failed_tasks"], half["aggregate_reward"]) == (1, 0.0)
    server.ended(batch_id)


def test_openapi_names_every_call(server: Server) -> None:
    document = server.get("/openapi.json")

    assert sorted(document["paths"]) == [
        "/batch/{batch_id}",
        "/batch/{batch_id}/task/{task_id}",
        "/batch/{batch_id}/tasks",
        "/batches",
        "/health",
        "/metrics",
        "/status",
        "/submit",
    ]
    assert list(document["paths"]["/submit"]["post"]["responses"]) == ["202", "400", "401", "503"]


def test_watcher_from_the_start_sees_everything_in_order(server: Server, repo: Path) -> None:
    batch_id = server.accepted(pack({"a": task(repo, SOLVE), "b": task(repo, IDLE)}))

    frames = server.frames(batch_id)

    snapshot, *events = frames
    assert snapshot["event"] == "snapshot"
    assert sorted(snapshot["data"]) == [
        "aggregate_reward",
        "completed_tasks",
        "failed_tasks",
        "passed_tasks",
        "status",
        "tasks",
        "total_tasks",
    ]
    first = snapshot["seq"] + 1
    assert [event["seq"] for event in events] == list(range(first, first + len(events)))
    assert events[-1] == {
        "event": "stream_closed",
        "batch_id": batch_id,
        "seq": snapshot["seq"] + len(events),
    }
    complete = {e["task_id"]: e["data"] for e in events if e["event"] == "task_complete"}
    assert {name: (d["status"], d["passed"], d["reward"]) for name, d in complete.items()} == {
        "a": ("completed", True, 1.0),
        "b": ("failed", False, 0.0),
    }
    assert events[-2]["event"] == "batch_complete"
    data = events[-2]["data"]
    assert isinstance(data.pop("duration_ms"), int)
    assert data == {"status": "completed", "total": 2, "passed": 1, "failed": 1, "reward": 0.5}


def test_watcher_who_comes_late_gets_the_snapshot_and_the_close(
    server: Server, batch: dict[str, Any]
) -> None:
    url = f"{server.url.replace('http', 'ws')}/ws?batch_id={batch['batch_id']}"
    with connect(url) as socket:
        snapshot, closed = (json.loads(text) for text in socket)
        with pytest.raises(ConnectionClosed) as end:
            socket.recv()

    assert end.value.rcvd is not None
    assert end.value.rcvd.code == 1000
    assert snapshot["data"]["status"] == "completed"
    assert snapshot["data"]["completed_tasks"] == 3
    by_name = {row["task_id"]: row for row in batch["tasks"]}
    for row in snapshot["data"]["tasks"]:
        assert row == {k: v for k, v in by_name[row["task_id"]].items() if k != "test_output"}
    assert closed == {
        "event": "stream_closed",
        "batch_id": batch["batch_id"],
        "seq": snapshot["seq"],
    }


def test_replay_is_complete_and_any_part_of_it_is_the_same(
    server: Server, batch: dict[str, Any]
) -> None:
    everything = server.events(batch["batch_id"])

    assert [frame["seq"] for frame in everything] == list(range(1, len(everything) + 1))
    assert everything[0] == {
        "event": "batch_started",
        "batch_id": batch["batch_id"],
        "seq": 1,
        "data": {"total_tasks": 3, "concurrent_limit": 2},
    }
    for since in (1, 5, len(everything) - 1):
        assert server.frames(batch["batch_id"], since=since) == everything[since:]


@pytest.mark.parametrize("asked", [NOBODY, "not-a-uuid", ""])
def test_watcher_of_an_unknown_batch_is_told_so(server: Server, asked: str) -> None:
    assert server.frames(asked) == [{"error": "batch_not_found", "batch_id": asked}]


@pytest.mark.parametrize("since", ["-1", "x", "9" * 40])
def test_number_that_is_none_is_refused(server: Server, batch: dict[str, Any], since: str) -> None:
    frames = server.frames(batch["batch_id"], since=since)

    assert frames == [{"error": "invalid_since", "batch_id": batch["batch_id"]}]


def test_curl_submits_as_the_banner_says(server: Server, repo: Path, tmp_path: Path) -> None:
    archive = tmp_path / "batch.tar.gz"
    archive.write_bytes(pack({"a": task(repo, SOLVE)}))

    ended = subprocess.run(
        [
            *("curl", "--silent", "--show-error", "-H", f"X-Hotkey: {HOTKEY}"),
            *("-F", f"archive=@{archive}", f"{server.url}/submit"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )

    assert server.ended(json.loads(ended.stdout)["batch_id"])["aggregate_reward"] == 1.0


def test_agent_code_is_nowhere_to_be_seen(server: Server, repo: Path) -> None:
    secret = "zq-the-agents-own-words"
    agent = {
        "agent.py": f"WORDS = '{secret}'\nprint(open(__file__).read())\nraise ValueError(WORDS)\n"
    }
    batch_id = server.accepted(pack({"a": task(repo, IDLE)}, agent))
    server.ended(batch_id)

    pages = [
        httpx.get(server.url + path).text
        for path in (
            f"/batch/{batch_id}",
            f"/batch/{batch_id}/tasks",
            f"/batch/{batch_id}/task/a",
            "/batches",
            "/status",
            "/metrics",
            "/openapi.json",
        )
    ]
    frames = json.dumps(server.events(batch_id))

    assert secret not in "".join(pages) + frames + server.log.read_text()
