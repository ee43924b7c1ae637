"""What outlives the program, in SQLite; `SCHEMA.md` describes the file."""

from embedctl.store.export import ExportRow, Figure
from embedctl.store.store import Store

__all__ = ["ExportRow", "Figure", "Store"]
