"""How well a backend does: a judgement over what was seen, and alerts when it changes for long."""
