"""Runs as files to carry about: gzipped JSON with everything in it, and a hash over it.

    {"format": "embedctl-run", "schema_version": 1, "embedctl": "0.2.0", "sha256": "…", "run": {…}}

`sha256` is that of the run as JSON with sorted keys and without blanks (`json.dumps(run, sort_keys=True,
separators=(",", ":"), ensure_ascii=False)`, UTF-8). Absent figures are null; readings that are not numbers
(a block that failed) are null, too.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import zlib
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Final

from embedctl.errors import UsageError
from embedctl.records import Run
from embedctl.version import __version__

FORMAT: Final = "embedctl-run"
SCHEMA_VERSION: Final = 1
_MOST_BYTES: Final = 512 * 1024**2
"""Of unpacked JSON. The raw data of a thorough run are some 10 MiB."""


def export_run(run: Run, target: Path) -> None:
    """Write a run to a file, replacing it only when whole.

    Raises:
        UsageError: It cannot be written.
    """
    plain = _plain(run)
    document = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "embedctl": __version__,
        "sha256": _digest(plain),
        "run": plain,
    }
    packed = gzip.compress(json.dumps(document, ensure_ascii=False).encode(), mtime=0)
    try:
        if target.is_symlink() or (target.exists() and not target.is_file()):
            target.write_bytes(packed)  # never replace a link or a device
            return
        part = target.with_name(f".{target.name}.part")
        try:
            part.write_bytes(packed)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(
            f"{target} was not written", why=error.strerror or str(error), remedy="choose another place"
        ) from error


def import_run(source: Path) -> Run:
    """Read a run from a file; its id is the one that it had where it was exported.

    Raises:
        UsageError: The file cannot be read, is no bundle, is damaged, or of a newer schema.
    """
    from pydantic import TypeAdapter, ValidationError

    document = _document(source)
    plain = document.get("run")
    if _digest(plain) != document.get("sha256"):
        raise _refused(source, "its content does not have the hash that it states")
    try:
        run: Run = TypeAdapter(Run).validate_python(_with_nan(plain))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _refused(source, f"{where}: {first['msg']}") from error
    return run


def _document(source: Path) -> dict[str, Any]:
    try:
        with gzip.open(source) as stream:
            text = stream.read(_MOST_BYTES + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise _refused(source, "it is no gzip file, or was cut short") from error
    except OSError as error:
        raise UsageError(
            f"{source} cannot be read", why=error.strerror or str(error), remedy="check the path"
        ) from error
    if len(text) > _MOST_BYTES:
        raise _refused(source, f"it unpacks to more than {_MOST_BYTES // 1024**2} MiB")
    try:
        document = json.loads(text)
    except ValueError as error:
        raise _refused(source, "it holds no JSON") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise _refused(source, "it is no run of embedctl")
    schema = document.get("schema_version")
    if not isinstance(schema, int) or schema < 1:
        raise _refused(source, "it states no schema version")
    if schema > SCHEMA_VERSION:
        raise UsageError(
            f"{source} was not read",
            why=f"it has schema version {schema}, this embedctl knows {SCHEMA_VERSION}",
            remedy="update embedctl",
        )
    return document


def _refused(source: Path, why: str) -> UsageError:
    return UsageError(f"{source} was not read", why=why, remedy="export the run again")


def _digest(plain: object) -> str:
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: object) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _with_nan(plain: Any) -> Any:
    """The run with its null readings as NaN again; other nulls are absent figures and stay."""
    for row in plain.get("measurements", ()) if isinstance(plain, dict) else ():
        if isinstance(row, dict) and isinstance(row.get("series"), dict):
            row["series"] = {
                name: [math.nan if reading is None else reading for reading in readings]
                for name, readings in row["series"].items()
            }
    return plain
