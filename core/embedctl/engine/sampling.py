"""The sampler's callbacks: figures of the moment, published to all and stored by one process alone."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from embedctl.backends.base import Backend
from embedctl.engine.memory import LatestSample
from embedctl.engine.parts import Parts
from embedctl.engine.traffic import Traffic
from embedctl.errors import StoreBusyError, StoreError
from embedctl.events import SampleTaken
from embedctl.records import BackendName, BackendState, GpuProcess, Sample
from embedctl.settings import TelemetrySettings

if TYPE_CHECKING:
    from embedctl.telemetry.sampler import Sampler

log = logging.getLogger(__name__)


class Recorder:
    """Takes what the sampler reads; knows whether it gets stored."""

    def __init__(self, parts: Parts, latest: LatestSample) -> None:
        from embedctl.telemetry.sampler import ThrottleWatch

        self._parts = parts
        self._latest = latest
        self._throttling = ThrottleWatch()
        self._failed = False
        self._begun: float | None = None
        self.recording = False

    def owners(self) -> dict[BackendName, frozenset[int]]:
        """The backends' processes, asked at the beginning of each reading."""
        self._begun = time.monotonic()
        return _owners(self._parts.backends)

    def publish(self, sample: Sample, processes: tuple[GpuProcess, ...]) -> None:
        self._latest.put(sample, processes, begun=self._begun)
        self._parts.bus.publish(SampleTaken(sample, processes, self.recording))
        event = self._throttling.event(sample)
        if event is not None:
            self._parts.journal.record(event)

    def store(self, sample: Sample) -> None:
        """Store one sample. What another process records already is not stored twice.

        Raises:
            StoreError: It could not be stored; the journal tells so once, the sampler logs and tries again.
        """
        try:
            self._parts.store.add_sample(sample)
        except StoreBusyError:
            self.recording = False
        except StoreError as error:
            self.recording = False
            if not self._failed:
                self._failed = True
                self._parts.journal.add_failure("recording has stopped", error, during="recording")
            raise
        else:
            self.recording, self._failed = True, False


def make_sampler(
    parts: Parts, recorder: Recorder, traffic: Traffic, settings: TelemetrySettings, *, storing: bool
) -> Sampler:
    from embedctl.telemetry.sampler import Sampler

    return Sampler(
        parts.probe,
        owners=recorder.owners,
        extra=traffic.figures,
        publish=recorder.publish,
        store=recorder.store if storing else None,
        maintain=parts.store.maintain if storing else None,
        screen_hz=settings.screen_hz,
        store_hz=settings.store_hz,
    )


def _owners(backends: Mapping[BackendName, Backend]) -> dict[BackendName, frozenset[int]]:
    """The backends' processes. One that answers but shows none (remote, or in a container) is left out.

    An empty set would say that it holds no memory, when it is only not known how much.
    """
    pids = {name: backend.pids() for name, backend in backends.items()}
    return {
        name: found
        for name, found in pids.items()
        if found or backends[name].status().state is not BackendState.READY
    }
