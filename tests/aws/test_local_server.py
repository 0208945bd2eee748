"""The local AWS remembers what was read, and forgets it with the next write."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError
from tidegate.aws import local_server

from tests.support.aws import LocalAws


def body(s3: Any, aws: LocalAws, **options: str) -> bytes:
    content: bytes = s3.get_object(Bucket=aws.bucket, Key="a", **options)["Body"].read()
    return content


def test_a_write_is_seen_at_once_by_every_kind_of_read(aws: LocalAws) -> None:
    s3 = aws.s3()
    for content in (b"one", b"other"):
        tag = s3.put_object(Bucket=aws.bucket, Key="a", Body=content)["ETag"]
        for _ in range(2):
            assert body(s3, aws) == content
            assert body(s3, aws, Range="bytes=0-1") == content[:2]
            assert s3.head_object(Bucket=aws.bucket, Key="a")["ContentLength"] == len(content)
            assert [each["Size"] for each in s3.list_objects_v2(Bucket=aws.bucket)["Contents"]] == [len(content)]
            with pytest.raises(ClientError, match="304"):
                body(s3, aws, IfNoneMatch=tag)
    s3.delete_object(Bucket=aws.bucket, Key="a")
    with pytest.raises(ClientError, match="NoSuchKey"):
        body(s3, aws)
    s3.delete_bucket(Bucket=aws.bucket)
    with pytest.raises(ClientError, match="404"):
        s3.head_bucket(Bucket=aws.bucket)


def test_modules_of_the_current_folder_are_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "struct.py").write_text("raise SystemExit('the wrong module')")
    monkeypatch.chdir(tmp_path)

    async def work() -> None:
        await (await local_server.LocalAws.start()).stop()

    asyncio.run(work())


@pytest.mark.parametrize(
    "cut",
    [b"Content-Length: 10\r\n\r\nhalf", b"Transfer-Encoding: chunked\r\n\r\na\r\nhalf"],
    ids=["length", "chunks"],
)
def test_a_write_whose_sender_is_killed_is_none(aws: LocalAws, capfd: pytest.CaptureFixture[str], cut: bytes) -> None:
    address = urlsplit(aws.url)
    with socket.create_connection((address.hostname, address.port)) as sender:
        sender.sendall(b"PUT /%b/cut HTTP/1.1\r\nHost: a\r\n%b" % (aws.bucket.encode(), cut))
        sender.shutdown(socket.SHUT_WR)
        assert sender.recv(1024) == b""
    with pytest.raises(ClientError, match="NoSuchKey"):
        aws.s3().get_object(Bucket=aws.bucket, Key="cut")
    assert "Traceback" not in capfd.readouterr().err
