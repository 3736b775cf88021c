import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchllm.simulate.wire import (
    HEAD_CAP_BYTES,
    HttpRequest,
    RequestReader,
    WireError,
    cut_short,
    http_date,
    render_chunk,
    render_event,
    render_head,
)

CAP = 1_000_000


def read_all(data: bytes, cuts: list[int] | None = None) -> list[HttpRequest]:
    """Every request in `data`, fed in packets cut at `cuts`."""
    reader, found, start = RequestReader(CAP), [], 0
    for end in [*sorted(cut % (len(data) + 1) for cut in cuts or []), len(data)]:
        if end > start:
            reader.feed(data[start:end])
        start = end
        while (request := reader.next_request()) is not None:
            found.append(request)
    return found


def post(body: bytes, *lines: str, path: str = "/v1/chat/completions") -> bytes:
    head = [f"POST {path} HTTP/1.1", "Host: here", *lines]
    if not any(line.lower().startswith("transfer-encoding") for line in lines):
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


CHUNKED = b"5\r\nhello\r\n6;note=x\r\n world\r\n0\r\nTrailer: x\r\n\r\n"
STREAM = (
    post(b'{"a": 1}')
    + b"\r\n"
    + post(CHUNKED, "Transfer-Encoding: chunked", path="/two")
    + b"GET /three?api-version=1#x HTTP/1.1\r\nHost: here\r\n\r\n"
    + post(b"x" * 5000, path="/four")
)


@given(st.lists(st.integers(0, len(STREAM)), max_size=30))
def test_packets_do_not_matter(cuts: list[int]) -> None:
    requests = read_all(STREAM, cuts)
    assert [(request.method, request.path, request.body) for request in requests] == [
        ("POST", "/v1/chat/completions", b'{"a": 1}'),
        ("POST", "/two", b"hello world"),
        ("GET", "/three", b""),
        ("POST", "/four", b"x" * 5000),
    ]


def test_one_byte_at_a_time_reads_the_same() -> None:
    assert read_all(STREAM, list(range(len(STREAM)))) == read_all(STREAM)


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=5))
def test_any_bytes_give_requests_or_a_wire_error(data: bytes, cuts: list[int]) -> None:
    try:
        requests = read_all(data + b"\r\n\r\n", cuts)
    except WireError as error:
        assert 400 <= error.status < 600  # noqa: PT017 - either way is right
    else:
        assert all(request.method for request in requests)


def test_header_names_are_lower_case_and_values_trimmed() -> None:
    (request,) = read_all(post(b"", "X-Test:  a b \t", "x-test: c"))
    assert request.headers["x-test"] == "a b, c"


def test_an_absolute_target_is_read_as_its_path() -> None:
    (request,) = read_all(b"GET http://127.0.0.1:80/v1/models?x=1 HTTP/1.1\r\n\r\n")
    assert request.path == "/v1/models"


@pytest.mark.parametrize(
    ("line", "version", "keeps_alive"),
    [
        ("", "1.1", True),
        ("Connection: close\r\n", "1.1", False),
        ("Connection: keep-alive\r\n", "1.0", False),
    ],
)
def test_the_connection_is_kept_as_the_client_wishes(line: str, version: str, keeps_alive: bool) -> None:
    (request,) = read_all(f"GET /x HTTP/{version}\r\n{line}\r\n".encode())
    assert request.keeps_alive is keeps_alive


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /x\r\n\r\n", 400),
        (b"GET  /x HTTP/1.1\r\n\r\n", 400),
        (b"GET /x HTTP/2.0\r\n\r\n", 505),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\r\nName : x\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\r\nA: b\r\n folded\r\n\r\n", 400),
        (post(b"", "Content-Length: 5"), 400),
        (b"POST /x HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /x HTTP/1.1\r\nContent-Length: 1_0\r\n\r\n", 400),
        (b"POST /x HTTP/1.1\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST /x HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (post(b"zz\r\n", "Transfer-Encoding: chunked"), 400),
        (post(b"-5\r\nhello\r\n", "Transfer-Encoding: chunked"), 400),
        (post(b"3\r\nhello\r\n0\r\n\r\n", "Transfer-Encoding: chunked"), 400),
        (post(b"f" * 2000, "Transfer-Encoding: chunked"), 400),
        (b"GET /x HTTP/1.1\r\nA: " + b"b" * HEAD_CAP_BYTES + b"\r\n\r\n", 431),
        (post(b"0\r\nA: " + b"b" * HEAD_CAP_BYTES, "Transfer-Encoding: chunked"), 431),
        (f"POST /x HTTP/1.1\r\nContent-Length: {CAP + 1}\r\n\r\n".encode(), 413),
        (post(b"fffffff\r\n", "Transfer-Encoding: chunked"), 413),
    ],
)
def test_what_is_no_request_is_refused(data: bytes, status: int) -> None:
    with pytest.raises(WireError) as raised:
        read_all(data)
    assert raised.value.status == status


def test_chunks_together_may_not_pass_the_cap() -> None:
    chunk = b"61a80\r\n" + b"x" * 400_000 + b"\r\n"
    with pytest.raises(WireError, match="larger than"):
        read_all(post(chunk * 3, "Transfer-Encoding: chunked"))


def test_leave_to_send_the_body_is_owed_once() -> None:
    reader = RequestReader(CAP)
    reader.feed(b"POST /x HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    assert reader.next_request() is None
    assert reader.take_continue()
    assert not reader.take_continue()
    reader.feed(b"ok")
    request = reader.next_request()
    assert request is not None
    assert request.body == b"ok"


def test_no_leave_is_owed_for_a_body_that_is_there() -> None:
    reader = RequestReader(CAP)
    reader.feed(b"POST /x HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nok")
    assert reader.next_request() is not None
    assert not reader.take_continue()


def test_a_head_says_length_and_end_of_connection() -> None:
    head = render_head(429, [("retry-after", "2")], length=7, keeps_alive=False)
    assert head == (
        b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 2\r\ncontent-length: 7\r\nconnection: close\r\n\r\n"
    )


def test_a_head_without_length_announces_none() -> None:
    assert b"content-length" not in render_head(200, [], length=None, keeps_alive=True)


def test_chunks_events_and_dates_have_their_form() -> None:
    assert render_chunk(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"
    assert render_event(b"{}") == b"data: {}\n\n"
    assert http_date(0) == "Thu, 01 Jan 1970 00:00:00 GMT"


def test_half_of_what_was_to_be_sent_is_left_of_a_cut() -> None:
    assert cut_short((b"abcdef",)) == (b"abc",)
    assert cut_short((b"a", b"b", b"c", b"d")) == (b"a", b"b")
