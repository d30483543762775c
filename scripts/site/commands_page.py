"""The page "Commands" of the site, from the texts that `uhrct COMMAND --help` shows."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from typer.models import ArgumentInfo

from uhrct.cli.main import COMMANDS

HEAD = """# Commands

This page is made from the help texts of the program: `uhrct COMMAND --help` shows the same. *Z,Y,X* stands for three
numbers in this order. [Reports and exit codes](report.md) explains `--json` and the exit codes;
[File formats](formats.md) explains the inputs and outputs.
"""
KINDS = {str: "TEXT", int: "INTEGER", float: "NUMBER", Path: "PATH"}


@dataclass(frozen=True)
class Parameter:
    """An argument or option of a command, as its function declares it."""

    #: "" for an argument
    options: tuple[str, ...]
    name: str
    kind: Any
    default: Any
    info: Any

    @property
    def many(self) -> bool:
        return get_origin(self.kind) is list

    @property
    def shown(self) -> str:
        """INPUT, `--scale TEXT`, `--quiet`, `-q`."""
        if not self.options:
            return f"`{self.name.upper()}`"
        names = list(self.options)
        if self.kind is not bool:
            names[-1] += f" {self._value()}"
        return ", ".join(f"`{name}`" for name in names)

    @property
    def usage(self) -> str:
        name = self.name.upper() + ("..." if self.many else "")
        return name if self.default is inspect.Parameter.empty else f"[{name}]"

    @property
    def text(self) -> str:
        """The help text; the values to choose from and the default, unless the text states them."""
        text = " ".join(str(self.info.help or "").split())
        if isinstance(self.kind, type) and issubclass(self.kind, Enum):
            text += f" One of: {', '.join(each.value for each in self.kind)}."
        shown = self.info.show_default
        default = self.default.value if isinstance(self.default, Enum) else self.default
        if isinstance(shown, str):
            text += f" Default: {shown}."
        elif shown and default not in (None, inspect.Parameter.empty) and self.kind is not bool:
            text += f" Default: {default}."
        return text.strip().replace("|", r"\|").replace("<", r"\<")

    def _value(self) -> str:
        if isinstance(self.kind, type) and issubclass(self.kind, Enum):
            return self.kind.__name__.upper()
        kind = get_args(self.kind)[0] if self.many else self.kind
        return str(self.info.metavar or KINDS.get(kind, "VALUE")).strip("<>").upper()


def parameters(command: Callable[..., Any]) -> list[Parameter]:
    """Arguments and options of a command, in the order of its help."""
    hints = get_type_hints(command, include_extras=True)
    found = []
    for name, parameter in inspect.signature(command).parameters.items():
        assert get_origin(hints[name]) is Annotated
        kind, info = get_args(hints[name])[:2]
        if get_origin(kind) is UnionType:
            kind = next(each for each in get_args(kind) if each is not type(None))
        # typer takes the first name of an option for its default, and sorts this out later
        names = [each for each in (info.default, *(info.param_decls or ())) if str(each).startswith("-")]
        options = [] if isinstance(info, ArgumentInfo) else names or [f"--{name.replace('_', '-')}"]
        found.append(Parameter(tuple(options), name, kind, parameter.default, info))
    return found


def commands_page() -> str:
    """All commands, in the groups of `uhrct --help`."""
    parts = [HEAD]
    for panel, commands in COMMANDS.items():
        parts += [f"## {panel}\n", *(section(command) for command in commands)]
    return "\n".join(parts)


def section(command: Callable[..., Any]) -> str:
    """Purpose, usage, arguments and options of a command; options in the groups of its help."""
    name = f"uhrct {command.__name__.replace('_', '-')}"
    listed = parameters(command)
    arguments = [p for p in listed if not p.options]
    groups: dict[str, list[Parameter]] = {"Arguments": arguments} if arguments else {}
    groups["Options"] = []
    for p in listed:
        if p.options:
            groups.setdefault(p.info.rich_help_panel or "Options", []).append(p)
    usage = " ".join([name, "[OPTIONS]", *(p.usage for p in arguments)])
    tables = [table(title, members) for title, members in groups.items() if members]
    return "\n".join([f"### `{name}`\n", f"{inspect.getdoc(command)}\n", f"```text\n{usage}\n```\n", *tables])


def table(title: str, members: list[Parameter]) -> str:
    return "\n".join([f"| {title} | |", "|---|---|", *(f"| {p.shown} | {p.text} |" for p in members), ""])
