"""The console's themes. Series colours are theme variables, so that a backend has one colour everywhere.

`series-native` and `series-ollama` are for what belongs to a backend; `series-1` to `series-7` are what
charts take in order where nothing else is said, and begin with the two backends.

The series colours are Okabe and Ito's ("Color Universal Design", 2008); on light ground and for high contrast
their darker and lighter neighbours, which keep the hues apart.
"""

from __future__ import annotations

from typing import Final

from textual.theme import Theme

DEFAULT_THEME: Final = "embedctl-dark"

THEMES: Final = (
    Theme(
        name="embedctl-dark",
        primary="#56B4E9",
        secondary="#7A8CA3",
        accent="#F0B840",
        warning="#F0B840",
        error="#FF6B5E",
        success="#3DBE8B",
        foreground="#DCE3EA",
        background="#10151B",
        surface="#171E26",
        panel="#202A34",
        dark=True,
        variables={
            "series-1": "#56B4E9",
            "series-2": "#E69F00",
            "series-3": "#3DBE8B",
            "series-4": "#CC79A7",
            "series-5": "#F0E442",
            "series-6": "#E8703A",
            "series-7": "#9AA7B4",
            "series-native": "#56B4E9",
            "series-native-p95": "#2C7FB0",
            "series-native-probe": "#B5DEF7",
            "series-ollama": "#E69F00",
            "series-ollama-p95": "#A87400",
            "series-ollama-probe": "#FFD98A",
            "series-gpu": "#9AA7B4",
            "series-other": "#CC79A7",
            "text-muted": "#8797A7",
            "demo": "#CC79A7",
            "border": "#33414F",
            "border-blurred": "#33414F",
            "block-cursor-foreground": "#10151B",
            "block-cursor-background": "#56B4E9",
            "footer-key-foreground": "#F0B840",
        },
    ),
    Theme(
        name="embedctl-light",
        primary="#0072B2",
        secondary="#5A6672",
        accent="#A34400",
        warning="#8A5A00",
        error="#B3261E",
        success="#006B4F",
        foreground="#1B232B",
        background="#F7F9FB",
        surface="#EDF1F5",
        panel="#DFE6EC",
        dark=False,
        variables={
            "series-1": "#0072B2",
            "series-2": "#C04F00",
            "series-3": "#00805F",
            "series-4": "#A0447A",
            "series-5": "#7A6A00",
            "series-6": "#B3261E",
            "series-7": "#5A6672",
            "series-native": "#0072B2",
            "series-native-p95": "#004B76",
            "series-native-probe": "#4A9CCB",
            "series-ollama": "#C04F00",
            "series-ollama-p95": "#7F3400",
            "series-ollama-probe": "#DD8A50",
            "series-gpu": "#5A6672",
            "series-other": "#A0447A",
            "text-muted": "#55616D",
            "demo": "#A0447A",
            "border": "#B4C0CB",
            "border-blurred": "#B4C0CB",
            "block-cursor-foreground": "#FFFFFF",
            "block-cursor-background": "#0072B2",
            "footer-key-foreground": "#A34400",
        },
    ),
    Theme(
        name="embedctl-contrast",
        primary="#7FD4FF",
        secondary="#FFFFFF",
        accent="#FFE600",
        warning="#FFE600",
        error="#FF8080",
        success="#5CFFB0",
        foreground="#FFFFFF",
        background="#000000",
        surface="#000000",
        panel="#1C1C1C",
        dark=True,
        text_alpha=1.0,
        variables={
            "series-1": "#7FD4FF",
            "series-2": "#FFB000",
            "series-3": "#5CFFB0",
            "series-4": "#FF9CD2",
            "series-5": "#FFFF7A",
            "series-6": "#FF8A5C",
            "series-7": "#FFFFFF",
            "series-native": "#7FD4FF",
            "series-native-p95": "#2FA8EE",
            "series-native-probe": "#D5F1FF",
            "series-ollama": "#FFB000",
            "series-ollama-p95": "#D98A00",
            "series-ollama-probe": "#FFE09A",
            "series-gpu": "#FFFFFF",
            "series-other": "#FF9CD2",
            "demo": "#FF9CD2",
            "border": "#FFFFFF",
            "border-blurred": "#BBBBBB",
            "text-muted": "#E0E0E0",
            "block-cursor-foreground": "#000000",
            "block-cursor-background": "#FFE600",
            "footer-key-foreground": "#FFE600",
        },
    ),
)


def next_theme(current: str) -> str:
    """The name of the theme after `current`, in a circle; the first one for a theme that is not ours."""
    names = [theme.name for theme in THEMES]
    return names[(names.index(current) + 1) % len(names)] if current in names else names[0]
