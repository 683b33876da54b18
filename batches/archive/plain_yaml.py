"""YAML as plain text: lists, mappings and strings, and nothing that could cost anything.

The library's own loader recurses, gives ``1234567`` and ``1e10`` and dates a
meaning that they do not have in a commit's name, and writes snippets of the
file into its messages. So only its parser is used, event by event.
"""

from dataclasses import dataclass, field
from typing import TypeAlias

import yaml

Value: TypeAlias = "str | bool | None | list[Value] | dict[str, Value]"

MAX_DEPTH = 64
MAX_ALIASES = 100
MAX_VALUES = 20_000
"""A megabyte of tiny values takes seconds to read, and an archive may hold a thousand of those."""

NULLS = ("", "~", "null", "Null", "NULL")
BOOLEANS = {
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
}

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class BadYaml(Exception):
    """The text is not YAML, or not YAML that is accepted. The message quotes nothing of it."""


@dataclass
class Open:
    """A list or mapping whose end has not come yet."""

    is_mapping: bool
    anchor: str | None
    values: list[Value] = field(default_factory=list)

    def close(self) -> Value:
        if not self.is_mapping:
            return self.values
        keys, values = self.values[::2], self.values[1::2]
        texts = [key for key in keys if isinstance(key, str)]
        if len(texts) != len(set(texts)):
            raise BadYaml("gives the same key twice; keep one")
        # Keys that are no text mean nothing here.
        return {key: value for key, value in zip(keys, values, strict=True) if isinstance(key, str)}


def load(text: str) -> Value:
    """The only document of ``text``. Scalars stay as written, but for null, true and false.

    Raises ``BadYaml``, and nothing else. An alias is the very value it names,
    so that a value may be reachable in exponentially many ways: look at what
    you need and never walk through all of it.
    """
    try:
        return build(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"look at line {mark.line + 1}, column {mark.column + 1}" if mark else "look at it"
        raise BadYaml(f"is not valid YAML; {where}") from None
    except (yaml.YAMLError, ValueError, OverflowError):
        # Characters that YAML does not know, and escapes for ones that nobody knows.
        raise BadYaml("is not valid YAML; it holds characters that YAML does not allow") from None


def build(text: str) -> Value:
    documents: list[Value] = []
    stack: list[Open] = []
    anchors: dict[str, Value] = {}
    aliases = 0
    for count, event in enumerate(yaml.parse(text, Loader=LOADER)):
        if count > MAX_VALUES:
            raise BadYaml(f"holds more than {MAX_VALUES} values; remove what is not needed")
        match event:
            case yaml.CollectionStartEvent():
                stack.append(Open(isinstance(event, yaml.MappingStartEvent), event.anchor))
                if len(stack) > MAX_DEPTH:
                    raise BadYaml(
                        f"nests lists and mappings more than {MAX_DEPTH} deep; make it flat"
                    )
                continue
            case yaml.CollectionEndEvent():
                done = stack.pop()
                anchor, value = done.anchor, done.close()
            case yaml.ScalarEvent():
                anchor, value = event.anchor, scalar(event)
            case yaml.AliasEvent():
                aliases += 1
                if aliases > MAX_ALIASES:
                    raise BadYaml(f"uses more than {MAX_ALIASES} aliases; write the values out")
                if event.anchor not in anchors:
                    raise BadYaml("uses an alias for something that it has not named yet")
                anchor, value = None, anchors[event.anchor]
            case _:
                continue
        if anchor is not None:
            anchors[anchor] = value
        (stack[-1].values if stack else documents).append(value)
    if len(documents) > 1:
        raise BadYaml("holds more than one document; remove the line with --- between them")
    return documents[0] if documents else None


def scalar(event: yaml.ScalarEvent) -> str | bool | None:
    text: str = event.value
    is_plain = event.implicit[0]
    if is_plain and text in NULLS:
        return None
    return BOOLEANS.get(text, text) if is_plain else text
