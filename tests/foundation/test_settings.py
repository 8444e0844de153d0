"""Where a setting may come from, which one wins, and what is said about a bad one."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation.errors import InvalidInput
from foundation.settings import Settings, default_workspace, shown_url

ROOT = Path(__file__).resolve().parent.parent.parent


def _load(toml: str | None = None, folder: Path | None = None, environment=None, **given: object) -> Settings:
    if toml is not None:
        (folder / "tilth.toml").write_text(toml)
    return Settings.load(folder, given, environment=environment or {})


def test_without_anything_the_defaults_count(tmp_path: Path) -> None:
    settings = _load(folder=tmp_path)
    assert settings == Settings()
    assert set(settings.sources) == set(Settings.names())
    assert set(settings.sources.values()) == {"default"}
    assert Settings.load(None, environment={}) == Settings()


def test_the_defaults_would_be_accepted(tmp_path: Path) -> None:
    given = {name: getattr(Settings(), name) for name in Settings.names()}
    assert _load(**given) == Settings()


def test_argument_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    toml = 'threads = 1\nflush_rows = 10\nmemory = "1 GiB"\n'
    environment = {"TILTH_THREADS": "2", "TILTH_FLUSH_ROWS": "20", "TILTH_OTHER": "x", "THREADS": "9"}
    settings = _load(toml, tmp_path, environment, threads=3, memory=None)
    assert (settings.threads, settings.flush_rows, settings.memory) == (3, 20, 1 << 30)
    assert settings.sources["threads"] == "argument"
    assert settings.sources["flush_rows"] == "environment TILTH_FLUSH_ROWS"
    assert settings.sources["memory"] == str(tmp_path / "tilth.toml")
    assert settings.sources["online"] == "default"


def test_an_empty_variable_is_not_given() -> None:
    assert _load(environment={"TILTH_THREADS": ""}).threads == 0


def test_the_process_environment_is_read(monkeypatch) -> None:
    monkeypatch.setenv("TILTH_THREADS", "7")
    assert Settings.load().threads == 7
    monkeypatch.setenv("TILTH_WORKSPACE", "some/where")
    assert default_workspace() == Path("some/where")
    monkeypatch.delenv("TILTH_WORKSPACE")
    assert default_workspace() == Path("tilth-workspace")
    assert default_workspace(named_only=True) is None


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("map_size", "64 GiB", 64 << 30),
        ("map_size", "1.5gib", 3 << 29),
        ("map_size", str(1 << 20), 1 << 20),
        ("memory", "512MB", 512_000_000),
        ("future_bound", "90m", timedelta(minutes=90)),
        ("future_bound", "0s", timedelta(0)),
        ("time_travel", "1.5 d", timedelta(hours=36)),
        ("time_travel", "2w", timedelta(weeks=2)),
        ("threads", "4", 4),
        ("online", "redis://:pw@h:1/0", "redis://:pw@h:1/0"),
        ("online", "redis+cluster://h:1", "redis+cluster://h:1"),
        ("files", "s3://bucket/prefix", "s3://bucket/prefix"),
        ("files", "file:///lake/x", "file:///lake/x"),
        ("catalog", "sqlite:///lake/c.sqlite", "sqlite:///lake/c.sqlite"),
        ("catalog", "sqlite:deep/c.sqlite", "sqlite:deep/c.sqlite"),
    ],
)
def test_text_is_understood_the_same_from_everywhere(tmp_path: Path, name: str, text: str, value: object) -> None:
    for settings in (
        _load(**{name: text}),
        _load(environment={f"TILTH_{name.upper()}": text}),
        _load(f'{name} = "{text}"', tmp_path),
        _load(**{name: value}),
    ):
        assert getattr(settings, name) == value


BAD = [
    ("threads", -1),
    ("threads", True),
    ("threads", 1.5),
    ("threads", "two"),
    ("threads", "1 GiB"),
    ("flush_rows", 0),
    ("memory", "1 parsec"),
    ("memory", "0.3 B"),
    ("memory", float("inf")),
    ("map_size", "1 KiB"),
    ("map_size", 1 << 60),
    ("future_bound", 60),
    ("future_bound", "1"),
    ("future_bound", "-1d"),
    ("future_bound", timedelta(days=-1)),
    ("future_bound", "9" * 30 + "w"),
    ("time_travel", "a week"),
    ("engine", "spark"),
    ("online", "memory:"),
    ("online", "redis:"),
    ("online", "redis://"),
    ("online", "embedded:somewhere"),
    ("online", 5),
    ("files", "files"),
    ("files", "file:"),
    ("files", "file:.."),
    ("files", "file:a/../../b"),
    ("files", "file:/one"),
    ("files", "file://host/path"),
    ("files", "s3:bucket"),
    ("catalog", "postgres://h/x"),
    ("catalog", "sqlite:"),
    ("catalog", ""),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_bad_value_names_setting_value_source_and_fix(name: str, value: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        _load(**{name: value})
    said = caught.value
    assert said.subject == f"setting {name}"
    assert f"setting {name} = {value!r} (argument)" in said.message
    assert said.hint


def test_the_source_of_a_bad_value_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"\(environment TILTH_THREADS\)"):
        _load(environment={"TILTH_THREADS": "many"})
    with pytest.raises(InvalidInput, match=r"tilth\.toml\) does not fit"):
        _load("threads = [1]", tmp_path)


def test_an_unknown_setting_is_told_with_a_close_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="did you mean 'threads'"):
        _load(thread=1)
    with pytest.raises(InvalidInput, match="did you mean 'flush_rows'"):
        _load("flush-rows = 1", tmp_path)
    with pytest.raises(InvalidInput, match="settings: catalog"):
        _load(zzz=1)
    with pytest.raises(InvalidInput, match="'sources'"):
        _load(sources={})


@pytest.mark.parametrize("content", [b"threads = ", b"\xff\xfe", b"threads = 1\nthreads = 2\n"])
def test_a_file_that_is_not_toml_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tilth.toml").write_bytes(content)
    with pytest.raises(InvalidInput, match=r"tilth\.toml is not TOML"):
        _load(folder=tmp_path)
    (tmp_path / "tilth.toml").unlink()
    (tmp_path / "tilth.toml").mkdir()
    with pytest.raises(InvalidInput, match="cannot be read"):
        _load(folder=tmp_path)


def test_a_password_is_not_shown_in_an_error() -> None:
    with pytest.raises(InvalidInput) as caught:
        _load(online="rediz://ann:secret@host:1")
    assert "secret" not in str(caught.value)
    assert "host:1" in str(caught.value)


@given(
    st.text(min_size=1).filter(lambda text: text == text.strip()), st.sampled_from(["redis", "rediss", "redis+cluster"])
)
def test_no_password_survives_being_shown(password: str, scheme: str) -> None:
    shown = shown_url(f"{scheme}://ann:{password}@host:6379/0")
    assert shown == f"{scheme}://host:6379/0" or "\n" in password
    assert shown_url(shown) == shown


def test_settings_are_frozen_and_every_one_is_documented() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().threads = 1
    page = (ROOT / "docs" / "settings.md").read_text()
    for name in Settings.names():
        assert f"| `{name}` |" in page, name
        assert f"TILTH_{name.upper()}" in page, name
