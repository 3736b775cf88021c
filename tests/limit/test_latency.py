from batchllm.limit.latency import LONGEST_DEADLINE_S, SHORTEST_DEADLINE_S, Latency


def learned(*latencies_s: float) -> Latency:
    latency = Latency()
    for latency_s in latencies_s:
        latency.learn(latency_s)
    return latency


def test_until_enough_is_known_a_call_is_waited_for_long() -> None:
    assert learned(*[0.1] * 19).deadline_s() == LONGEST_DEADLINE_S
    assert learned(*[0.1] * 20).deadline_s() == SHORTEST_DEADLINE_S


def test_it_is_ten_times_the_longest_within_bounds() -> None:
    assert learned(*[1.0] * 20, 8.0).deadline_s() == 80.0
    assert learned(*[100.0] * 20).deadline_s() == LONGEST_DEADLINE_S


def test_a_single_long_answer_is_forgotten_slowly() -> None:
    latency = learned(*[1.0] * 20, 8.0)
    for _ in range(100):
        latency.learn(1.0)
    assert latency.deadline_s() > 60.0
    for _ in range(2_000):
        latency.learn(1.0)
    assert latency.deadline_s() == SHORTEST_DEADLINE_S


def test_a_deadline_that_is_told_stays() -> None:
    latency = Latency(5.0)
    for _ in range(100):
        latency.learn(4.0)
    assert latency.deadline_s(3) == latency.longest_s == 5.0


def test_a_request_that_was_given_up_is_waited_for_longer_each_time() -> None:
    latency = learned(*[0.1] * 20)
    assert [latency.deadline_s(times) for times in range(4)] == [30.0, 120.0, 480.0, LONGEST_DEADLINE_S]
