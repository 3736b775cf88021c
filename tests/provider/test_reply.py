"""However the bytes are cut, the same reply or the same fault comes out."""

import gzip
import zlib
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from batchllm.provider.reply import (
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    BrokenReplyError,
    NoHttpError,
    NoReplyError,
    Reply,
    ReplyError,
    ReplyReader,
    ReplyTooLargeError,
    _names,
)

OK = b"HTTP/1.1 200 OK\r\n"
EMPTY = OK + b"content-length: 0\r\n\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
PACKED = gzip.compress(b"hello " * 50, mtime=0)


def read(*pieces: bytes, max_bytes: int = 1_000_000, ends: bool = False) -> Reply:
    """The one reply in the pieces."""
    reader = ReplyReader(max_bytes)
    found = [reply for reply in (reader.feed(piece) for piece in pieces) if reply is not None]
    if ends and not found:
        return reader.end()
    assert len(found) == 1
    return found[0]


def _feed_all(reader: ReplyReader, pieces: list[bytes]) -> None:
    for piece in pieces:
        assert reader.feed(piece) is None


def told(body: bytes, headers: bytes = b"") -> bytes:
    return OK + headers + b"content-length: %d\r\n\r\n" % len(body) + body


class TestWhole:
    def test_names_are_lower_case_and_values_are_kept(self) -> None:
        reply = read(told(b"{}", b"X-Request-ID:  Ab c \r\n"))
        assert reply == Reply(200, {"x-request-id": "Ab c", "content-length": "2"}, b"{}", is_last=False)

    def test_what_comes_twice_is_joined_in_its_order(self) -> None:
        assert read(told(b"", b"Via: a\r\nx: y\r\nvia: b\r\nVIA: c\r\n")).headers["via"] == "a, b, c"

    def test_values_may_be_any_bytes(self) -> None:
        assert read(told(b"", b"x: caf\xe9\xff\r\n")).headers["x"] == "caf\xe9\xff"

    def test_lines_may_end_without_a_carriage_return(self) -> None:
        assert read(b"HTTP/1.1 200 OK\ncontent-length: 2\n\nab").body == b"ab"

    @pytest.mark.parametrize("status", [204, 304])
    def test_some_replies_have_no_body(self, status: int) -> None:
        reply = read(b"HTTP/1.1 %d X\r\ncontent-length: 10\r\n\r\n" % status)
        assert (reply.status, reply.body, reply.is_last) == (status, b"", False)

    @pytest.mark.parametrize("count", [1, 3])
    def test_interim_replies_are_passed_over(self, count: int) -> None:
        reply = read(HINTS * count + b"HTTP/1.1 100 Continue\r\n\r\n" + told(b"x"))
        assert (reply.status, reply.headers) == (200, {"content-length": "1"})

    def test_trailers_are_no_headers(self) -> None:
        reply = read(CHUNKED + b"2\r\nab\r\n0\r\nstatus: bad\r\n\r\n")
        assert (reply.body, "status" in reply.headers) == (b"ab", False)

    def test_replies_follow_each_other_and_share_nothing(self) -> None:
        reader = ReplyReader(100)
        first, second = reader.feed(told(b"one", b"x: y\r\n")), reader.feed(told(b"two"))
        assert first is not None
        assert second is not None
        assert (first.body, second.body, "x" in second.headers) == (b"one", b"two", False)

    def test_upgrade_that_is_only_offered_changes_nothing(self) -> None:
        assert not read(told(b"x", b"upgrade: h2c\r\nconnection: upgrade\r\n")).is_last

    def test_names_without_end_are_not_kept(self) -> None:
        for number in range(3_000):
            assert read(told(b"", b"x-%d: y\r\n" % number)).headers[f"x-{number}"] == "y"


class TestLast:
    @pytest.mark.parametrize(
        ("raw", "is_last"),
        [
            (told(b"x"), False),
            (told(b"x", b"connection: close\r\n"), True),
            (told(b"x", b"Connection: keep-alive\r\n"), False),
            (told(b"x").replace(b"1.1", b"1.0"), True),
            (told(b"x", b"connection: keep-alive\r\n").replace(b"1.1", b"1.0"), False),
        ],
    )
    def test_the_server_says_whether_it_keeps_the_connection(self, raw: bytes, is_last: bool) -> None:
        assert read(raw).is_last is is_last

    @pytest.mark.parametrize("more", [b"x", b"HTTP/1.1 200 OK\r\n", told(b"evil"), b"\0"])
    @pytest.mark.parametrize("headers", [b"", b"connection: close\r\n"])
    def test_bytes_behind_a_reply_never_answer_another_call(self, more: bytes, headers: bytes) -> None:
        reply = read(told(b"good", headers) + more)
        assert (reply.body, reply.is_last) == (b"good", True)

    def test_line_break_behind_a_reply_is_nothing(self) -> None:
        assert not read(told(b"good") + b"\r\n").is_last

    def test_body_without_a_length_ends_with_the_connection(self) -> None:
        assert read(OK + b"\r\n", b"ab", b"c", ends=True) == Reply(200, {}, b"abc", is_last=True)

    def test_reply_whose_end_was_seen_does_not_end_again(self) -> None:
        reader = ReplyReader(100)
        assert reader.feed(told(b"x")) is not None
        with pytest.raises(NoReplyError):
            reader.end()
        assert reader.status is None


class TestBroken:
    @pytest.mark.parametrize(
        ("raw", "kind"),
        [
            (b"", NoReplyError),
            (b"HTT", BrokenReplyError),
            (OK + b"content-le", BrokenReplyError),
            (HINTS, BrokenReplyError),
            (told(b"abc")[:-1], BrokenReplyError),
            (CHUNKED, BrokenReplyError),
            (CHUNKED + b"3\r\nabc\r\n", BrokenReplyError),
            (CHUNKED + b"3\r\nabc\r\n0\r\n", BrokenReplyError),
            (OK + b"content-encoding: gzip\r\n\r\n" + PACKED[:-1], BrokenReplyError),
        ],
        ids=["nothing", "name", "header", "interim", "length", "no chunk", "chunk", "trailer", "packed"],
    )
    def test_what_ends_early_is_no_answer(self, raw: bytes, kind: type[ReplyError]) -> None:
        with pytest.raises(kind):
            read(raw, ends=True)

    def test_status_is_known_from_the_head_on(self) -> None:
        reader = ReplyReader(100)
        reader.feed(OK)
        assert reader.status is None
        reader.feed(b"content-length: 5\r\n\r\n")
        assert reader.status == 200

    @pytest.mark.parametrize(
        "raw",
        [
            b"HTTP/1.1 099 X\r\n\r\n",
            b"HTTP/2 200 OK\r\n\r\n",
            b"HTTP/1.1 101 X\r\nupgrade: h2\r\nconnection: upgrade\r\n\r\n",
            OK + b"content-length: -1\r\n\r\n",
            OK + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
            OK + b"content-length: " + b"9" * 30 + b"\r\n\r\n",
            CHUNKED + b"g\r\n",
            CHUNKED + b"1\r\nabc",
            CHUNKED + b"f" * 17 + b"\r\n",
        ],
    )
    def test_what_breaks_the_grammar_is_no_http(self, raw: bytes) -> None:
        with pytest.raises(NoHttpError) as caught:
            read(raw)
        assert str(caught.value)

    @pytest.mark.parametrize("coding", [b"br", b"zstd", b"gzip, gzip", b"nonsense"])
    def test_coding_that_was_not_asked_for_is_named(self, coding: bytes) -> None:
        with pytest.raises(BrokenReplyError, match="not asked for"):
            read(told(b"x", b"content-encoding: %s\r\n" % coding))


class TestBounds:
    @pytest.mark.parametrize("size", [10, 11])
    @pytest.mark.parametrize("framing", ["told", "chunked", "until close", "packed"])
    def test_body_is_held_up_to_the_cap(self, size: int, framing: str) -> None:
        body = b"x" * size
        raw = {
            "told": told(body),
            "chunked": CHUNKED + b"5\r\nxxxxx\r\n%x\r\n%s\r\n0\r\n\r\n" % (size - 5, body[5:]),
            "until close": OK + b"\r\n" + body,
            "packed": told(gzip.compress(body), b"content-encoding: gzip\r\n"),
        }[framing]
        if size == 10:
            assert read(raw, max_bytes=10, ends=True).body == body
        else:
            with pytest.raises(ReplyTooLargeError):
                read(raw, max_bytes=10, ends=True)

    def test_length_beyond_the_cap_is_not_waited_for(self) -> None:
        with pytest.raises(ReplyTooLargeError):
            ReplyReader(10).feed(OK + b"content-length: 11\r\n\r\n")

    @pytest.mark.parametrize(
        ("start", "again"),
        [
            (b"", HINTS),
            (OK, b"x: " + b"y" * 1_000 + b"\r\n"),
            (OK + b"x: ", b"y" * 1_000),
            (b"HTTP/1.1 200 ", b"y" * 1_000),
            (CHUNKED + b"1;", b"y" * 1_000),
            (CHUNKED + b"0\r\nx: ", b"y" * 1_000),
        ],
        ids=["interim", "headers", "value", "reason", "extension", "trailer"],
    )
    def test_what_is_no_body_is_bounded(self, start: bytes, again: bytes) -> None:
        reader = ReplyReader(10**9)
        reader.feed(start or again)
        fed_bytes = 0
        while fed_bytes < MAX_HEAD_BYTES - 3 * 1_024:
            assert reader.feed(again) is None
            fed_bytes += len(again)
        with pytest.raises(NoHttpError, match="head"):
            _feed_all(reader, [again] * (1 + 4 * 1_024 // len(again)))

    def test_large_head_in_one_piece_is_refused(self) -> None:
        with pytest.raises(NoHttpError, match="head"):
            read(told(b"", b"x: " + b"y" * MAX_HEAD_BYTES + b"\r\n"))

    @pytest.mark.parametrize("line", [b"x-%d: y\r\n", b"x: y%d\r\n"], ids=["names", "one name"])
    def test_headers_are_counted(self, line: bytes) -> None:
        few = b"".join(line % number for number in range(MAX_HEADERS - 1))
        assert read(told(b"", few)).status == 200
        with pytest.raises(NoHttpError, match="headers"):
            read(told(b"", few + b"".join(line % number for number in range(1_000, 1_003))))


REPLIES = (
    told(b'{"ok":true}', b"x-a: 1\r\nx-a: 2\r\n"),
    HINTS + told(b"abc"),
    EMPTY,
    b"HTTP/1.1 204 No Content\r\nx: y\r\n\r\n",
    CHUNKED + b"3\r\nabc\r\n10;ext=1\r\n0123456789abcdef\r\n0\r\nx-end: 1\r\n\r\n",
    OK + b"\r\n" + b"until the end",
    told(PACKED, b"content-encoding: gzip\r\n"),
    told(PACKED + PACKED, b"content-encoding: x-gzip\r\n"),
    told(zlib.compress(b"z" * 99), b"content-encoding: deflate\r\n"),
    told(zlib.compress(b"z" * 99)[2:-4], b"content-encoding: deflate\r\n"),
    told(PACKED[:-3], b"content-encoding: gzip\r\n"),
    told(b"no gzip", b"content-encoding: gzip\r\n"),
    told(b"x" * 2_000),
    told(b"abc") + told(b"evil"),
    CHUNKED + b"zz\r\n",
    OK + b"no colon\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.9\r\n",
    b"HTTP/1.1 101 X\r\n\r\nabc",
    OK + b"content-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
)


def outcome(pieces: list[bytes]) -> object:
    """What a connection that then ends makes of the pieces: what is behind a reply ends it, and counts as that."""
    reader = ReplyReader(1_000)
    try:
        for number, piece in enumerate(pieces):
            reply = reader.feed(piece)
            if reply is not None:
                return reply._replace(is_last=reply.is_last or any(map(bytes.strip, pieces[number + 1 :])))
        return reader.end()
    except ReplyError as error:
        return type(error)


@given(raw=st.sampled_from(REPLIES), cuts=st.sets(st.integers(0, 400)))
@example(raw=REPLIES[0], cuts=set(range(400)))
@example(raw=REPLIES[7], cuts=set(range(400)))
def test_cuts_between_bytes_change_nothing(raw: bytes, cuts: set[int]) -> None:
    marks = [0, *sorted(cut for cut in cuts if cut < len(raw)), len(raw)]
    pieces = [raw[start:end] for start, end in pairwise(marks) if start != end]
    assert outcome(pieces) == outcome([raw])


@given(
    raw=st.sampled_from(REPLIES),
    place=st.integers(0, 200),
    junk=st.binary(min_size=1, max_size=8),
    data=st.data(),
)
def test_damage_is_told_the_same_however_it_is_cut(
    raw: bytes, place: int, junk: bytes, data: st.DataObject
) -> None:
    damaged = raw[:place] + junk + raw[place + len(junk) :]
    cut = data.draw(st.integers(0, len(damaged)))
    assert outcome([piece for piece in (damaged[:cut], damaged[cut:]) if piece]) == outcome([damaged])


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=20))
def test_no_bytes_are_too_strange(pieces: list[bytes]) -> None:
    result = outcome(pieces)
    assert isinstance(result, Reply) or (isinstance(result, type) and issubclass(result, ReplyError))


@pytest.mark.parametrize("spelling", ["chunked", "Chunked", "CHUNKED"])
def test_a_chunked_body_that_ends_early_is_no_answer_however_it_is_spelt(spelling: str) -> None:
    reader = ReplyReader(1 << 20)
    head = f"HTTP/1.1 200 OK\r\nTransfer-Encoding: {spelling}\r\n\r\n".encode()
    assert reader.feed(head + b"ff\r\nhello") is None
    with pytest.raises(BrokenReplyError):
        reader.end()


def test_chunks_of_two_bytes_come_back_whole_and_in_order() -> None:
    reader = ReplyReader(1 << 20)
    body = b"".join(b"%05d" % number for number in range(4_000))
    chunks = b"".join(b"2\r\n" + body[at : at + 2] + b"\r\n" for at in range(0, len(body), 2))
    reply = reader.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
    assert reply is not None
    assert reply.body == body


def test_made_up_names_of_headers_are_not_kept() -> None:
    before = dict(_names)
    reader = ReplyReader(1 << 20)
    name = "x-" + "n" * 100
    reply = reader.feed(f"HTTP/1.1 200 OK\r\n{name}: 1\r\nContent-Length: 0\r\n\r\n".encode())
    assert reply is not None
    assert reply.headers[name] == "1"
    assert name.encode() not in _names
    assert set(_names) - set(before) <= {b"Content-Length"}
