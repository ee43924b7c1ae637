"""The engine: it alone wires the parts together."""

from embedctl.engine.facade import EngineFacade, JobHandle

__all__ = ["EngineFacade", "JobHandle"]
