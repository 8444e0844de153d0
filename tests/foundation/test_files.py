"""Files: the same tree of bytes in a folder and in S3."""

import os

import offline_tables as tables
import pytest
import servers

from foundation.errors import InvalidInput, Unavailable
from foundation.files import local, open_files
from foundation.files.s3 import S3Files
from foundation.files.s3 import open_files as open_s3


@pytest.fixture(scope="module")
def s3():
    with servers.required_parts(), tables.s3_server() as host:
        yield host


@pytest.fixture(params=["folder", "s3"])
def files(request, tmp_path):
    if request.param == "folder":
        return tables.local_files(tmp_path / "root ü")
    return tables.s3_files(request.getfixturevalue("s3"))


def put(files, path, data=b"x"):
    if files.url.startswith("file:"):
        files.filesystem.create_dir(path.rpartition("/")[0], recursive=True)
    with files.filesystem.open_output_stream(path) as stream:
        stream.write(data)


def test_what_is_written_is_there(files):
    put(files, "a/b.bin", b"123")
    files.sync(["a/b.bin"])
    assert files.exists("a/b.bin")
    assert files.exists("a")
    assert not files.exists("a/c.bin")
    with files.filesystem.open_input_file("a/b.bin") as stream:
        assert stream.read() == b"123"
    assert files.locate("a/b.bin").endswith("a/b.bin")


def test_deleting_takes_a_file_or_a_whole_folder(files):
    put(files, "a/b.bin")
    put(files, "a/c/d.bin")
    files.delete("a/b.bin")
    assert not files.exists("a/b.bin")
    assert files.exists("a/c/d.bin")
    files.delete("a")
    assert not files.exists("a/c/d.bin")
    files.delete("a")
    files.delete("never/was")


def test_one_tree_does_not_see_another(files):
    put(files, "a/b.bin")
    assert not files.exists("../a/b.bin") or files.url.startswith("file:")


def test_an_unknown_scheme_is_refused():
    with pytest.raises(InvalidInput, match="unknown scheme"):
        open_files("ftp://host/path")


def test_a_folder_is_made_and_synced_with_its_parents(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(local, "sync_path", synced.append)
    local.LocalFiles(tmp_path / "x" / "y" / "z")
    assert set(synced) == {tmp_path, tmp_path / "x", tmp_path / "x" / "y"}
    synced.clear()
    local.LocalFiles(tmp_path / "x" / "y" / "z")
    assert synced == []


def test_sync_reaches_the_file_and_every_folder_up_to_the_root(tmp_path, monkeypatch):
    files = local.LocalFiles(tmp_path)
    put(files, "a/b/c.bin")
    put(files, "a/d.bin")
    synced = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.readlink(f"/proc/self/fd/{handle}")))
    files.sync(["a/b/c.bin", "a/d.bin"])
    order = [os.path.relpath(path, tmp_path) for path in synced]
    assert sorted(order) == sorted(["a/b/c.bin", "a/d.bin", "a/b", "a", "."])
    assert order.index("a/b/c.bin") < order.index("a/b") < order.index("a") < order.index(".")


def test_a_missing_file_cannot_be_synced(tmp_path):
    with pytest.raises(FileNotFoundError):
        local.LocalFiles(tmp_path).sync(["none"])


def test_an_s3_url_says_where_and_how():
    files = open_s3("s3://key:se%2Fcret@bucket/some/prefix/?endpoint=http://127.0.0.1:1&region=eu-west-1")
    assert files.url == "s3://bucket/some/prefix"
    assert files.locate("a/b") == "s3://bucket/some/prefix/a/b"
    assert files.storage_options == {
        "aws_access_key_id": "key",
        "aws_secret_access_key": "se/cret",
        "aws_region": "eu-west-1",
        "aws_endpoint_url": "http://127.0.0.1:1",
        "aws_allow_http": "true",
    }
    plain = S3Files("bucket", region="eu-west-1")
    assert plain.url == "s3://bucket"
    assert plain.storage_options == {"aws_region": "eu-west-1"}


@pytest.mark.parametrize(
    "url", ["s3://", "s3:///prefix", "s3://bucket/x?colour=red", "s3://bucket?region=a&region=b", "s3://key@bucket/x"]
)
def test_odd_s3_urls_are_refused(url):
    with pytest.raises(InvalidInput, match=r"files URL|files in S3"):
        open_s3(url)


def test_a_service_that_does_not_answer_is_unavailable():
    port = servers.free_port()
    files = open_s3(f"s3://key:secret@bucket/x?endpoint=http://127.0.0.1:{port}&region=us-east-1")
    with pytest.raises(Unavailable, match="does not answer"):
        files.exists("a")
