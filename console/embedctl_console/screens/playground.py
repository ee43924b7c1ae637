"""The Playground: what the model and the backends make of a few texts that the user types or pastes."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from textual import events, on
from textual.binding import BindingType
from textual.containers import Container, Vertical, VerticalScroll
from textual.content import Content
from textual.markup import escape
from textual.widgets import TextArea

from embedctl.errors import Cancelled, EmbedctlError
from embedctl.progress import CancelToken
from embedctl.records import Nearest
from embedctl.similarity import cosine_matrix
from embedctl_console.actions import bindings_of
from embedctl_console.screens.base import ConsoleScreen
from embedctl_console.screens.playground_findings import EXAMPLES, MOST_TEXTS, Findings, texts_in
from embedctl_console.screens.playground_passages import PassagesDialog, read_passages
from embedctl_console.screens.playground_pieces import tokens_text
from embedctl_console.screens.playground_text import (
    LOADABLE,
    about_text,
    cosines_text,
    empty_text,
    nearest_text,
    passages_text,
    vectors_text,
)
from embedctl_console.screens.playground_work import look, search
from embedctl_console.screens.reading import ReadingScreen
from embedctl_console.state import Topic
from embedctl_console.tasks import run_in_thread
from embedctl_console.widgets.matrix import CosineMatrix
from embedctl_console.widgets.text import Text, busy_text, failure_text
from embedctl_console.widgets.texts import TextsArea

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.widget import Widget
    from textual.worker import Worker

    from embedctl.records import BackendName, EmbedResult
    from embedctl_console.state import ConsoleState

_VIEWS: Final = {"pieces": "Pieces", "vectors": "Vectors", "cosines": "Cosines", "passages": "Passages"}
_ALL_FROM: Final = (120, 32)
"""Columns and rows from which on all views have room beside each other."""


class PlaygroundScreen(ConsoleScreen):
    """Embeds when asked to, never while keys are pressed; texts stay in this process and the engine's."""

    WHERE = "playground"
    CSS_PATH = "playground.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of("playground")]

    def __init__(self) -> None:
        super().__init__()
        self._found: Findings | None = None
        self._problem: EmbedctlError | None = None
        self._busy = ""
        """What runs, in words."""
        self._since = 0.0
        """When it began, by the console's clock."""
        self._stopped = False
        self._cancel = CancelToken()
        self._worker: Worker[None] | None = None
        self._view = next(iter(_VIEWS))
        self._chosen: BackendName | None = None
        """Whose cosines and passages are shown, if the user has said so."""
        self._passages: tuple[str, ...] | None = None
        """The user's own; None: the built-in ones."""
        self._drawn: dict[str, tuple[object, int]] = {}
        """By view, the record that was drawn last, and at which width: many texts take their time."""
        self._in_matrix: EmbedResult | None = None

    def compose_body(self) -> ComposeResult:
        yield TextsArea(id="texts", placeholder="one text a line", highlight_cursor_line=False)
        yield Text(id="told")
        yield Text(id="tabs")
        with Container(id="views"):
            for name in _VIEWS:
                if name == "cosines":
                    with Vertical(id=name, classes="view"):
                        yield Text(id=f"{name}-text")
                        yield CosineMatrix(id="matrix")
                else:
                    with VerticalScroll(id=name, classes="view"):
                        yield Text(id=f"{name}-text")

    def on_mount(self) -> None:
        self._area.border_title = "Texts"
        for name, title in _VIEWS.items():
            self.query_one(f"#{name}").border_title = title
        self._ticking = self.set_interval(1.0, self._show_told, pause=True)
        self._area.focus()

    def on_unmount(self) -> None:
        self._cancel.cancel()

    @property
    def _area(self) -> TextArea:
        return self.query_one("#texts", TextArea)

    # What is shown

    def show_state(self, state: ConsoleState, changed: Topic) -> None:
        if changed & Topic.BACKENDS:
            self._show()

    def on_resize(self) -> None:
        self._redraw()

    @on(events.DescendantFocus)
    @on(events.DescendantBlur)
    def _focus_moved(self) -> None:
        if self.is_current:
            self._show()  # keys are named otherwise while a text is typed

    @property
    def _together(self) -> bool:
        width, height = self.app.size
        return width >= _ALL_FROM[0] and height >= _ALL_FROM[1]

    def _arrange(self) -> None:
        """All views beside each other where there is room, else the one that was chosen."""
        together, there = self._together, self._found is not None
        self.query_one("#views").set_class(together, "-all")
        self.query_one("#views").display = there
        self.query_one("#tabs").display = there and not together
        for name in _VIEWS:
            self.query_one(f"#{name}").display = together or name == self._view

    def _redraw(self) -> None:
        """Everything, once the views have the widths that they will have."""
        self._arrange()
        self.call_after_refresh(self._show)

    def _show(self) -> None:
        self._show_told()
        if self._found is None:
            return
        self._show_tabs()
        for name, (source, say) in self._views(self._found).items():
            text = self.query_one(f"#{name}-text", Text)
            width = text.size.width
            drawn, at_width = self._drawn.get(name, (None, 0))
            if width and (source is None or source is not drawn or width != at_width):  # 0: not to be seen
                self._drawn[name] = source, width
                text.show(say(width))
        self._show_matrix(self._found)
        self.refresh_bindings()

    def _views(self, found: Findings) -> dict[str, tuple[object, Callable[[int], Content]]]:
        """By view, the record that alone decides what it says (None: there is more), and its text."""
        state = self.console.state
        assert state is not None
        backends = state.status.backends
        name, tokens = self._backend(found), found.tokens
        nearest = found.nearest.get(name) if name is not None else None
        return {
            "pieces": (
                tokens,
                lambda width: Content("") if tokens is None else tokens_text(found.texts, tokens, width),
            ),
            "vectors": (None, lambda width: vectors_text(found, backends, width, self._key)),
            "cosines": (None, lambda _: cosines_text(name, busy=bool(self._busy))),
            "passages": (
                nearest,
                lambda width: passages_text(
                    found.texts, name, nearest, width, busy=bool(self._busy), key=self._key
                ),
            ),
        }

    def _show_told(self) -> None:
        state = self.console.state
        assert state is not None
        rows: list[Content] = []
        if self._busy:
            passed = self.console.clock() - self._since
            rows.append(busy_text(self._busy, passed, self._key("playground.leave")))
        if self._problem is not None:
            rows.append(failure_text(self._problem.what, self._problem.why, self._problem.remedy))
        if self._found is None:
            rows.append(empty_text(state.status.backends, self._key))
        elif not self._busy:
            stale = texts_in(self._area.text)[:MOST_TEXTS] != self._found.texts
            rows.append(about_text(self._found, stale=stale, stopped=self._stopped, key=self._key))
        self.query_one("#told", Text).show(Content("\n").join(rows))

    def _show_tabs(self) -> None:
        tabs = " ".join(
            f"[{'bold reverse' if name == self._view else '$text-muted'} @click=screen.view('{name}')]"
            f" {escape(title)} [/]"
            for name, title in _VIEWS.items()
        )
        self.query_one("#tabs", Text).show(Content.from_markup(tabs))

    def _show_matrix(self, found: Findings) -> None:
        name = self._backend(found)
        answer = found.answer(name) if name is not None else None
        matrix = self.query_one(CosineMatrix)
        matrix.display = answer is not None
        if answer is not None and answer is not self._in_matrix:
            self._in_matrix = answer
            charset = self.console.engine.settings.console.charset
            matrix.show(found.texts, cosine_matrix(answer.vectors, answer.vectors), charset)

    def _nearest(self) -> Nearest | None:
        """The passages that are shown."""
        if self._found is None:
            return None
        nearest = self._found.nearest.get(self._backend(self._found) or "")
        return nearest if isinstance(nearest, Nearest) else None

    def _backend(self, found: Findings) -> BackendName | None:
        """Whose cosines and passages are shown: the chosen backend, else the active one, else any."""
        state = self.console.state
        assert state is not None
        wanted = (self._chosen, state.status.active, *found.answered)
        return next((name for name in wanted if name in found.answered), None)

    def _key(self, action_id: str) -> str:
        """A key as it has to be pressed now: while a text is typed, letters are typed too."""
        state = self.console.state
        assert state is not None
        key = state.key(action_id)
        return f"esc {key}" if len(key) == 1 and self._area.has_focus else key

    @on(TextArea.Changed)
    def _typed(self) -> None:
        if self._found is not None:
            self._show_told()

    def on_paste(self, event: events.Paste) -> None:
        """A paste goes into the texts wherever the focus is."""
        if not self._area.has_focus:
            event.stop()
            self._area.focus()
            self._area.insert(event.text)

    # The work

    def _start(self, work: Callable[[CancelToken], Coroutine[None, None, None]]) -> None:
        """Let `work` run in place of what runs."""
        self._cancel.cancel()
        self._cancel = cancel = CancelToken()
        self._problem, self._stopped = None, False
        self._since = self.console.clock()
        self._ticking.resume()
        self._worker = self.run_worker(self._guarded(work, cancel), group="playground", exclusive=True)

    async def _guarded(
        self, work: Callable[[CancelToken], Coroutine[None, None, None]], cancel: CancelToken
    ) -> None:
        try:
            await work(cancel)
        except Cancelled:
            pass
        except EmbedctlError as error:
            if self._cancel is cancel:
                self._problem = error
        finally:
            if self._cancel is cancel:
                self._busy = ""
                self._ticking.pause()
                self._redraw()

    def _say(self, busy: str) -> None:
        self._busy = busy
        self._redraw()

    async def _look(self, found: Findings, cancel: CancelToken) -> None:
        state = self.console.state
        assert state is not None
        ready = [status.name for status in state.status.backends if state.ready(status.name)]
        await look(self.console.engine, found, ready, self._say, cancel)
        await self._search(found, cancel)

    async def _search(self, found: Findings, cancel: CancelToken) -> None:
        name = self._backend(found)
        answer = found.answer(name) if name is not None else None
        if answer is not None:
            await search(self.console.engine, found, answer, self._passages, self._say, cancel)

    def _search_again(self) -> None:
        found = self._found
        if found is not None:
            self._start(lambda cancel: self._search(found, cancel))

    # Actions

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "next_view":
            return self._found is not None
        if action == "other_backend":
            return self._found is not None and len(self._found.answered) > 1
        if action == "read":
            return self._nearest() is not None
        if action == "edit":
            return not self._area.has_focus
        if action == "leave":
            return bool(self._busy) or self._area.has_focus
        return super().check_action(action, parameters)

    def action_run(self) -> None:
        if not texts_in(self._area.text):
            self._area.text = "\n".join(EXAMPLES)
        texts = texts_in(self._area.text)
        self._found = found = Findings(texts[:MOST_TEXTS], max(0, len(texts) - MOST_TEXTS))
        self._start(lambda cancel: self._look(found, cancel))

    def action_leave(self) -> None:
        """Stop what runs; else give the keys to the view."""
        if self._busy:
            self._stopped = True
            self._cancel.cancel()
            if self._worker is not None:
                self._worker.cancel()  # also where the call takes no notice
        elif self._area.has_focus:
            self.set_focus(self._shown_view())

    def action_edit(self) -> None:
        self._area.focus()

    def action_next_view(self) -> None:
        names = list(_VIEWS)
        self.action_view(names[(names.index(self._view) + 1) % len(names)])

    def action_view(self, name: str) -> None:
        """Show a view, and let the keys scroll it unless a text is typed; where all are shown, go to it."""
        self._view = name
        self._redraw()
        if self._together or not self._area.has_focus:
            self.set_focus(self._shown_view())

    def _shown_view(self) -> Widget | None:
        if self._found is None:
            return None
        return self.query_one(CosineMatrix) if self._view == "cosines" else self.query_one(f"#{self._view}")

    def action_other_backend(self) -> None:
        found = self._found
        if found is None:
            return
        shown = self._backend(found)
        self._chosen = next((name for name in found.answered if name != shown), shown)
        if self._chosen in found.nearest:
            self._show()
        else:
            self._search_again()

    def action_load_missing(self) -> None:
        state, engine = self.console.state, self.console.engine
        assert state is not None
        missing = next((one.name for one in state.status.backends if one.state in LOADABLE), None)
        if missing is not None:
            self.console.jobs.start(lambda: engine.load(missing))

    def action_read(self) -> None:
        found = self._found
        nearest = self._nearest()
        if found is not None and nearest is not None:
            texts = found.texts
            self.app.push_screen(ReadingScreen(lambda width: nearest_text(texts, nearest, width, whole=True)))

    def action_passages(self) -> None:
        self.app.push_screen(PassagesDialog(), self._take_passages)

    def _take_passages(self, path: str | None) -> None:
        if path is not None:
            self.run_worker(self._read_passages(path), group="passages", exclusive=True)

    async def _read_passages(self, path: str) -> None:
        try:
            self._passages = await run_in_thread(read_passages, Path(path)) if path else None
        except EmbedctlError as error:
            self.console.report(error)
            return
        if self._found is not None:
            self._found.nearest.clear()
        self._search_again()
