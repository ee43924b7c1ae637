"""Judging the environment's variables: names that nobody reads, and values that are known to harm. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Final

from embedctl.records import Finding, Severity

TOPIC: Final = "environment"
PREFIX: Final = "EMBEDCTL_"
OTHERS: Final = frozenset({"EMBEDCTL_HOME", "EMBEDCTL_API_KEY", "EMBEDCTL_TEST_MODEL"})
"""Variables of ours that are no settings."""


def check_environment(
    environment: Mapping[str, str],
    settings: Mapping[str, Collection[str]],
    *,
    unified_memory: bool | None,
    ollama_here: bool,
) -> list[Finding]:
    """Values are not shown: a misspelt name may hold a secret.

    Args:
        settings: The names in each section.
        unified_memory: Whether CPU and GPU share one pool; None: not known.
        ollama_here: The Ollama server runs on this machine, perhaps under this environment.
    """
    names = {
        f"{PREFIX}{section}__{name}".upper() for section, fields in settings.items() for name in fields
    } | {f"{PREFIX}{section}".upper() for section in settings}
    found = [
        Finding(
            TOPIC,
            f"{variable} has no effect",
            Severity.WARNING,
            "nobody reads a variable of that name; a setting is EMBEDCTL_SECTION__NAME with two underscores",
            _remedy(variable, names | OTHERS),
        )
        for variable in sorted(environment)
        if variable.startswith(PREFIX) and variable.upper() not in names | OTHERS
    ]
    library = environment.get("OLLAMA_LLM_LIBRARY", "")
    if ollama_here and unified_memory is not False and library.strip().lower() == "cuda":
        found.append(
            Finding(
                TOPIC,
                "OLLAMA_LLM_LIBRARY=cuda keeps Ollama on the CPU on a DGX Spark",
                Severity.WARNING,
                "a server that is started with it finds no library of that name for this GPU",
                "unset it for the server, or set it to cuda_v13",
            )
        )
    return found


def _remedy(variable: str, names: Collection[str]) -> str:
    close = difflib.get_close_matches(variable.upper(), names, n=1, cutoff=0.8)
    return f"did you mean {close[0]}?" if close else "unset it; `embedctl config show` lists all settings"
