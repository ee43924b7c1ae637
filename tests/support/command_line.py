"""The command line as a function: words in; exit code, stdout and stderr out."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from embedctl.cli.entry import main
from embedctl.engine.facade import EngineFacade


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


@dataclass
class CommandLine:
    """Runs command lines; `engine` is what they open."""

    engine: EngineFacade
    capture: pytest.CaptureFixture[str]

    def __call__(self, *words: str) -> Outcome:
        self.capture.readouterr()
        code = main(words)
        out, err = self.capture.readouterr()
        return Outcome(code, out, err)
