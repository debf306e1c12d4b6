"""Understands what the probe says, line by line. Pure."""

from __future__ import annotations

import dataclasses

from vmctl.lab import catalog, tools
from vmctl.lab.results import Sample

_MARK = "vmctl-lab "
_LONGEST = 1 << 20
_SHOWN = 160


@dataclasses.dataclass(slots=True)
class Report:
    """What a probe has said so far; `clock` is the boot clock (seconds) at its first line."""

    samples: list[Sample] = dataclasses.field(default_factory=list)
    missing: dict[str, str] = dataclasses.field(default_factory=dict)
    facts: dict[str, str] = dataclasses.field(default_factory=dict)
    clock: float | None = None
    ended: bool = False
    _rest: str = ""
    _tool: str = ""
    _output: str = ""

    def feed(self, text: str) -> None:
        """Take in what came; the last line may be unfinished."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._take(line.strip("\r"))

    @property
    def last(self) -> str:
        """The workload that was finished last, for people."""
        return self.samples[-1].workload if self.samples else ""

    def _take(self, line: str) -> None:
        # A guest's console may have something else before it on the same line.
        _, mark, said = line.partition(_MARK)
        if not mark:
            if self._tool and len(self._output) < _LONGEST:
                self._output += line + "\n"
            return
        kind, _, rest = said.partition(" ")
        words = rest.split(" ")
        if kind == "begin":
            self.clock = _number(rest)
        elif kind == "fact" and len(words) >= 2:
            self.facts[words[0]] = rest.partition(" ")[2]
        elif kind == "void" and words[0]:
            self.missing[words[0]] = rest.partition(" ")[2]
        elif kind == "sample" and len(words) == 4:
            self._sample(words)
        elif kind == "tool":
            self._tool, self._output = words[0], ""
        elif kind == "status" and words[0] == self._tool:
            self._understand(words[-1])
        elif kind == "done":
            self.ended = True

    def _understand(self, status: str) -> None:
        """Turn what a tool has printed into a sample, or into the reason why there is none."""
        name, self._tool = self._tool, ""
        tool, workload = tools.BY_NAME.get(name), catalog.BY_NAME.get(name)
        if tool is None or workload is None:
            return
        try:
            if status != "0":
                raise ValueError(f"status {status}")
            value = tool.understood(self._output)
        except (ValueError, KeyError, IndexError, TypeError) as problem:
            told = " ".join(self._output.split())[-_SHOWN:]
            self.missing[name] = f"{tool.program} failed ({problem}): {told or 'no output'}"
            return
        if value > 0:
            self.samples.append(Sample(workload=name, value=value, unit=workload.unit))

    def _sample(self, words: list[str]) -> None:
        value, operations = _number(words[1]), _number(words[3])
        if value is not None and operations is not None and value > 0:
            self.samples.append(
                Sample(workload=words[0], value=value, unit=words[2], operations=int(operations))
            )


def _number(word: str) -> float | None:
    try:
        value = float(word)
    except ValueError:
        return None
    return value if abs(value) < 1e300 else None
