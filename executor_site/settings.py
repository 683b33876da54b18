"""The one settings file. Every value comes from the environment; docs/settings.md lists them all."""

import os
from pathlib import Path
from typing import Any

import dj_database_url
from django.core.exceptions import ImproperlyConfigured

from executor_site import env

BASE_DIR = Path(__file__).resolve().parent.parent

# --- Where things lie -----------------------------------------------------------------------

STATE_DIR = env.folder("STATE_DIR", BASE_DIR / "var")
WORKSPACE_BASE = env.folder("WORKSPACE_BASE", Path("/tmp/sessions"))  # noqa: S108 - the original's default
ARCHIVES_DIR = STATE_DIR / "archives"
INCOMING_DIR = STATE_DIR / "incoming"
MIRRORS_DIR = STATE_DIR / "mirrors"

# --- Server ---------------------------------------------------------------------------------

HOST = env.text("HOST", "127.0.0.1")
PORT = env.integer("PORT", 8080, most=65535)
ALLOWED_HOSTS = list(env.words("ALLOWED_HOSTS", ("*",)))
DEBUG = env.boolean("DEBUG", False)
SECRET_KEY = env.secret("SECRET_KEY", STATE_DIR / "secret.key")
GRACE_SECS = env.integer("GRACE_SECS", 10)
UPLOAD_TIMEOUT_SECS = env.integer("UPLOAD_TIMEOUT_SECS", 3600, least=1)
LOG_LEVEL = env.choice("LOG_LEVEL", "info", ("debug", "info", "warning", "error")).upper()

# --- Who may submit -------------------------------------------------------------------------

AUTHORIZED_HOTKEYS = env.hotkeys(
    "AUTHORIZED_HOTKEYS", ("5GziQCcRpN8NCJktX343brnfuVe3w6gUYieeStXPD1Dag2At",)
)

# --- Batches and tasks ----------------------------------------------------------------------

SESSION_TTL_SECS = env.integer("SESSION_TTL_SECS", 7200, least=1)
MAX_CONCURRENT_TASKS = env.integer("MAX_CONCURRENT_TASKS", 8, least=1, most=1024)
CLONE_TIMEOUT_SECS = env.integer("CLONE_TIMEOUT_SECS", 180, least=1)
AGENT_TIMEOUT_SECS = env.integer("AGENT_TIMEOUT_SECS", 600, least=1)
TEST_TIMEOUT_SECS = env.integer("TEST_TIMEOUT_SECS", 300, least=1)
MAX_OUTPUT_BYTES = env.integer("MAX_OUTPUT_BYTES", 1024 * 1024, least=1024)
MAX_PATCH_BYTES = env.integer("MAX_PATCH_BYTES", 50 * 1024 * 1024, least=1024)
INSTALL_FAILURE = env.choice("INSTALL_FAILURE", "continue", ("continue", "fail"))
ALLOW_LOCAL_REPOS = env.boolean("ALLOW_LOCAL_REPOS", False)

# --- Archives -------------------------------------------------------------------------------

MAX_ARCHIVE_BYTES = env.integer("MAX_ARCHIVE_BYTES", 524_288_000, least=1)
MAX_ARCHIVE_FILES = env.integer("MAX_ARCHIVE_FILES", 50_000, least=1)
MAX_UNPACKED_BYTES = env.integer("MAX_UNPACKED_BYTES", 4 * 1024**3, least=1)
MAX_ARCHIVE_RATIO = env.integer("MAX_ARCHIVE_RATIO", 200, least=1)

# --- Workers --------------------------------------------------------------------------------

LEASE_SECS = env.integer("LEASE_SECS", 12, least=3)
MAX_ATTEMPTS = env.integer("MAX_ATTEMPTS", 3, least=1)

# --- Sandbox --------------------------------------------------------------------------------

SANDBOX = env.choice("SANDBOX", "process", ("process",))
TASK_PATH = env.text("TASK_PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
TASK_ENV = env.words(
    "TASK_ENV",
    (
        *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"),
        *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CERT", "NPM_CONFIG_REGISTRY", "GOPROXY"),
    ),
)

# --- Database -------------------------------------------------------------------------------
# `web` holds a pool of connections; django-q2 forks its workers, and a pool that is
# forked hands two processes the same socket. The commands say which of the two they are.

ROLE = os.environ.get("TERM_EXECUTOR_ROLE", "")
DATABASE_URL = env.text("DATABASE_URL", None)


def databases(url: str | None) -> dict[str, dict[str, Any]]:
    """Django's DATABASES for ``url``: SQLite in ``STATE_DIR`` when there is none, else PostgreSQL."""
    if url is None:
        return {
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": STATE_DIR / "db.sqlite3",
                "OPTIONS": {
                    # A write transaction takes its lock at once: a deferred one that has to
                    # upgrade fails at once under load, whatever the timeout says.
                    "transaction_mode": "IMMEDIATE",
                    "timeout": 30,
                    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
                },
            }
        }
    try:
        parsed = dict(dj_database_url.parse(url))
    except ValueError as error:
        raise ImproperlyConfigured(f"DATABASE_URL: {error}") from None
    if parsed.get("ENGINE") != "django.db.backends.postgresql":
        raise ImproperlyConfigured(
            "DATABASE_URL: must be a postgres:// address; leave it unset for the embedded SQLite"
        )
    if ROLE == "web":
        parsed["OPTIONS"] = {**parsed.get("OPTIONS", {}), "pool": {"min_size": 2, "max_size": 16}}
    else:
        parsed["CONN_MAX_AGE"] = 600
    return {"default": parsed}


DATABASES = databases(DATABASE_URL)
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- Watchers -------------------------------------------------------------------------------
# Groups live inside one server process: its feed reads the events and fills them. With
# several hosts, REDIS_URL carries only the knocks that tell every feed to look.

REDIS_URL = env.text("REDIS_URL", None)
CHANNEL_LAYERS: dict[str, dict[str, Any]] = {
    "default": {
        "BACKEND": "channels.layers.InMemoryChannelLayer",
        # A watcher that was slow for a minute would otherwise be dropped from its group, and one
        # that stayed for a day. What a full channel loses is found in the rows.
        "CONFIG": {"capacity": 200, "expiry": 10**9, "group_expiry": 10**9},
    },
}
if REDIS_URL is not None:
    CHANNEL_LAYERS["knocks"] = {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        # redis-py 8 gives every socket a 5 s time-out, which ends a subscription that
        # has nothing to say, and caps the pool at 100 connections.
        "CONFIG": {"hosts": [{"address": REDIS_URL, "socket_timeout": None}]},
    }

# --- Queue ----------------------------------------------------------------------------------
# django-q2 delivers lanes and nothing else: who runs which task is decided by claims on
# our own rows. A lane lives as long as its batch, so its time-out lies above the batch's,
# and `retry` above that. `queue_limit` keeps lanes from waiting in a dead cluster's memory.

Q_CLUSTER = {
    "name": "term-executor",
    "label": "Queue",
    "orm": "default",
    "workers": MAX_CONCURRENT_TASKS,
    "queue_limit": MAX_CONCURRENT_TASKS,
    "timeout": SESSION_TTL_SECS + 600,
    "retry": SESSION_TTL_SECS + 1200,
    "max_attempts": 1,
    "ack_failures": True,
    "save_limit": -1,
    "poll": 0.2,
    "bulk": 1,
    "recycle": 1_000_000,
    "scheduler": False,
    "catch_up": False,
}

# --- Django ---------------------------------------------------------------------------------

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "django_q",
    "batches",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "batches.middleware.StaticFiles",
    "batches.middleware.Hotkey",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "executor_site.urls"
ASGI_APPLICATION = "executor_site.asgi.application"
APPEND_SLASH = False
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]
STORAGES = {
    "default": {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {
            "location": ARCHIVES_DIR,
            "file_permissions_mode": 0o600,
            "directory_permissions_mode": 0o700,
        },
    },
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
STATIC_URL = "/static/"
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = False
FILE_UPLOAD_HANDLERS = ["batches.uploads.ArchiveUploadHandler"]
LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
SESSION_COOKIE_HTTPONLY = True
SECURE_CONTENT_TYPE_NOSNIFF = True
X_FRAME_OPTIONS = "DENY"
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"format": "%(asctime)s %(levelname)-7s %(name)s: %(message)s"},
    },
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
    "loggers": {
        "batches": {"level": LOG_LEVEL},
        "executor_site": {"level": LOG_LEVEL},
        # A refused request is an answer, not an event for the operator.
        "django.request": {"level": "ERROR"},
        "django-q": {"level": "WARNING"},
    },
}
