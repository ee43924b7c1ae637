from __future__ import annotations

import pytest

from embedctl.doctor.environment_checks import check_environment
from embedctl.records import Finding
from embedctl.settings import setting_names

SETTINGS = {"native": ("dtype", "batch_size"), "engine": ("backend",)}


def check(
    environment: dict[str, str], *, unified: bool | None = True, ollama_here: bool = True
) -> list[Finding]:
    return check_environment(environment, SETTINGS, unified_memory=unified, ollama_here=ollama_here)


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("EMBEDCTL_NATVE__DTYPE", "EMBEDCTL_NATIVE__DTYPE"),
        ("EMBEDCTL_NATIVE_DTYPE", "EMBEDCTL_NATIVE__DTYPE"),
        ("EMBEDCTL_API_KEYS", "EMBEDCTL_API_KEY"),
    ],
)
def test_a_misspelt_variable_is_named_with_what_was_meant_and_without_its_value(
    variable: str, meant: str
) -> None:
    [found] = check({variable: "a secret"})
    assert found.title == f"{variable} has no effect"
    assert found.remedy == f"did you mean {meant}?"
    assert "a secret" not in repr(found)


def test_a_variable_like_nothing_we_know_gets_no_guess() -> None:
    [found] = check({"EMBEDCTL_COLOUR": "green"})
    assert "config show" in found.remedy


def test_what_is_read_and_what_is_somebody_elses_is_fine() -> None:
    ours = ("EMBEDCTL_NATIVE__DTYPE", "EMBEDCTL_NATIVE", "EMBEDCTL_HOME", "EMBEDCTL_API_KEY")
    assert check(dict.fromkeys((*ours, "EMBEDDING_BACKEND", "PATH"), "x")) == []


def test_every_setting_of_the_program_is_known() -> None:
    names = setting_names()
    assert "dtype" in names["native"] and "webhook" in names["alerts"]
    variables = [f"EMBEDCTL_{section}__{name}".upper() for section in names for name in names[section]]
    assert (
        check_environment(dict.fromkeys(variables, "x"), names, unified_memory=None, ollama_here=True) == []
    )


@pytest.mark.parametrize(
    ("value", "unified", "here", "warned"),
    [
        ("cuda", True, True, True),
        ("cuda", None, True, True),
        ("cuda", False, True, False),
        ("cuda", True, False, False),
        ("cuda_v13", True, True, False),
        ("", True, True, False),
    ],
)
def test_the_library_that_keeps_ollama_on_the_cpu_is_told_where_it_matters(
    value: str, unified: bool | None, here: bool, warned: bool
) -> None:
    found = check({"OLLAMA_LLM_LIBRARY": value}, unified=unified, ollama_here=here)
    assert bool(found) is warned
