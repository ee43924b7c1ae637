"""What may be imported when: start-up time and the house's rules, looked at in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

_HEAVY = ("torch", "transformers", "sentence_transformers")
_SLOW = (
    *_HEAVY,
    "sqlite_utils",
    "ollama",
    "httpx",
    "huggingface_hub",
    "pydantic_settings",
    "scipy",
    "pynvml",
    "psutil",
)


def imported_by(statement: str, names: tuple[str, ...]) -> list[str]:
    """Which of `names` are in `sys.modules` after `statement`."""
    script = f"import json, sys\n{statement}\nprint(json.dumps([n for n in {names!r} if n in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_the_package_alone_imports_nothing_slow() -> None:
    assert imported_by("import embedctl", _SLOW) == []


def test_the_console_before_its_first_paint_imports_no_part_of_the_engine() -> None:
    statement = "import embedctl_console, embedctl_console.app"
    assert imported_by(statement, _SLOW) == []


def test_help_needs_neither_torch_nor_the_engine() -> None:
    statement = "from embedctl.cli.entry import main\nassert main(['--help']) == 0"
    assert imported_by(statement, (*_SLOW, "numpy", "pydantic")) == []


def test_an_engine_runs_without_torch_in_its_process(tmp_path: Path) -> None:
    statement = (
        "from embedctl.engine import open_engine\n"
        "engine = open_engine()\nengine.refresh()\nengine.status()\nengine.close()"
    )
    assert imported_by(statement, _HEAVY) == []


@pytest.mark.parametrize("package", ["embedctl", "embedctl_console"])
def test_no_module_is_left_out_of_the_rules(package: str) -> None:
    """Every folder with modules is a package, or import-linter and mypy would pass it by."""
    done = subprocess.run(
        [sys.executable, "-c", f"import {package}; print({package}.__path__[0])"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    root = Path(done.stdout.strip())
    assert [str(m.parent) for m in root.rglob("*.py") if not (m.parent / "__init__.py").exists()] == []


def test_import_rules_hold() -> None:
    root = Path(__file__).parents[3]
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [linter, "--no-cache"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NO_COLOR": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
