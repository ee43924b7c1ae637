"""The Textual console over the embedctl engine."""
