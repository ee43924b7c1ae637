from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from embedctl.errors import SettingsError
from embedctl.paths import Paths
from embedctl.settings import BGE_M3_REVISION, load_settings
from embedctl.settings_file import set_value


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths.in_folder(tmp_path / "home")


def write(paths: Paths, text: str) -> None:
    paths.config_file.parent.mkdir(parents=True, exist_ok=True)
    paths.config_file.write_text(text, encoding="utf-8")


def test_without_a_file_the_defaults_hold(paths: Paths) -> None:
    settings = load_settings(paths)
    assert (settings.model.repo, settings.model.revision) == ("BAAI/bge-m3", BGE_M3_REVISION)
    assert settings.engine.backend == "native"


def test_a_variable_stands_over_the_file_and_the_file_over_the_default(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(paths, '[native]\ndtype = "float32"\nbatch_size = 64\n')
    monkeypatch.setenv("EMBEDCTL_NATIVE__DTYPE", "bfloat16")
    native = load_settings(paths).native
    assert (native.dtype, native.batch_size, native.device) == ("bfloat16", 64, "auto")


def test_the_applications_migration_flag_is_honoured(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    write(paths, '[engine]\nbackend = "native"\n')
    monkeypatch.setenv("EMBEDDING_BACKEND", "Ollama")
    assert load_settings(paths).engine.backend == "ollama"
    monkeypatch.setenv("EMBEDCTL_ENGINE__BACKEND", "native")
    assert load_settings(paths).engine.backend == "native"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('[native]\ndtype = "float12"\n', ("config.toml", "native.dtype", "'float12'", "'float16'")),
        ("[native]\nbatch_size = 0\n", ("config.toml", "native.batch_size", "greater than or equal to 1")),
        ("[native]\nbatchsize = 8\n", ("config.toml", "native.batchsize", "batch_size")),
        ("[nativ]\n", ("config.toml", "nativ", "native")),
        ("[native\n", ("config.toml", "not valid TOML", "line 1")),
    ],
)
def test_a_wrong_file_is_told_by_name_key_and_what_is_allowed(
    paths: Paths, text: str, names: tuple[str, ...]
) -> None:
    write(paths, text)
    with pytest.raises(SettingsError) as caught:
        load_settings(paths)
    for name in names:
        assert name in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value"), [("EMBEDCTL_TELEMETRY__SCREEN_HZ", "often"), ("EMBEDDING_BACKEND", "tei")]
)
def test_a_wrong_variable_is_named_itself(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as caught:
        load_settings(paths)
    assert caught.value.what.startswith(variable)
    assert repr(value) in caught.value.what


def test_a_wrong_webhook_is_not_repeated(paths: Paths) -> None:
    write(paths, '[alerts]\nwebhook = "hooks.example/secret"\n')
    with pytest.raises(SettingsError, match=r"alerts.webhook = … is not allowed") as caught:
        load_settings(paths)
    assert "secret" not in str(caught.value)


def test_setting_a_value_keeps_comments_and_order(paths: Paths) -> None:
    write(paths, '# mine\n[native]  # the worker\ndtype = "float32"  # exact\n\n[engine]\n')
    set_value(paths.config_file, "native.batch_size", "64")
    set_value(paths.config_file, "native.dtype", "float16")
    text = paths.config_file.read_text(encoding="utf-8")
    assert text.startswith("# mine\n[native]  # the worker\n")
    assert "# exact" in text
    assert tomllib.loads(text)["native"] == {"dtype": "float16", "batch_size": 64}
    set_value(paths.config_file, "native.batch_size", "none")
    assert "batch_size" not in paths.config_file.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("key", "value"), [("native.dtype", "float12"), ("native.speed", "1"), ("native", "1"), ("x.y", "1")]
)
def test_a_refused_change_leaves_the_file_as_it_was(paths: Paths, key: str, value: str) -> None:
    write(paths, '[native]\ndtype = "float32"\n')
    with pytest.raises(SettingsError):
        set_value(paths.config_file, key, value)
    assert paths.config_file.read_text(encoding="utf-8") == '[native]\ndtype = "float32"\n'
    assert list(paths.config_file.parent.iterdir()) == [paths.config_file]


def test_a_variable_does_not_hide_a_wrong_value_from_the_file(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDCTL_NATIVE__BATCH_SIZE", "8")
    with pytest.raises(SettingsError) as caught:
        set_value(paths.config_file, "native.batch_size", "many")
    assert caught.value.what.startswith(str(paths.config_file))
    assert not paths.config_file.exists()


def test_a_section_that_is_none_and_a_variable_that_sets_a_whole_one_are_told(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(paths, "native = 3\n")
    with pytest.raises(SettingsError, match="native is no section"):
        set_value(paths.config_file, "native.batch_size", "8")
    write(paths, "")
    monkeypatch.setenv("EMBEDCTL_NATIVE", "fast")
    with pytest.raises(SettingsError, match="native") as caught:
        load_settings(paths)
    assert "EMBEDCTL_NATIVE__DTYPE" in caught.value.remedy


def test_a_file_that_cannot_be_read_is_told(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    write(paths, "")

    def refused(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refused)
    with pytest.raises(SettingsError, match="cannot be read — Permission denied"):
        load_settings(paths)


def test_home_puts_everything_in_one_folder_and_the_demo_in_its_own(home: Path) -> None:
    paths, demo = Paths.find(), Paths.find(demo=True)
    for path in (paths.config_file, paths.database, paths.log_dir, paths.cache_dir):
        assert path.is_relative_to(home)
    assert demo.database == home / "demo" / "data" / "history.db"


def test_without_home_the_platforms_folders_are_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("EMBEDCTL_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))
    assert Paths.find().database == tmp_path / "xdg" / "embedctl" / "history.db"
    assert Paths.find(demo=True).database.is_relative_to(tmp_path / "xdg" / "embedctl" / "demo")
