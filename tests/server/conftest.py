"""The servers that most tests here share: starting one takes longer than most tests do."""

import pytest

from tests.server.scaffold import start_server


@pytest.fixture(scope="package")
def shared_server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    with start_server(folder, "apps:application", grace_seconds=0.5) as server:
        yield server
        # What clients did to it, aborted uploads and the like, is no error of the
        # server's. Only the application that raises on purpose may have left a trace.
        server.signal()
        log = server.wait().log
        on_purpose = log.count("Exception inside application: broken on purpose")
        assert (log.count("Exception"), log.count("Traceback")) == (on_purpose, on_purpose)


@pytest.fixture
def server(shared_server):
    """The ASGI applications of ``apps``, with nothing noted yet."""
    shared_server.get("/forget")
    return shared_server


@pytest.fixture(scope="package")
def shared_site(tmp_path_factory):
    with start_server(tmp_path_factory.mktemp("site"), "site:application") as server:
        yield server
        server.signal()
        assert server.wait().log == ""


@pytest.fixture
def site(shared_site):
    """The Django site of ``site``."""
    return shared_site
