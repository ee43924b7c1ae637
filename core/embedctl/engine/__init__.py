"""The engine: it alone wires the parts together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedctl.engine.facade import EngineFacade, JobHandle

if TYPE_CHECKING:
    from embedctl.engine.opening import open_engine

__all__ = ["EngineFacade", "JobHandle", "open_engine"]


def __getattr__(name: str) -> object:
    # The console imports the façade for its first paint; what makes an engine costs start-up time.
    if name == "open_engine":
        from embedctl.engine.opening import open_engine

        return open_engine
    raise AttributeError(name)
