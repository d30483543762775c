"""The commands that README and docs/ show in blocks of code, and the options that they name in the text."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

FENCE = re.compile(r"^```(\w*)\s*$")
SHELL = ("", "bash", "sh")
LOOP = re.compile(r"for (\w+) in ([^;]+); do\s*(?:#.*)?")
SPAN = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Command:
    """One program call: its words, and the line where it stands."""

    words: tuple[str, ...]
    line: int

    def __str__(self) -> str:
        return f"line {self.line}: {shlex.join(self.words)}"


def blocks(text: str) -> Iterator[tuple[int, str, list[str]]]:
    """Line number, language and lines of each block of code; indented blocks have the language ""."""
    lines = text.splitlines()
    i = 0
    while i < len(lines):
        if fence := FENCE.match(lines[i]):
            end = next(k for k in range(i + 1, len(lines)) if lines[k].startswith("```"))
            yield i + 2, fence[1], lines[i + 1 : end]
            i = end + 1
        elif lines[i].startswith("    ") and (i == 0 or not lines[i - 1].strip() or lines[i - 1].startswith("#")):
            end = next(
                (k for k in range(i, len(lines)) if lines[k].strip() and not lines[k].startswith("    ")), len(lines)
            )
            yield i + 1, "", [line[4:] for line in lines[i:end]]
            i = end
        else:
            i += 1


def commands(text: str) -> list[Command]:
    """All calls of programs in blocks of shell; each turn of a loop gives one.

    Example
    -------
    >>> text = "    for s in 2 4; do uhrct train a.yaml scale=$s; done   # twice\\n    uhrct info x | jq ."
    >>> [c.words[1:] for c in commands(text) if c.words[0] == "uhrct"]
    [('train', 'a.yaml', 'scale=2'), ('train', 'a.yaml', 'scale=4'), ('info', 'x')]
    """
    found = []
    for first, language, lines in blocks(text):
        if language in SHELL:
            found += _of_block(first, lines)
    return found


def _of_block(first: int, lines: list[str]) -> list[Command]:
    found: list[Command] = []
    values: list[dict[str, str]] = [{}]
    held, start = "", first
    for number, line in enumerate(lines, first):
        start = start if held else number
        held += line
        if held.endswith("\\"):
            held = held[:-1]
            continue
        joined, held = held.strip(), ""
        if loop := LOOP.match(joined):
            values = [{loop[1]: value} for value in loop[2].split()]
            joined = joined[loop.end() :]
        for each in values:
            text = re.sub(r"\$\{?(\w+)\}?", lambda m, each=each: each.get(m[1], m[0]), joined)
            found += [Command(tuple(words), start) for words in calls(text)]
        if re.search(r"(^|;)\s*done\b", joined):
            values = [{}]
    return found


def calls(line: str) -> list[list[str]]:
    """The calls in a line of shell: parts between ; | and &, and what other programs are told to start.

    Example
    -------
    >>> calls("sbatch --wrap 'uhrct batch a b'; torchrun -n 2 -m uhrct train c")[1:]
    [['uhrct', 'batch', 'a', 'b'], ['torchrun', '-n', '2', '-m', 'uhrct', 'train', 'c'], ['uhrct', 'train', 'c']]
    """
    lexer = shlex.shlex(re.sub(r"\[(-[^\]]*)\]", r"\1", line), posix=True, punctuation_chars=";|&")
    lexer.whitespace_split = True
    parts: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set(";|&"):
            parts.append([])
        else:
            parts[-1].append(word)
    found = []
    for words in parts:
        words = words[1:] if words[:1] in (["do"], ["srun"]) else words
        if words and words != ["done"]:
            found.append(words)
        if words[:1] != ["uhrct"] and "-m" in words[:-1] and words[words.index("-m") + 1] == "uhrct":
            found.append(words[words.index("-m") + 1 :])
        found += [inner for word in words if word.startswith("uhrct ") for inner in calls(word)]
    return found


def spans(text: str) -> list[str]:
    """What stands in backticks in the text around the blocks; a span may go on in the next line."""
    inside = {k for first, _, lines in blocks(text) for k in range(first, first + len(lines))}
    lines = ["" if k in inside or line.startswith("```") else line for k, line in enumerate(text.splitlines(), 1)]
    return [" ".join(span.split()) for span in SPAN.findall("\n".join(lines))]
