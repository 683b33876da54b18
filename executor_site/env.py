"""Typed readers for settings that come from the environment.

Every reader takes the variable's name and its default and returns a value of
one type. A value that cannot be used raises ``ImproperlyConfigured`` with a
message that names the variable, so that the server never starts on a guess.
``NAME_FILE`` names a file to read the value from instead: the way container
platforms hand over secrets.
"""

import os
import secrets
from pathlib import Path
from typing import TypeVar, overload

from django.core.exceptions import ImproperlyConfigured

from batches.hotkeys import is_ss58

TRUE = frozenset({"1", "true", "yes", "on"})
FALSE = frozenset({"0", "false", "no", "off"})

Choice = TypeVar("Choice", bound=str)


def refuse(name: str, why: str) -> ImproperlyConfigured:
    """The error for an unusable value. The value itself is left out: it may be a secret."""
    return ImproperlyConfigured(f"{name}: {why}")


def raw(name: str) -> str | None:
    """The variable's text, or what ``NAME_FILE`` points at; ``None`` when unset or empty."""
    value = os.environ.get(name, "").strip()
    pointer = os.environ.get(f"{name}_FILE", "").strip()
    if value and pointer:
        raise refuse(name, f"set either {name} or {name}_FILE, not both")
    if pointer:
        try:
            value = Path(pointer).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise refuse(f"{name}_FILE", f"cannot be read: {error}") from error
    return value or None


@overload
def text(name: str, default: str) -> str: ...
@overload
def text(name: str, default: None) -> str | None: ...
def text(name: str, default: str | None) -> str | None:
    """A string, stripped of surrounding blanks."""
    value = raw(name)
    return default if value is None else value


def integer(name: str, default: int, *, least: int = 0, most: int | None = None) -> int:
    """A whole number from ``least`` to ``most``; underscores may group its digits."""
    value = raw(name)
    if value is None:
        return default
    limits = f"at least {least}" if most is None else f"from {least} to {most}"
    try:
        number = int(value)
    except ValueError:
        raise refuse(name, f"must be a whole number, {limits}") from None
    if number < least or (most is not None and number > most):
        raise refuse(name, f"must be {limits}")
    return number


def boolean(name: str, default: bool) -> bool:
    """A switch: 1, true, yes, on or 0, false, no, off, in any case."""
    value = raw(name)
    if value is None:
        return default
    if value.lower() in TRUE:
        return True
    if value.lower() in FALSE:
        return False
    raise refuse(name, "must be 1 or 0 (true, false, yes, no, on and off are understood too)")


def choice(name: str, default: Choice, choices: tuple[Choice, ...]) -> Choice:
    """One of a few words."""
    value = raw(name)
    if value is None:
        return default
    for candidate in choices:
        if value.lower() == candidate:
            return candidate
    raise refuse(name, f"must be one of {', '.join(choices)}")


def words(name: str, default: tuple[str, ...]) -> tuple[str, ...]:
    """A comma-separated list. Blank entries are left out; an empty list is refused."""
    value = raw(name)
    if value is None:
        return default
    entries = tuple(entry.strip() for entry in value.split(",") if entry.strip())
    if not entries:
        raise refuse(name, "must list at least one entry, separated by commas")
    return entries


def folder(name: str, default: Path) -> Path:
    """An absolute path. Nothing is created here: reading settings must not touch the disk."""
    value = raw(name)
    path = default if value is None else Path(value).expanduser()
    if path.exists() and not path.is_dir():
        raise refuse(name, "must name a folder, and there is a file of that name")
    return Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links


def secret(name: str, keeper: Path) -> str:
    """A secret from the environment, else the one kept 0600 in ``keeper``, made on first use."""
    value = raw(name)
    if value is not None:
        if len(value) < 32:
            raise refuse(name, "must have at least 32 characters")
        return value
    return kept_secret(name, keeper, secrets.token_urlsafe(48))


def kept_secret(name: str, keeper: Path, fresh: str) -> str:
    """The text in ``keeper``; ``fresh`` is stored there first when the file does not exist.

    The file is linked into place complete, so that processes which start at
    the same moment agree on one secret.
    """
    try:
        if not keeper.exists():
            keeper.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            draft = keeper.with_name(f".{keeper.name}.{os.getpid()}")
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(fresh + "\n")
            try:
                os.link(draft, keeper)
            except FileExistsError:
                pass
            finally:
                draft.unlink()
        return keeper.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise refuse(name, f"{keeper} cannot be read or written: {error}") from error


def hotkeys(name: str, default: tuple[str, ...]) -> tuple[str, ...]:
    """A comma-separated list of SS58 addresses. The refusal counts entries, it does not echo them."""
    entries = words(name, default)
    for position, entry in enumerate(entries, start=1):
        if not is_ss58(entry):
            raise refuse(name, f"entry {position} of {len(entries)} is not an SS58 address")
    return entries
