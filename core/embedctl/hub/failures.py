"""What goes wrong between us and the Hub, in words: what happened, why, what to do.

Nothing that the client library says is passed on as it is: its messages may hold signed addresses, and the
token must never appear anywhere.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping
from pathlib import Path

import huggingface_hub
from huggingface_hub import errors as hub_errors

from embedctl.errors import (
    HubError,
    HubGatedError,
    HubNotFoundError,
    HubOfflineError,
    HubRateLimitError,
    HubServerError,
    HubSpaceError,
    HubTokenError,
)

TransportError: type[Exception] = hub_errors.HTTPError  # type: ignore[attr-defined]
"""Base of the HTTP library's errors: httpx under huggingface_hub 1.x, httpx2 under 2.x."""

_USER = re.compile(r"//[^/@]*@")
_RESET = re.compile(r"\bt=(\d+)")
_SPACE_ERRNOS = (errno.ENOSPC, errno.EDQUOT)


class Origin:
    """Where a request went, for the words of an error."""

    def __init__(self, repo: str, revision: str, endpoint: str) -> None:
        self.repo = repo
        self.revision = revision
        self.endpoint = endpoint
        self.shown = _USER.sub("//", endpoint)
        """The endpoint for the eyes: a mirror's address may carry a password."""

    def page(self) -> str:
        return f"{self.shown}/{self.repo}"


def explain(error: Exception, origin: Origin, file: str | None = None) -> HubError:
    """Turn an error of huggingface_hub, its HTTP library or the system into one of ours."""
    if isinstance(error, HubError):
        return error
    if isinstance(error, hub_errors.OfflineModeIsEnabled):
        return HubOfflineError(
            "The Hub was not asked: offline mode is on",
            why="HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) is set",
            remedy="unset it, or use what is in the cache",
        )
    if isinstance(error, hub_errors.HFValidationError):
        return HubNotFoundError(
            f"{origin.repo!r} is no repository name",
            why="a name has the form owner/name, or is a folder that exists",
            remedy="correct the setting model.repo",
        )
    if isinstance(error, hub_errors.HfHubHTTPError):
        return _explain_status(error, origin, file)
    if isinstance(error, TransportError):
        return HubOfflineError(
            f"{origin.shown} cannot be reached",
            why=f"{type(error).__name__}: {clean(str(error))}".rstrip(": "),
            remedy="check the network, a proxy (HTTPS_PROXY) or a mirror (HF_ENDPOINT), then try again",
        )
    if isinstance(error, OSError):
        return explain_system(error)
    return HubServerError(
        f"{origin.shown} does not answer like a Hub",
        why=f"{type(error).__name__} while reading its answer",
        remedy="check HF_ENDPOINT, and whether a login page of the network stands between",
    )


def explain_system(error: OSError) -> HubError:
    """An error of the file system."""
    place = error.filename or "the cache"
    if error.errno in _SPACE_ERRNOS:
        return HubSpaceError(
            "The disk is full",
            why=f"writing {place} failed: {error.strerror}",
            remedy="free some space, or set HF_HOME to a larger disk; what was fetched is kept and resumed",
        )
    return HubError(
        f"{place} cannot be read or written",
        why=error.strerror or type(error).__name__,
        remedy="check its owner and permissions, or set HF_HOME to a folder of yours",
    )


def not_enough_space(needed: int, free: int, place: Path) -> HubSpaceError:
    return HubSpaceError(
        f"The model needs {needed / 1e9:.2f} GB more, the disk has {free / 1e9:.2f} GB free",
        why=f"the cache lies at {place}",
        remedy="free some space, or set HF_HOME to a larger disk",
    )


def clean(text: str) -> str:
    """`text` without the Hub token, on one line, and short."""
    token = huggingface_hub.get_token()
    if token:
        text = text.replace(token, "<token>")
    return " ".join(text.split())[:300]


def _explain_status(error: hub_errors.HfHubHTTPError, origin: Origin, file: str | None) -> HubError:
    response = error.response
    status = response.status_code
    said = clean(response.headers.get("X-Error-Message") or "")
    thing = f"{origin.repo}: {file}" if file else origin.repo
    signed_in = huggingface_hub.get_token() is not None
    if isinstance(error, hub_errors.GatedRepoError):
        return HubGatedError(
            f"{origin.repo} asks for its terms to be accepted first",
            why="the token belongs to an account without access" if signed_in else "no token was sent",
            remedy=f"accept them at {origin.page()}, then set HF_TOKEN to a token of that account",
        )
    if isinstance(error, hub_errors.RevisionNotFoundError):
        return HubNotFoundError(
            f"{origin.repo} has no revision {origin.revision!r}",
            remedy="correct the setting model.revision: a commit, branch or tag of the repository",
        )
    if isinstance(error, hub_errors.EntryNotFoundError):
        return HubNotFoundError(
            f"{origin.repo} has no file {file!r} at revision {origin.revision}",
            remedy="check the setting model.revision",
        )
    if status == 401 and (signed_in or "Invalid credentials" in said):
        return HubTokenError(
            f"The Hub refused the token while asked for {origin.repo}",
            why=said or "it is wrong or expired, or the repository does not exist",
            remedy="set HF_TOKEN to a valid token (or unset it for public models), and check the name",
        )
    if isinstance(error, hub_errors.RepositoryNotFoundError) or status in (401, 404):
        return HubNotFoundError(
            f"There is no repository {origin.repo} at {origin.shown}",
            why="" if signed_in else "a private repository looks the same without a token",
            remedy="check the setting model.repo; for a private repository set HF_TOKEN",
        )
    if status == 403:
        return HubTokenError(
            f"The Hub does not let this account read {origin.repo}",
            why=said or "403 Forbidden",
            remedy="use a token with read access to this repository (HF_TOKEN)",
        )
    if status == 429:
        seconds = _retry_after(response.headers)
        return HubRateLimitError(
            "The Hub limits requests from here for now (429)",
            why="" if signed_in else "requests without a token have the lowest limit",
            remedy=(f"try again in {seconds} s" if seconds is not None else "try again in a few minutes")
            + ("" if signed_in else ", or set HF_TOKEN")
            + "; what was fetched is kept",
        )
    if status >= 500:
        return HubServerError(
            f"The Hub failed to answer for {thing} ({status})",
            why=said,
            remedy="try again in a few minutes; what was fetched is kept",
        )
    return HubError(f"The Hub refused {thing} ({status})", why=said, remedy="check the name and the revision")


def _retry_after(headers: Mapping[str, str]) -> int | None:
    """Seconds to wait: `Retry-After`, or the `t=` of the Hub's own RateLimit header."""
    value = headers.get("Retry-After", "").strip()
    if value.isdigit():
        return int(value)
    reset = _RESET.search(headers.get("RateLimit", ""))
    return int(reset.group(1)) if reset else None
