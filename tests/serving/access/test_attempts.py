"""How often somebody may fail, and that waiting helps."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from argon2 import extract_parameters

from heatmask.serving.access import passwords
from heatmask.serving.access.attempts import Attempts, find_network
from heatmask.serving.access.person import AccessError
from helpers.oidc import PASSWORD

WRONG = "wrong horse battery"


def log_in(url: str, name: str, password: str) -> requests.Response:
    data = {"username": name, "password": password}
    return requests.post(f"{url}/auth/token", data=data, timeout=60)


@pytest.mark.parametrize("name", ["the.admin", "nobody.at.all"])
def test_after_ten_failures_a_user_has_to_wait(start, users, name):
    url = start().url
    answers = [log_in(url, name, WRONG) for _ in range(11)]
    assert [answer.status_code for answer in answers] == [401] * 10 + [429]
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 300
    assert "Too many failed attempts" in answers[-1].text
    assert log_in(url, name.upper(), PASSWORD).status_code == 429
    assert log_in(url, "the.reviewer", PASSWORD).status_code == 200


def test_many_at_once_do_not_get_past_the_limit(start, users):
    url = start().url
    with ThreadPoolExecutor(25) as pool:
        answers = list(pool.map(lambda _: log_in(url, "the.admin", WRONG), range(25)))
    statuses = [answer.status_code for answer in answers]
    assert statuses.count(401) == 10
    assert statuses.count(429) == 15


def test_right_passwords_do_not_count(start, users):
    url = start().url
    assert {log_in(url, "the.admin", PASSWORD).status_code for _ in range(12)} == {200}


def test_wrong_tokens_are_limited_and_valid_ones_go_on(start, users):
    site = start()
    good = {"Authorization": f"Bearer {users.make_token('the.admin', 'script', 1)}"}
    bad = {"Authorization": "Bearer heatmask_wrong"}
    with requests.Session() as session:
        statuses = [session.get(f"{site.url}/info/", headers=bad).status_code for _ in range(101)]
        assert statuses == [401] * 100 + [429]
        assert session.get(f"{site.url}/info/", headers=good).status_code == 200


def test_an_unknown_user_costs_as_much_as_a_known_one(users, monkeypatch):
    """One pass of argon2 each, of the same cost: nobody learns from the time who is known."""
    costs, hasher = [], passwords._HASHER

    class Watched:
        def verify(self, hashed: str, password: str) -> bool:
            costs.append(extract_parameters(hashed))
            return hasher.verify(hashed, password)

    users.add("script", users.list_users()[0].role, None)
    monkeypatch.setattr(passwords, "_HASHER", Watched())
    for name in ("the.admin", "nobody", "script"):
        assert users.log_in(name, WRONG, 1) is None
    assert len(costs) == 3
    assert costs == [costs[0]] * 3


def fail(attempts: Attempts, key: str, status: int = 401) -> None:
    with pytest.raises(AccessError, match="no"), attempts.attempt(key):
        raise AccessError(status, "no")


def test_failures_are_forgotten_after_the_window():
    now = [0.0]
    attempts = Attempts(2, 60, clock=lambda: now[0])
    fail(attempts, "a")
    now[0] = 30
    fail(attempts, "a")
    with pytest.raises(AccessError) as refusal, attempts.attempt("a"):
        pytest.fail("tried")
    assert (refusal.value.status, refusal.value.headers) == (429, {"Retry-After": "30"})
    fail(attempts, "b")
    now[0] = 61
    fail(attempts, "a")


def test_only_401_is_a_failure():
    attempts = Attempts(1, 60)
    for status in (403, 503, 403):
        fail(attempts, "a", status)
    with attempts.attempt("a"):
        pass
    fail(attempts, "a")


def test_keys_do_not_grow_without_bound():
    attempts = Attempts(1, 60, max_keys=100)
    for number in range(1000):
        attempts.count(str(number))
    assert len(attempts._times) == 100


@pytest.mark.parametrize(
    ("address", "network"),
    [("10.0.0.1", "10.0.0.1"), ("2001:db8::1", "2001:db8::/64"),
     ("2001:db8::ffff:1", "2001:db8::/64"),
     ("::ffff:10.0.0.1", "10.0.0.1"), ("", ""), ("unknown", "unknown")],
)  # fmt: skip
def test_an_ipv6_network_counts_as_one_address(address, network):
    assert find_network(address) == network
