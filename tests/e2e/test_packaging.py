"""The wheel as users get it: what it holds, and that it works where the checkout was never seen."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from email.parser import Parser
from pathlib import Path

import pytest

import embedctl

# Seconds from uv's cache; a machine whose cache is empty has gigabytes to fetch first.
pytestmark = pytest.mark.timeout(900)

ROOT = Path(__file__).parents[2]
SOURCES = {"embedctl": ROOT / "core" / "embedctl", "embedctl_console": ROOT / "console" / "embedctl_console"}
TEXTS = ROOT / "assets" / "texts"

_BROUGHT_ALONG = {"triton"}
"""Imported only where torch brought it."""


def _find_uv() -> list[str] | None:
    """The command that is uv; None where there is none (a shim without a program behind it is none)."""
    candidates = [[path] for path in (os.environ.get("UV"), shutil.which("uv")) if path]
    if importlib.util.find_spec("uv"):
        candidates.insert(1, [sys.executable, "-m", "uv"])
    for candidate in candidates:
        try:
            if subprocess.run([*candidate, "--version"], capture_output=True, check=False).returncode == 0:
                return candidate
        except OSError:
            continue
    return None


@pytest.fixture(scope="module")
def uv() -> Callable[..., str]:
    """Runs uv, at first with what its cache holds alone; gives stdout."""
    found = _find_uv()
    if found is None:
        pytest.skip("there is no uv: neither UV, nor `python -m uv`, nor uv on PATH")

    def run(*words: str | Path, cwd: Path = ROOT) -> str:
        for network in (["--offline"], []):
            done = subprocess.run(
                [*found, *network, *words], cwd=cwd, capture_output=True, text=True, check=False
            )
            if done.returncode == 0:
                return done.stdout
        raise AssertionError(f"uv {' '.join(map(str, words))}\n{done.stderr}")

    return run


@pytest.fixture(scope="module")
def wheel(uv: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("dist")
    uv("build", "--wheel", "--out-dir", target)
    [built] = target.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> dict[str, list[str]]:
    """The wheel's own description of itself: all values by field."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = [entry for entry in archive.namelist() if entry.endswith(".dist-info/METADATA")]
        message = Parser().parsestr(archive.read(name).decode())
    return {key: message.get_all(key) or [] for key in set(message.keys())}


@pytest.fixture(scope="module")
def installed(
    uv: Callable[..., str], wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A fresh environment with the wheel and the locked dependencies, none of the group for development."""
    folder = tmp_path_factory.mktemp("clean")
    environment, locked = folder / "venv", folder / "locked.txt"
    uv(
        "export",
        "--quiet",
        "--frozen",
        "--no-dev",
        "--no-emit-project",
        "--no-hashes",
        "--output-file",
        locked,
    )
    uv("venv", "--quiet", "--python", sys.executable, environment)
    python = environment / "bin" / "python"
    uv(
        "pip",
        "install",
        "--quiet",
        "--python",
        python,
        "--no-deps",
        "--requirements",
        locked,
        wheel,
        cwd=folder,
    )
    uv("pip", "check", "--python", python, cwd=folder)
    yield environment
    shutil.rmtree(environment)


@pytest.fixture
def run(installed: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a program of the fresh environment, away from the checkout."""

    def call(program: str, *words: str) -> subprocess.CompletedProcess[str]:
        clean = {
            name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")
        }
        return subprocess.run(
            [installed / "bin" / program, *words],
            cwd=tmp_path,
            env=clean,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return call


# What is in it -------------------------------------------------------------------------------------------


def test_every_file_of_both_packages_is_in_the_wheel_and_nothing_else(names: set[str]) -> None:
    expected = {
        f"{package}/{file.relative_to(folder).as_posix()}"
        for package, folder in SOURCES.items()
        for file in folder.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    expected |= {
        f"embedctl/_assets/texts/{file.relative_to(TEXTS).as_posix()}"
        for file in TEXTS.rglob("*")
        if file.is_file()
    }
    held = {name for name in names if ".dist-info/" not in name}
    assert held == expected


def test_the_files_that_no_import_would_miss_are_there(names: set[str]) -> None:
    for package in SOURCES:
        assert f"{package}/py.typed" in names
    assert "embedctl/store/SCHEMA.md" in names
    assert "embedctl/_assets/texts/ATTRIBUTION.md" in names
    assert "embedctl_console/app.tcss" in names


def test_nothing_of_the_tests_or_the_checkout_slips_in(names: set[str]) -> None:
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(SOURCES)
    ours = {name for name in names if not name.endswith("/qrels/test.tsv")}  # BEIR's name for judgements
    assert [name for name in ours if "test" in name.lower() or "__pycache__" in name] == []


def test_licence_version_and_entry_point_are_stated(
    wheel: Path, names: set[str], metadata: dict[str, list[str]]
) -> None:
    info = f"embedctl-{embedctl.__version__}.dist-info"
    assert metadata["Version"] == [embedctl.__version__]
    assert metadata["License-Expression"] == ["Apache-2.0"]
    assert metadata["Requires-Python"] == [">=3.11"]
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read(f"{info}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
        assert b"embedctl = embedctl.cli.entry:main" in archive.read(f"{info}/entry_points.txt")
        assert archive.read(f"{info}/WHEEL").count(b"Tag: py3-none-any") == 1


def test_everything_imported_is_a_declared_dependency(metadata: dict[str, list[str]]) -> None:
    """A package that only another one brings along may go with that one's next version."""
    declared = {re.split(r"[ ;<>=!~\[]", line)[0] for line in metadata["Requires-Dist"]}
    providers = importlib.metadata.packages_distributions()
    own = sys.stdlib_module_names | set(SOURCES) | _BROUGHT_ALONG
    undeclared = {
        root: sorted(providers.get(root, ()))
        for folder in SOURCES.values()
        for file in folder.rglob("*.py")
        for root in _imported_roots(file)
        if root not in own
        and not {name.lower().replace("_", "-") for name in providers.get(root, ())} & declared
    }
    assert undeclared == {}


def _imported_roots(file: Path) -> set[str]:
    roots = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            roots.add(node.module.split(".")[0])
    return roots


# That it works -------------------------------------------------------------------------------------------


def test_the_command_tells_its_version_and_its_commands(
    run: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    version = run("embedctl", "--version")
    assert (version.returncode, version.stderr) == (0, "")
    assert embedctl.__version__ in version.stdout
    helped = run("embedctl", "--help")
    assert helped.returncode == 0, helped.stderr
    assert {"bench", "config", "doctor", "models", "switch"} <= set(helped.stdout.split())


def test_settings_are_found_without_the_checkout(
    run: Callable[..., subprocess.CompletedProcess[str]], home: Path
) -> None:
    told = run("embedctl", "config", "path")
    assert (told.returncode, told.stdout.strip()) == (0, str(home / "config.toml")), told.stderr


def test_the_built_in_texts_come_out_of_the_package(
    run: Callable[..., subprocess.CompletedProcess[str]], installed: Path
) -> None:
    script = (
        "from embedctl.lab.workloads import assets_folder, built_in\n"
        "print(assets_folder())\nprint(built_in().label)"
    )
    done = run("python", "-c", script)
    assert done.returncode == 0, done.stderr
    folder, label = done.stdout.splitlines()
    assert Path(folder).is_relative_to(installed.resolve())
    from embedctl.lab.workloads import built_in

    assert label == built_in().label


def test_the_console_opens_its_modules_without_the_checkout(
    run: Callable[..., subprocess.CompletedProcess[str]], installed: Path
) -> None:
    script = "import embedctl_console.app as app; print(app.__file__)"
    done = run("python", "-c", script)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(installed)


def test_the_demo_says_which_extra_it_lacks(run: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = run("embedctl", "--demo", "status")
    assert done.returncode == 2
    assert "embedctl[demo]" in done.stderr
    assert "Traceback" not in done.stderr
