import asyncio
import math

from batchllm.limit.pool import Pool
from batchllm.limit.sharing import ALONE, NOT_YET, NoSharing, Report, Standing


def test_a_share_is_worth_nothing_once_its_lease_is_over() -> None:
    standing = Standing(share=0.5, lease_until_s=10.0)
    assert [standing.share_at(9.999), standing.share_at(10.0), standing.share_at(1e9)] == [0.5, 0.0, 0.0]


def test_who_has_not_been_heard_may_send_nothing_and_who_is_alone_everything() -> None:
    assert NOT_YET.share_at(-1e9) == 0.0
    assert ALONE.share_at(1e18) == 1.0


def test_a_run_that_shares_with_nobody_has_the_whole_limit_and_keeps_what_it_is_told() -> None:
    async def main() -> None:
        sharing = NoSharing()
        member = await sharing.join(Pool("http://h", "m"), 0.3)
        assert member.standing is ALONE
        assert member.reported == Report(demand=0.3)
        member.report(Report(demand=math.inf, used=1.0))
        assert member.reported.used == 1.0
        heard: list[float] = []
        member.watch(lambda: heard.append(member.standing.share))
        member.set(Standing(0.25, 5.0))
        assert heard == [0.25]
        await sharing.close()
        assert member.has_left

    asyncio.run(main())
