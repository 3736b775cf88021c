"""Images of rows, over real sockets: by path, by column, by address; what is none costs nothing."""

import base64
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import job_rig as rig
import polars as pl
import pytest
from script_rig import Reply, reply, scripted

from batchllm.errors import ExitCode, JobError


def png(shade: int) -> bytes:
    """One grey pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes([0, shade])))
        + chunk(b"IEND", b"")
    )


def echo(_body: Reply, _number: int) -> Reply:
    return reply({"content": "seen"})


def job(folder: Path, url: str, images: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    task = {"type": "chat", "prompt": "What is it? {{ text }}", "images": images}
    return rig.job(folder, [rig.lane(url, "one")], **{"task": task, **more})


def write(folder: Path, rows: list[dict[str, Any]]) -> None:
    lines = [json.dumps({"id": f"r{at}", "text": "?", **row}) for at, row in enumerate(rows)]
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n", "utf-8")


def sent(body: Reply) -> list[dict[str, Any]]:
    (message,) = body["messages"]
    assert message["content"][0] == {"type": "text", "text": "What is it? ?"}
    return [part["image_url"] for part in message["content"][1:]]


def data_url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def test_a_path_is_read_when_its_row_is(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for shade in range(3):
        (tmp_path / "pictures" / f"{shade}.bin").write_bytes(png(shade))
    write(tmp_path, [{"name": f"{shade}"} for shade in range(3)])
    images = [{"path": "pictures/{{ name }}.bin", "detail": "low"}]
    with scripted(echo) as server:
        assert rig.run(tmp_path, job(tmp_path, server.url, images)).ok == 3
        assert sorted(image["url"] for body in server.bodies for image in sent(body)) == sorted(
            data_url(png(shade)) for shade in range(3)
        )
        assert all(image["detail"] == "low" for body in server.bodies for image in sent(body))
    hashes = rig.table(tmp_path, "output")["request_hash"]
    assert hashes.n_unique() == 3  # the same words, another picture


def test_the_picture_is_part_of_what_is_asked(tmp_path: Path) -> None:
    """With `dedupe` equal words with equal pictures are asked once, and other pictures for themselves."""
    (tmp_path / "a.png").write_bytes(png(1))
    (tmp_path / "b.png").write_bytes(png(1))
    (tmp_path / "c.png").write_bytes(png(2))
    write(tmp_path, [{"name": name} for name in ("a.png", "b.png", "c.png")])
    with scripted(echo) as server:
        rig.run(tmp_path, job(tmp_path, server.url, [{"path": "{{ name }}"}], dedupe=True))
        assert len(server.bodies) == 2


def test_what_is_no_image_fails_its_row_before_anything_is_spent(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("I am no picture")
    (tmp_path / "large.png").write_bytes(png(1) + bytes(2_000_000))
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "good.png").write_bytes(png(1))
    names = ["text.png", "large.png", "folder.png", "missing.png", "", "good.png"]
    write(tmp_path, [{"name": name} for name in names])
    images = [{"path": "{{ name }}", "max_mb": 1}]
    with scripted(echo) as server:
        done = rig.run(tmp_path, job(tmp_path, server.url, images))
        assert len(server.bodies) == 1
    assert (done.exit_code, done.ok, done.failed) == (ExitCode.ROWS_FAILED, 1, 5)
    failures = rig.table(tmp_path, "failures").sort("row")
    assert set(failures["class"]) == {"input"}
    assert set(failures["attempts"]) == {0}
    for message, words in zip(
        failures["message"],
        [
            "no PNG, JPEG, GIF or WebP",
            "larger than 1 MB",
            "folder.png",
            "No such file",
            "no image for this row",
        ],
        strict=True,
    ):
        assert words in message


def test_a_column_holds_bytes_or_their_base64(tmp_path: Path) -> None:
    jpeg = b"\xff\xd8\xff\xe0 not really"
    frame = pl.DataFrame({"id": ["r0", "r1"], "text": ["?", "?"], "picture": [png(1), jpeg]})
    (tmp_path / "parquet").mkdir()
    frame.write_parquet(tmp_path / "parquet" / "rows.parquet")
    write(
        tmp_path, [{"picture": base64.b64encode(png(1)).decode()}, {"picture": data_url(jpeg, "image/jpeg")}]
    )
    for path in ("rows.jsonl", "parquet/rows.parquet"):
        out = {"path": str(tmp_path / "out" / path)}
        with scripted(echo) as server:
            spec = job(tmp_path, server.url, [{"column": "picture"}], output=out)
            done = rig.run(tmp_path, {**spec, "input": {"path": path, "key": "id"}})
            assert done.ok == 2
            urls = {image["url"] for body in server.bodies for image in sent(body)}
        assert urls == {data_url(png(1)), data_url(jpeg, "image/jpeg")}


def test_an_address_goes_as_it_is(tmp_path: Path) -> None:
    write(tmp_path, [{"link": "https://example.com/a.png"}, {"link": "/etc/passwd"}])
    with scripted(echo) as server:
        done = rig.run(tmp_path, job(tmp_path, server.url, [{"url": "{{ link }}"}]))
        assert [sent(body) for body in server.bodies] == [[{"url": "https://example.com/a.png"}]]
    assert (done.ok, done.failed) == (1, 1)


def test_a_column_that_no_row_has_stops_the_job(tmp_path: Path) -> None:
    write(tmp_path, [{}])
    with pytest.raises(JobError, match=r"task\.images\.0: the input has no column 'picture'"):
        rig.run(tmp_path, job(tmp_path, "http://127.0.0.1:9/v1", [{"column": "picture"}]))


def test_images_are_moderated_with_their_text(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(1))
    write(tmp_path, [{"text": "one"}, {"text": "two"}])
    task = {"type": "moderation", "text": "{{ text }}", "images": [{"path": "a.png"}]}
    with rig.served({"latency": {"median_s": 0.001}}) as (urls, books):
        done = rig.run(tmp_path, job(tmp_path, urls[0], [], task=task))
        assert books[0].ledger.accepted == 2  # a list of parts is one input
    assert done.ok == 2
    assert rig.table(tmp_path, "output")["flagged"].null_count() == 0
