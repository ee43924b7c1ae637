"""The console's screens by name, each imported only when it is first shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from textual.screen import Screen


def screen_maker(name: str, clock: Callable[[], float]) -> Callable[[], Screen[None]]:
    """What `App.add_mode` takes for a screen of `SCREENS`; `clock` tells the present, in Unix seconds."""

    def make() -> Screen[None]:
        if name == "dashboard":
            from embedctl_console.screens.dashboard import DashboardScreen

            return DashboardScreen()
        if name == "models":
            from embedctl_console.screens.models import ModelsScreen

            return ModelsScreen()
        if name == "benchmarks":
            from embedctl_console.screens.benchmarks import BenchmarksScreen

            return BenchmarksScreen()
        if name == "history":
            from embedctl_console.screens.history import HistoryScreen

            return HistoryScreen(clock=clock)
        if name == "check":
            from embedctl_console.screens.check import CheckScreen

            return CheckScreen()
        if name == "quality":
            from embedctl_console.screens.quality import QualityScreen

            return QualityScreen()
        if name == "settings":
            from embedctl_console.screens.settings import SettingsScreen

            return SettingsScreen()
        if name == "doctor":
            from embedctl_console.screens.doctor import DoctorScreen

            return DoctorScreen()
        if name == "playground":
            from embedctl_console.screens.playground import PlaygroundScreen

            return PlaygroundScreen()
        from embedctl_console.screens.help import HelpScreen

        return HelpScreen()

    return make
