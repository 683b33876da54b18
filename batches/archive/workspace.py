"""``workspace.yaml``: the repository that a task is about, and how to prepare it."""

from dataclasses import dataclass
from pathlib import Path

from batches.archive import plain_yaml
from batches.archive.plain_yaml import BadYaml, Value
from batches.archive.specs import BadArchive, Problem
from batches.archive.text import BadText, read_bytes, unicode_text

MAX_WORKSPACE_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Workspace:
    """What ``workspace.yaml`` says. Whether ``repo`` is an accepted address is not looked at here."""

    repo: str
    version: str | None
    base_commit: str | None
    language: str | None
    install: tuple[str, ...]


def read_workspace(path: Path, file: str) -> Workspace:
    """Read the file at ``path``, called ``file`` in problems. Raises ``BadArchive`` with all of them."""
    try:
        data = plain_yaml.load(unicode_text(read_bytes(path, MAX_WORKSPACE_BYTES)))
    except (BadText, BadYaml) as bad:
        raise BadArchive([Problem(file, str(bad))]) from None
    if not isinstance(data, dict):
        raise BadArchive([Problem(file, "has to be a mapping, with lines like `repo: ...`")])

    fields = Fields(data)
    workspace = Workspace(
        repo=fields.required_text("repo"),
        version=fields.version(),
        base_commit=fields.text("base_commit"),
        language=fields.text("language"),
        install=fields.commands("install"),
    )
    if fields.complaints:
        raise BadArchive([Problem(file, complaint) for complaint in fields.complaints])
    return workspace


class Fields:
    """The keys of a mapping by what they should hold. Gathers complaints instead of raising them."""

    def __init__(self, data: dict[str, Value]) -> None:
        self.data = data
        self.complaints: list[str] = []

    def required_text(self, key: str) -> str:
        value = self.data.get(key)
        if value is None or (isinstance(value, str) and not value.strip()):
            self.complaints.append(f"`{key}` is required: write a text that is not blank")
            return ""
        return self.text(key) or ""

    def version(self) -> str | None:
        """``version`` may be null, but somebody has to have said so."""
        if "version" not in self.data:
            self.complaints.append("`version` is required: write a text, a number or null")
        return self.text("version")

    def text(self, key: str) -> str | None:
        """The text of an optional key; blank is as good as not there."""
        value = self.data.get(key)
        if value is None:
            return None
        if not isinstance(value, str):
            self.complaints.append(f"`{key}` has to be a text; put quotes around it")
            return None
        if not is_storable(value):
            self.complaints.append(f"`{key}` holds a character that is no text; remove it")
            return None
        return value.strip() or None

    def commands(self, key: str) -> tuple[str, ...]:
        """A list of commands; one command alone may stand without the list."""
        value = self.data.get(key)
        if value is None:
            return ()
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, list):
            self.complaints.append(f"`{key}` has to be a list of commands")
            return ()
        commands = []
        for place, item in enumerate(items, start=1):
            if isinstance(item, str) and item.strip() and is_storable(item):
                commands.append(item)
            else:
                self.complaints.append(
                    f"`{key}`, item {place}, has to be a command: a text that is not blank, "
                    "in quotes if in doubt"
                )
        return tuple(commands)


def is_storable(text: str) -> bool:
    """Whether databases and command lines take ``text``: no NUL, and no half of a character."""
    return not any(character == "\0" or "\ud800" <= character <= "\udfff" for character in text)
