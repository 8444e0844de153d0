"""Files in an S3 bucket, or in anything that speaks S3 with conditional puts. A finished upload is durable."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import parse_qs, unquote, urlsplit

import pyarrow.fs as pafs

from foundation.errors import InvalidInput, Unavailable

__all__ = ["S3Files", "open_files"]

_OPTIONS = ("endpoint", "region")
_HINT = "use s3://[key:secret@]bucket/prefix[?endpoint=http://host:port&region=name]"


class S3Files:
    """See ``foundation.files.Files``.

    What is not given is looked up where AWS's tools do (environment, profile, instance).

    Args:
        bucket: an existing bucket.
        prefix: folder inside it, ``""`` for all of it.
        endpoint: URL of the service when it is not AWS, e.g. ``http://127.0.0.1:9000``.
        region: AWS region.
        access_key, secret_key: credentials, both or none.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        endpoint: str | None = None,
        region: str | None = None,
        access_key: str | None = None,
        secret_key: str | None = None,
    ) -> None:
        if not bucket or (access_key is None) != (secret_key is None):
            what = "no bucket" if not bucket else "a key without its secret"
            raise InvalidInput(f"files in S3 were given {what}", subject="files URL", hint=_HINT)
        base = "/".join(part for part in (bucket, *prefix.split("/")) if part)
        self.url = f"s3://{base}"
        scheme, _, host = (endpoint or "").rpartition("://")
        given = {
            "access_key": access_key,
            "secret_key": secret_key,
            "region": region,
            "endpoint_override": host,
            "scheme": scheme,
        }
        self._s3 = pafs.S3FileSystem(**{name: value for name, value in given.items() if value})
        self.filesystem: pafs.FileSystem = pafs.SubTreeFileSystem(base, self._s3)
        options = {
            "aws_access_key_id": access_key,
            "aws_secret_access_key": secret_key,
            "aws_region": region,
            "aws_endpoint_url": endpoint,
            "aws_allow_http": "true" if scheme == "http" else None,
        }
        self.storage_options: Mapping[str, str] = {name: value for name, value in options.items() if value}

    def locate(self, path: str) -> str:
        """The full ``s3://`` URL."""
        return f"{self.url}/{path}"

    def sync(self, paths: Iterable[str]) -> None:
        """Do nothing: a finished upload is durable."""

    def exists(self, path: str) -> bool:
        """Whether an object, or any object below it, is there.

        Raises:
            Unavailable: the service does not answer.
        """
        return bool(self._type(path) != pafs.FileType.NotFound)

    def delete(self, path: str) -> None:
        """Remove an object or everything below a folder.

        Raises:
            Unavailable: the service does not answer.
        """
        kind = self._type(path)
        with _answering(self.url):
            if kind == pafs.FileType.Directory:
                self.filesystem.delete_dir(path)
            elif kind == pafs.FileType.File:
                self.filesystem.delete_file(path)

    def _type(self, path: str) -> pafs.FileType:
        with _answering(self.url):
            return self.filesystem.get_file_info(path).type


@contextmanager
def _answering(url: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(f"{url} does not answer: {error}", subject=url, hint="check endpoint and access") from error


def open_files(url: str) -> S3Files:
    """Open ``s3://[key:secret@]bucket/prefix[?endpoint=…&region=…]``; the bucket exists.

    Raises:
        InvalidInput: an unknown or repeated option, or no bucket.
    """
    parts = urlsplit(url)
    query = parse_qs(parts.query, keep_blank_values=True)
    odd = sorted(name for name, values in query.items() if name not in _OPTIONS or len(values) != 1)
    if odd:
        raise InvalidInput(f"option {odd[0]!r} of a files URL is unknown or repeated", subject="files URL", hint=_HINT)
    return S3Files(
        parts.hostname or "" if "@" in parts.netloc else parts.netloc,
        unquote(parts.path).strip("/"),
        endpoint=query.get("endpoint", [None])[0],
        region=query.get("region", [None])[0],
        access_key=unquote(parts.username) if parts.username else None,
        secret_key=unquote(parts.password) if parts.password else None,
    )
