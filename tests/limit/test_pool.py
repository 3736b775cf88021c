import pytest

from batchllm.limit.pool import Pool

SECRET = bytes(range(32))
POOL = Pool("https://api.example.com/v1", "m-1", "sk-canary-1234567890")


@pytest.mark.parametrize(
    "base_url",
    [
        "https://api.example.com/v1/",
        "HTTPS://API.Example.com:443/v1",
        "https://api.example.com./v1",
        " https://api.example.com/v1?x=1#y",
        "https://user@api.example.com/v1",
    ],
)
def test_one_place_has_one_name_however_it_is_written(base_url: str) -> None:
    assert Pool(base_url, "m-1", POOL.api_key).name(SECRET) == POOL.name(SECRET)


@pytest.mark.parametrize(
    "other",
    [
        Pool("http://api.example.com/v1", "m-1", POOL.api_key),
        Pool("https://api.example.com:444/v1", "m-1", POOL.api_key),
        Pool("https://api.example.com/v2", "m-1", POOL.api_key),
        Pool("https://api.example.org/v1", "m-1", POOL.api_key),
        Pool(POOL.base_url, "m-2", POOL.api_key),
        Pool(POOL.base_url, "m-1", POOL.api_key + "1"),
        Pool(POOL.base_url, "m-1"),
        Pool(POOL.base_url, POOL.api_key, "m-1"),
        Pool("https://api.example.com:port/v1", "m-1", POOL.api_key),
    ],
)
def test_another_place_model_or_key_is_another_pool(other: Pool) -> None:
    assert other.name(SECRET) != POOL.name(SECRET)


def test_the_name_takes_sixteen_bytes_and_means_nothing_without_the_secret() -> None:
    assert len(POOL.name(SECRET)) == 16
    assert POOL.name(SECRET) != POOL.name(SECRET[::-1])


def test_a_key_of_any_text_has_a_name() -> None:
    assert Pool("", "", "\ud800").name(SECRET) != Pool("", "", "").name(SECRET)


def test_the_key_does_not_show() -> None:
    assert "canary" not in repr(POOL)
