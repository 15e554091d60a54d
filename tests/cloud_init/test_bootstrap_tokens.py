"""Bootstrap tokens come in once: not on a reboot, not by another master, not after expiry or revocation."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.cloud_init.fake_api import KUBE_SYSTEM, FakeApi, serve
from tests.cloud_init.programs import FOLDER

assert FOLDER
import bootstrap_tokens  # type: ignore[import-not-found]  # noqa: E402
import kube_api  # type: ignore[import-not-found]  # noqa: E402

SECRETS, CONFIG_MAPS = f"{KUBE_SYSTEM}/secrets", f"{KUBE_SYSTEM}/configmaps"
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
DAY = timedelta(hours=24)


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with serve() as server:
        yield server


def connect(api: FakeApi, tmp_path: Path) -> Any:
    return kube_api.ApiClient(kube_api.read_kubeconfig(str(api.write_kubeconfig(tmp_path / "kubeconfig"))))


@pytest.fixture
def client(api: FakeApi, tmp_path: Path) -> Any:
    return connect(api, tmp_path)


def make_tokens(count: int, start: int = 0) -> dict[str, Any]:
    return {
        f"worker-{i}": bootstrap_tokens.Token(f"{i:06d}", f"{i:016d}") for i in range(start, start + count)
    }


def apply(client: Any, tokens: dict[str, Any], lifetime: timedelta = DAY, now: datetime = NOW) -> int:
    made: int = bootstrap_tokens.apply_tokens(client, tokens, lifetime, now)
    return made


def test_a_token_becomes_a_secret_that_names_its_node(api: FakeApi, client: Any) -> None:
    assert apply(client, make_tokens(1)) == 1
    secret = api.collection(SECRETS)["bootstrap-token-000000"]
    assert secret["type"] == "bootstrap.kubernetes.io/token"
    assert secret["stringData"] == {
        "token-id": "000000",
        "token-secret": "0" * 16,
        "description": "TLS bootstrap of node worker-0",
        "usage-bootstrap-authentication": "true",
        "usage-bootstrap-signing": "true",
        "auth-extra-groups": "system:bootstrappers:imagegen:worker-0",
        "expiration": "2026-01-02T12:00:00Z",
    }


def test_a_lifetime_of_zero_means_no_expiry(api: FakeApi, client: Any) -> None:
    apply(client, make_tokens(1), timedelta(0))
    assert "expiration" not in api.collection(SECRETS)["bootstrap-token-000000"]["stringData"]
    api.collection(SECRETS).clear()
    assert apply(client, make_tokens(1), timedelta(0), NOW + 1000 * DAY) == 0


def test_a_reboot_neither_extends_nor_revives(api: FakeApi, client: Any) -> None:
    apply(client, make_tokens(3))
    del api.collection(SECRETS)["bootstrap-token-000001"]
    before = dict(api.collection(SECRETS))
    for hours in (1, 23, 48):
        assert apply(client, make_tokens(3), now=NOW + timedelta(hours=hours)) == 0
    assert api.collection(SECRETS) == before


def test_a_new_node_and_a_new_token_of_a_known_node_come_in(api: FakeApi, client: Any) -> None:
    apply(client, make_tokens(2))
    tokens = make_tokens(3)
    tokens["worker-0"] = bootstrap_tokens.Token("zzzzzz", "z" * 16)
    assert apply(client, tokens, now=NOW + timedelta(days=30)) == 2
    secret = api.collection(SECRETS)["bootstrap-token-zzzzzz"]["stringData"]
    assert secret["expiration"] == "2026-02-01T12:00:00Z"
    # a master that still has the old file changes nothing
    api.collection(SECRETS).pop("bootstrap-token-000000")
    assert apply(client, make_tokens(2), now=NOW + timedelta(days=31)) == 0


def test_no_secret_of_a_token_is_in_the_record(api: FakeApi, client: Any) -> None:
    tokens = {"worker-0": bootstrap_tokens.Token("abcdef", "canary0123456789")}
    apply(client, tokens)
    assert "canary0123456789" not in str(api.collection(CONFIG_MAPS))
    assert tokens["worker-0"].digest in str(api.collection(CONFIG_MAPS))


@pytest.mark.parametrize("requests_before", range(1, 10))
def test_a_run_cut_off_anywhere_is_finished_with_the_same_expiry(
    api: FakeApi, client: Any, tmp_path: Path, requests_before: int
) -> None:
    class Cut(Exception):
        """The power goes."""

    left = requests_before
    ask = client.request

    def request(*arguments: Any, **keywords: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise Cut
        return ask(*arguments, **keywords)

    client.request = request
    try:
        apply(client, make_tokens(2))
        finished = True
    except Cut:
        finished = False
    recorded = bool(api.collection(CONFIG_MAPS))
    apply(connect(api, tmp_path), make_tokens(2), now=NOW + timedelta(hours=1))
    expirations = {
        s["metadata"]["name"]: s["stringData"]["expiration"] for s in api.collection(SECRETS).values()
    }
    assert set(expirations) == {"bootstrap-token-000000", "bootstrap-token-000001"}
    if finished:
        assert set(expirations.values()) == {"2026-01-02T12:00:00Z"}
    elif recorded:
        assert "2026-01-02T12:00:00Z" in expirations.values()
    done = dict(api.collection(SECRETS))
    api.collection(SECRETS).clear()
    assert apply(connect(api, tmp_path), make_tokens(2), now=NOW + timedelta(hours=2)) == 0
    assert done


def test_what_was_cut_off_and_has_expired_stays_away(api: FakeApi, client: Any) -> None:
    api.faults.append(("POST", SECRETS, 500))
    with pytest.raises(kube_api.ApiError):
        apply(client, make_tokens(1))
    assert apply(client, make_tokens(1), now=NOW + 2 * DAY) == 0
    assert api.collection(SECRETS) == {}


def test_three_masters_at_once_make_each_secret_once(api: FakeApi, tmp_path: Path) -> None:
    tokens = make_tokens(60)
    counts: list[int] = []
    clients = [connect(api, tmp_path) for _ in range(3)]

    def run(one: Any, minutes: int) -> None:
        counts.append(apply(one, tokens, now=NOW + timedelta(minutes=minutes)))

    threads = [threading.Thread(target=run, args=(c, i)) for i, c in enumerate(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(counts) == 60
    assert len(api.collection(SECRETS)) == 60
    # the record and the Secrets agree, whoever won
    recorded = {}
    for config_map in api.collection(CONFIG_MAPS).values():
        for text in config_map["data"].values():
            (line,) = text.splitlines()
            token_id, _, expiration, state = line.split()
            assert state == "applied"
            recorded[f"bootstrap-token-{token_id}"] = expiration
    assert recorded == {n: s["stringData"]["expiration"] for n, s in api.collection(SECRETS).items()}


def test_hundreds_of_nodes_need_few_requests_on_later_boots(api: FakeApi, client: Any) -> None:
    apply(client, make_tokens(400))
    api.requests.clear()
    assert apply(client, make_tokens(400)) == 0
    assert len(api.requests) <= 16
    assert {method for method, _ in api.requests} == {"GET"}


def test_very_many_tokens_are_not_for_signing(
    api: FakeApi, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap_tokens, "MAX_SIGNING_TOKENS", 2)
    apply(client, make_tokens(3))
    assert all("usage-bootstrap-signing" not in s["stringData"] for s in api.collection(SECRETS).values())


def test_the_record_of_ten_thousand_nodes_fits() -> None:
    """A ConfigMap may hold 1 MiB."""
    sizes = dict.fromkeys("0123456789abcdef", 0)
    for i in range(10_000):
        name = f"a-rather-long-name-of-a-worker-{i}"
        entry = bootstrap_tokens.Entry("abcdef", "0" * 64, "2026-01-02T12:00:00Z", applied=True)
        sizes[bootstrap_tokens.shard_of(name)] += len(name) + len(str(entry)) + 16
    assert max(sizes.values()) < 200_000


@pytest.mark.parametrize(
    "text",
    [
        "worker-0\n",
        "worker-0 abcdef.0123456789abcdef extra\n",
        "worker-0 ABCDEF.0123456789abcdef\n",
        "worker-0 abcdef.0123456789abcde\n",
        "Worker abcdef.0123456789abcdef\n",
        "../x abcdef.0123456789abcdef\n",
        "worker-0 abcdef.0123456789abcdef\nworker-0 abcdef.0123456789abcdef\n",
    ],
)
def test_a_wrong_token_file_is_refused_without_showing_the_token(text: str) -> None:
    with pytest.raises(ValueError, match="line") as caught:
        bootstrap_tokens.parse_tokens(text)
    assert "0123456789" not in str(caught.value)


def test_a_token_file_with_comments_is_read() -> None:
    tokens = bootstrap_tokens.parse_tokens("# NODE TOKEN\n\nworker-0 abcdef.0123456789abcdef\n")
    assert tokens == {"worker-0": bootstrap_tokens.Token("abcdef", "0123456789abcdef")}


def test_a_damaged_record_is_not_overwritten(api: FakeApi, client: Any) -> None:
    name = bootstrap_tokens.RECORD_PREFIX + bootstrap_tokens.shard_of("worker-0")
    api.store(CONFIG_MAPS, {"metadata": {"name": name}, "data": {"worker-0": "what is this"}})
    with pytest.raises(ValueError, match="damaged"):
        apply(client, make_tokens(1))
    assert api.collection(SECRETS) == {}
