"""What the user can sensibly do next, from what is there. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from embedctl.format import format_bytes
from embedctl.records import BackendState, BackendStatus
from embedctl_console.state import ConsoleState

_LOADABLE = (BackendState.UNLOADED, BackendState.FAILED)


@dataclass(frozen=True, slots=True)
class NextStep:
    """One line of advice; `key` is empty when there is nothing to press."""

    key: str
    text: str


def next_step(state: ConsoleState) -> NextStep:
    """The next step towards a loaded, measured backend. What runs now comes before all else but the line."""
    link = state.connection
    if link is not None and not link.connected:
        waits = f"no word from {link.where}; what stands here is of before"
        return NextStep("", f"{link.remedy} · {waits}" if link.remedy else waits)
    job = state.running()
    if job is not None:
        return NextStep(state.key("everywhere.cancel"), f"cancels: {job.title}")
    load = state.key("everywhere.load")
    failed = _first(state, BackendState.FAILED)
    if failed is not None:
        return NextStep(load, f"loads {failed.name} again · {failed.remedy or failed.detail}")
    if not state.any_ready:
        return _towards_loading(state)
    return _towards_using(state)


def _towards_loading(state: ConsoleState) -> NextStep:
    load = state.key("everywhere.load")
    native, ollama = state.backend("native"), state.backend("ollama")
    if native is not None and native.state in _LOADABLE:
        return NextStep(load, f"loads {native.model or 'the model'} into the native backend")
    if ollama is not None and ollama.state is BackendState.UNLOADED and state.status.active == "ollama":
        return NextStep(load, "loads ollama, once its card has the focus (tab)")
    if native is not None and native.state is BackendState.MODEL_MISSING:
        return NextStep(
            state.key("dashboard.models"), f"shows what there is to download: {_model_words(state, native)}"
        )
    if ollama is not None and ollama.state is BackendState.UNLOADED:
        return NextStep(
            state.key("everywhere.switch"),
            f"switches to ollama, which has {ollama.model or 'the model'} here",
        )
    if ollama is not None and ollama.state is BackendState.MODEL_MISSING:
        return NextStep(
            state.key("everywhere.show-models"),
            f"opens Models, where {state.key('models.pull')} pulls the model into Ollama",
        )
    return NextStep(
        state.key("everywhere.show-doctor"), "opens Doctor: no backend can be used yet, it says why"
    )


def _towards_using(state: ConsoleState) -> NextStep:
    active = state.status.active
    if not state.ready(active):
        other = _first(state, BackendState.READY)
        name = other.name if other else "the other backend"
        return NextStep(
            state.key("everywhere.switch"), f"switches to {name}: {active} is active and not loaded"
        )
    others = [status for status in state.status.backends if status.name != active]
    usable = [s.name for s in others if s.state in (BackendState.READY, BackendState.UNLOADED)]
    if not usable:
        return NextStep(state.key("everywhere.benchmark"), f"measures {active}")
    standing = state.standing
    if standing is not None and (standing.check is None or standing.changes):
        again = "again " if standing.check is not None else ""
        return NextStep(state.key("everywhere.check"), f"asks {again}whether it is safe to switch")
    if "benchmark" in state.ended:
        return NextStep(state.key("everywhere.show-benchmarks"), "opens Benchmarks: the last run is there")
    return NextStep(
        state.key("everywhere.benchmark"),
        f"compares {active} and {usable[0]} · {state.key('everywhere.switch')} switches between them",
    )


def _first(state: ConsoleState, wanted: BackendState) -> BackendStatus | None:
    return next((status for status in state.status.backends if status.state is wanted), None)


def _model_words(state: ConsoleState, native: BackendStatus) -> str:
    model = state.model
    repo = model.repo if model else native.model or "the model"
    missing = model.missing_bytes if model else None
    return f"{repo}, {format_bytes(missing)}" if missing else repo
