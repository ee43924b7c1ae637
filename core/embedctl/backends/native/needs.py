"""What a load of the native backend needs: packages, the model's folder, memory, and the worker's options."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from embedctl.backends.native.memory import Expected, expected_memory, nvidia_driver_present
from embedctl.backends.native.status import NAME
from embedctl.errors import BackendUnavailableError, ModelMissingError
from embedctl.records import Preflight
from embedctl.worker.protocol import WorkerOptions

if TYPE_CHECKING:
    from embedctl.settings import ModelSettings, NativeSettings


class Needs:
    """Looks at this machine's disk and packages; starts nothing.

    Args:
        folder: The model's folder, or None while the model is not (completely) on disk.
        budgets_file: Where measured token budgets are kept; None: nowhere.
        references: Where complete loads leave what quicker ones need; None: nowhere.
        memory_floor: Bytes of a shared pool that batches leave free; None: the worker's own default.
    """

    def __init__(
        self,
        settings: NativeSettings,
        model: ModelSettings,
        *,
        folder: Callable[[], Path | None],
        budgets_file: Path | None,
        references: Path | None,
        memory_floor: int | None,
    ) -> None:
        self._settings = settings
        self._model = model
        self._folder = folder
        self._budgets_file = budgets_file
        self._references = references
        self._memory_floor = memory_floor

    def folder(self) -> Path:
        """The model's folder, where a worker could load it.

        Raises:
            BackendUnavailableError: A package is not installed.
            ModelMissingError: The model is not on disk.
        """
        for package in ("torch", "sentence_transformers"):
            if find_spec(package) is None:
                raise BackendUnavailableError(
                    f"The package {package} is not installed", remedy="install embedctl with its dependencies"
                )
        folder = self._folder()
        if folder is None:
            raise _model_missing(f"{self._model.repo} is not on disk, or not completely")
        return folder

    def preflight(self, loaded_on: str | None) -> Preflight:
        """The memory that a load needs; `loaded_on` is the device of a worker that has it loaded already.

        Raises:
            BackendUnavailableError, ModelMissingError: As `folder`.
        """
        folder = self.folder()
        settings = self._settings
        device = loaded_on or settings.device
        cuda = device.startswith("cuda") or (device == "auto" and nvidia_driver_present())
        try:
            expected = expected_memory(
                folder,
                cuda=cuda,
                dtype=settings.dtype,
                batch_size=settings.batch_size,
                max_tokens=settings.max_tokens,
            )
        except FileNotFoundError as error:
            raise _model_missing(str(error)) from error
        except (OSError, ValueError) as error:
            return Preflight(NAME, None, f"unknown: {error}", warnings=(str(error),))
        return Preflight(NAME, expected.bytes, expected.source, warnings=_warnings(expected))

    def options(self, folder: Path) -> WorkerOptions:
        settings = self._settings
        return WorkerOptions(
            folder=str(folder),
            device=settings.device,
            dtype=settings.dtype,
            attention=settings.attention,
            batch_size=settings.batch_size,
            max_tokens=settings.max_tokens,
            threads=settings.threads,
            budgets_file=str(self._budgets_file) if self._budgets_file else None,
            references=str(self._references) if self._references else None,
            memory_floor=self._memory_floor,
        )


def _warnings(expected: Expected) -> tuple[str, ...]:
    if not expected.pickled:
        return ()
    return ("the weights are a pickle, not safetensors: loading takes longer and reads tensors only",)


def _model_missing(why: str) -> ModelMissingError:
    return ModelMissingError(
        "The model is not there", why=why, remedy="fetch it with `embedctl models download`, or press d"
    )
