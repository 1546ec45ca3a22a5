"""Two real `upshim proxy` on one PostgreSQL: limits together, one of them killed, the database gone for a while."""

from __future__ import annotations

import http.client
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from captures.audit import audit, entries_of
from captures.store import Store
from tests.bodies import CHECK_TARGET, INTERIM, OFFER_NEXT, answer_body, check_body
from tests.postgres import postgres_server
from tests.proxies import Proxy, running
from tests.servers import message, serving


def ask(proxy: Proxy, phone: int) -> bool | None:
    """One update check: whether the phone was offered something; None where its shim died meanwhile."""
    try:
        with closing(http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=60)) as connection:
            headers = {"Content-Type": "text/xml"}
            connection.request("POST", CHECK_TARGET, check_body(mac=f"0004F20000{phone:02X}"), headers)
            answer = connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return None
    assert (INTERIM.encode() in answer) or answer == answer_body()
    return INTERIM.encode() in answer


@contextmanager
def two_shims(database: str, rules: str, folder: Path) -> Iterator[list[Proxy]]:
    (folder / "rules.toml").write_text(rules)
    with serving(lambda _: [message(answer_body(), "Content-Type: text/xml")]) as upstream, ExitStack() as stack:
        options = {"rules": folder / "rules.toml", "record": database}
        yield [stack.enter_context(running("upshim", upstream.url, folder / name, **options)) for name in "ab"]


def all_at_once(proxies: list[Proxy], phones: list[int]) -> Counter[int]:
    """Offers by phone, as the phones saw them."""
    with ThreadPoolExecutor(8) as pool:
        asked = [(phone, pool.submit(ask, proxy, phone)) for phone in phones for proxy in proxies]
        return Counter(phone for phone, answer in asked if answer.result())


def test_two_shims_on_one_database(tmp_path: Path) -> None:
    limits = "limits.per_phone_per_day = 2\nlimits.concurrent_downloads = 6\n"
    with postgres_server() as server:
        database = server.new_database()
        with two_shims(database.secret, OFFER_NEXT + limits, tmp_path) as (one, two):
            assert all_at_once([one, two], [1, 2, 1, 2, 1, 2]) == {1: 2, 2: 2}

            # While the database is away traffic flows and nothing is offered.
            server.stop()
            try:
                answers = [ask(proxy, phone) for phone in range(100, 103) for proxy in (one, two)]
            finally:
                server.start()
            assert answers == [False] * 6, "as the server has answered"
            wait_for(one, b"the database is back")
            wait_for(two, b"the database is back")

            # One that asks again gives up its place: every other phone asks once.
            with ThreadPoolExecutor(8) as pool:
                asked = [(phone, pool.submit(ask, (one, two)[phone % 2], phone)) for phone in range(3, 40)]
                asked[4][1].result()
                two.kill()
                given = {phone for phone, answer in asked if answer.result()}
            # What the killed one had reserved and nobody was given counts too: there may be less, never more.
            assert 1 <= len(given) <= 6
            given |= all_at_once([one], list(range(40, 60))).keys()
            assert len(given) <= 6
            assert not all_at_once([one], [1, 2])
            assert one.stop() == 0
        with closing(Store.open(database)) as store:
            facts = [fact for one in store.exchanges() for fact in one.facts]
            assert audit(entries_of(store), store).good
    macs = Counter(fact["mac_address"] for fact in facts if "mac_address" in fact)
    assert [macs[f"00:04:f2:00:00:{phone:02x}"] for phone in range(100, 103)] == [2, 2, 2], "caught up, once"


def wait_for(proxy: Proxy, said: bytes) -> None:
    deadline = time.monotonic() + 60
    while said not in proxy.log:
        assert time.monotonic() < deadline, proxy.log.decode()
        time.sleep(0.01)
