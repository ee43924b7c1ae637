"""Settings: a TOML file, `EMBEDCTL_*` variables over it, and defaults under it.

`EMBEDCTL_NATIVE__DTYPE=float32` sets `dtype` of section `[native]`. `EMBEDDING_BACKEND`, the migration flag
that applications already use, sets `[engine] backend`; the explicit `EMBEDCTL_ENGINE__BACKEND` wins over it.
Secrets are not settings: the Hub token comes from `HF_TOKEN` or the Hub's own store.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings import SettingsError as EnvironmentSettingsError

from embedctl.errors import SettingsError
from embedctl.paths import Paths

BGE_M3_REVISION = "5617a9f61b028005a4858fdac845db406aefb181"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSettings(_Section):
    """Which model both backends serve."""

    repo: str = Field("BAAI/bge-m3", description="Hub repository or a sentence-transformers folder")
    revision: str = Field(BGE_M3_REVISION, description="commit, branch or tag on the Hub")
    ollama_tag: str = Field("bge-m3", description="the Ollama model with the same weights")


class NativeSettings(_Section):
    """The worker process with sentence-transformers."""

    device: str = Field(
        "auto", description="auto, cpu, cuda, cuda:N or mps", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$"
    )
    dtype: Literal["auto", "float32", "float16", "bfloat16", "float8"] = Field(
        "auto",
        description="auto: float16 on CUDA, float32 elsewhere; float8: as auto, with 8-bit products "
        "where CUDA has them and the vectors stay close enough",
    )
    attention: Literal["auto", "sdpa", "efficient", "math", "eager"] = Field(
        "auto", description="auto: the fastest kernel that passes the canary"
    )
    batch_size: int = Field(32, ge=1, le=4096, description="texts per forward pass")
    max_tokens: int | None = Field(None, ge=8, description="length limit; none: the model's own")
    threads: int | None = Field(None, ge=1, description="torch threads on CPU; none: torch's choice")
    load_timeout_s: float = Field(600.0, gt=0)
    request_timeout_s: float = Field(300.0, gt=0)


class OllamaSettings(_Section):
    """The Ollama server."""

    host: str | None = Field(None, description="URL; none: OLLAMA_HOST, else http://127.0.0.1:11434")
    keep_alive: str = Field("30m", description="how long Ollama keeps the model; -1: for ever")
    num_ctx: int = Field(8192, ge=16, description="context length, so that long texts are not cut")
    num_batch: int = Field(8192, ge=16, description="as num_ctx: the smaller of the two cuts")
    request_timeout_s: float = Field(300.0, gt=0)


class EngineSettings(_Section):
    backend: Literal["native", "ollama"] = Field("native", description="active at the first start")
    memory_floor_gib: float | None = Field(
        None,
        ge=0,
        description="memory that a load must leave available; none: an eighth of the pool, at most 8",
    )
    least_agreement: float = Field(
        0.8,
        ge=-1,
        le=1,
        description="least cosine of known texts between the backends with which a switch goes on; -1: any",
    )
    unload_after_switch: bool = Field(True, description="false: keep both backends loaded")
    drain_timeout_s: float = Field(30.0, gt=0)
    settle_timeout_s: float = Field(20.0, ge=0, description="how long to wait for memory to come back")
    probe_every_s: float = Field(10.0, ge=0, description="latency probe of loaded backends; 0: none")


class TelemetrySettings(_Section):
    gpu: int | None = Field(None, ge=0, description="index of the GPU to watch; none: the first")
    screen_hz: float = Field(2.0, gt=0, le=20)
    store_hz: float = Field(1.0, gt=0, le=10)


class HistorySettings(_Section):
    """How long each tier of samples is kept."""

    keep_seconds_h: float = Field(24.0, gt=0, description="hours of 1-second samples")
    keep_10_seconds_d: float = Field(7.0, gt=0, description="days of 10-second samples")
    keep_minutes_d: float = Field(90.0, gt=0, description="days of 1-minute samples")
    keep_10_minutes_d: float = Field(730.0, gt=0, description="days of 10-minute and 1-hour samples")


class ConsoleSettings(_Section):
    theme: str = Field("embedctl-dark", description="name of a theme")
    charset: Literal["braille", "block", "ascii"] = Field("braille", description="how charts are drawn")
    slow_line: Literal["auto", "always", "never"] = Field(
        "auto",
        description="draw less for a line of some 1,000 bytes a second; auto: when the terminal lags behind",
    )
    keys: dict[str, str] = Field(
        {}, description='keys of your own by action, such as models.verify = "w" in [console.keys]'
    )

    @field_validator("keys", mode="before")
    @classmethod
    def _flat(cls, keys: object) -> object:
        """`models.verify = "w"` is a table in a table for TOML, and one name here."""
        if not isinstance(keys, Mapping):
            return keys
        flat: dict[object, object] = {}
        for name, value in keys.items():
            inner = value if isinstance(value, Mapping) else None
            flat.update({f"{name}.{k}": v for k, v in inner.items()} if inner is not None else {name: value})
        return flat


class GatewaySettings(_Section):
    """The HTTP service for applications. API keys are not settings: `EMBEDCTL_API_KEY`, or `key_file`."""

    host: str = Field("127.0.0.1", description="address to listen on; beyond loopback only with an API key")
    port: int = Field(11435, ge=0, le=65535, description="0: any free port")
    key_file: str | None = Field(None, description="file of mode 0600 with one API key a line")
    allowed_hosts: tuple[str, ...] = Field(
        (), description="names that requests may call this machine by, besides loopback and IP addresses"
    )
    cors_origins: tuple[str, ...] = Field((), description="web pages that may call, as https://app.example")
    model_names: tuple[str, ...] = Field(
        (), description="further names that applications may call the model by"
    )
    any_model: bool = Field(False, description="true: every model name means the configured model")
    max_body_mib: float = Field(32.0, gt=0, description="largest request body")
    max_texts: int = Field(4096, ge=1, description="texts per request")
    max_tokens: int = Field(1_000_000, ge=1, description="tokens per request")
    max_connections: int = Field(2048, ge=1, description="connections at once; more are refused with 429")
    max_in_flight: int = Field(64, ge=1, le=1024, description="requests that the backend works on at once")
    max_texts_in_flight: int = Field(16_384, ge=1, description="texts that the backend works on at once")
    max_waiting: int = Field(1024, ge=0, description="requests that wait; more are refused with 429")
    deadline_s: float = Field(120.0, gt=0, description="longest time for one request, waiting included")
    drain_timeout_s: float = Field(30.0, ge=0, description="time for requests in flight when it is stopped")


class AlertSettings(_Section):
    """Who is told when a backend does badly: once when it begins, once when it is over."""

    command: tuple[str, ...] = Field(
        (), description="program and arguments, as a list; gets the alert as JSON on its standard input"
    )
    webhook: str | None = Field(
        None, description="URL that gets the alert as JSON by POST", pattern=r"^https?://\S+$"
    )
    conditions: tuple[Literal["down", "hung", "on the CPU", "throttled", "slow"], ...] = Field(
        ("down", "hung", "on the CPU"), description="what counts as bad"
    )
    for_s: float = Field(30.0, ge=0, description="how long it must last before anybody is told")
    timeout_s: float = Field(10.0, gt=0, le=60, description="time for the command, and for the webhook")


class Settings(BaseSettings):
    """All settings, checked. Frozen: a change makes a new object."""

    model_config = SettingsConfigDict(
        env_prefix="EMBEDCTL_", env_nested_delimiter="__", extra="forbid", frozen=True, env_ignore_empty=True
    )

    model: ModelSettings = ModelSettings()
    native: NativeSettings = NativeSettings()
    ollama: OllamaSettings = OllamaSettings()
    engine: EngineSettings = EngineSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    alerts: AlertSettings = AlertSettings()
    history: HistorySettings = HistorySettings()
    console: ConsoleSettings = ConsoleSettings()
    gateway: GatewaySettings = GatewaySettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # The file arrives through init (see `load`), so variables must come first to stand over it.
        return env_settings, init_settings


class _FileSettings(Settings):
    """Settings without the environment."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


def load_settings(paths: Paths) -> Settings:
    """Read the settings file (if there is one) and the environment.

    Raises:
        SettingsError: The file is not TOML, or a value is not allowed; names file or variable, key and
            what is allowed.
    """
    data: dict[str, Any] = {}
    if paths.config_file.is_file():
        try:
            data = tomllib.loads(paths.config_file.read_text(encoding="utf-8"))
        except OSError as error:
            raise SettingsError(
                f"{paths.config_file} cannot be read",
                why=error.strerror or str(error),
                remedy="check the file's rights, or move it away to start from the defaults",
            ) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"{paths.config_file} is not valid TOML",
                why=str(error),
                remedy="correct that line, or move the file away to start from the defaults",
            ) from error
    flag = os.environ.get("EMBEDDING_BACKEND")
    if flag and "EMBEDCTL_ENGINE__BACKEND" not in os.environ:
        section = data.setdefault("engine", {})
        if isinstance(section, dict):
            section["backend"] = flag.strip().lower()
    try:
        return Settings(**data)
    except ValidationError as error:
        raise settings_error(error, paths.config_file) from error
    except EnvironmentSettingsError as error:  # EMBEDCTL_NATIVE=… with something that is no JSON object
        raise SettingsError(
            "A variable EMBEDCTL_… sets a whole section to what is no section",
            why=str(error),
            remedy="set one value, as in EMBEDCTL_NATIVE__DTYPE=float32, and unset the other",
        ) from error


def check_file(data: Mapping[str, Any], file: Path) -> None:
    """Check what a settings file says by itself: a variable that stands over a wrong value hides nothing.

    Raises:
        SettingsError: A value is not allowed.
    """
    try:
        _FileSettings(**data)
    except ValidationError as error:
        raise settings_error(error, file, variables=False) from error


def settings_error(error: ValidationError, file: Path, *, variables: bool = True) -> SettingsError:
    """A `ValidationError` of `Settings` in words: file or variable, key, value, and what is allowed."""
    first = error.errors(include_url=False)[0]
    location = [str(part) for part in first["loc"]]
    key = ".".join(location)
    variable = "EMBEDCTL_" + "__".join(location).upper()
    origin = variable if variables and variable in os.environ else str(file)
    if variables and key == "engine.backend" and "EMBEDDING_BACKEND" in os.environ and origin != variable:
        origin = "EMBEDDING_BACKEND"
    if first["type"] == "extra_forbidden":
        return SettingsError(
            f"{origin}: there is no setting {key!r}",
            why=_known(location[:-1]),
            remedy="correct the name or remove the line; `embedctl config show` lists all settings",
        )
    given = "…" if key == "alerts.webhook" else repr(first["input"])  # that address may be a secret
    return SettingsError(
        f"{origin}: {key} = {given} is not allowed",
        why=first["msg"],
        remedy=f"set {key} to an allowed value (`embedctl config show` describes it)",
    )


def setting_names() -> dict[str, tuple[str, ...]]:
    """The names of all settings by section."""
    sections = {section: field.annotation for section, field in Settings.model_fields.items()}
    return {
        section: tuple(model.model_fields)
        for section, model in sections.items()
        if isinstance(model, type) and issubclass(model, BaseModel)
    }


def _known(location: list[str]) -> str:
    model: type[BaseModel] = Settings
    for part in location:
        annotation = model.model_fields[part].annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            model = annotation
    return "known names here: " + ", ".join(model.model_fields)
