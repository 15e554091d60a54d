"""The finished system against the plan, by testinfra: expected.json beside this file says what must be there.

Everything is asked in a few commands, because in emulation every command takes a second.
"""

import json
from pathlib import Path

import pytest

EXPECTED = json.loads(Path(__file__).with_name("expected.json").read_text(encoding="utf-8"))
#: the list of paths that lies on the machine
PATHS = "/run/imagegen/paths"


@pytest.fixture(scope="module")
def facts(host):
    stat = host.run(f"xargs -a {PATHS} -d '\\n' stat --printf='%F\\t%a\\t%U\\t%G\\t%N\\t%n\\0'").stdout
    rows = [row.split("\t") for row in stat.split("\0") if row]
    sums = host.run(f"xargs -a {PATHS} -d '\\n' sha256sum --zero 2>/dev/null").stdout
    return {
        "status": {row[5]: row[:5] for row in rows},
        "sums": {line[66:]: line[:64] for line in sums.split("\0") if line},
    }


@pytest.fixture(scope="module")
def packages(host):
    names = " ".join(EXPECTED["packages"])
    query = (
        f"dpkg-query --show --showformat='${{Package}} ${{db:Status-Status}}\\n' {names} 2>/dev/null"
        if host.exists("dpkg-query")
        else f"rpm --query --queryformat '%{{NAME}} installed\\n' {names}"
    )
    lines = host.run(query).stdout.splitlines()
    return {line.split()[0] for line in lines if line.endswith(" installed")}


@pytest.fixture(scope="module")
def units(host):
    names = " ".join(EXPECTED["units"])
    lines = host.run(f"for u in {names}; do echo $u $(systemctl is-enabled $u 2>/dev/null); done").stdout
    return {line.split()[0]: line.split()[1:] for line in lines.splitlines()}


@pytest.fixture(scope="module")
def accounts(host):
    users = [line.split(":") for line in host.run("cat /etc/passwd").stdout.splitlines()]
    groups = [line.split(":") for line in host.run("cat /etc/group").stdout.splitlines()]
    return {
        "users": {row[0]: row for row in users},
        "groups": {row[0]: row for row in groups},
        "names": {row[2]: row[0] for row in groups},
    }


@pytest.mark.parametrize("entry", EXPECTED["entries"], ids=lambda entry: entry["path"])
def test_entry(facts, entry):
    path = entry["path"]
    assert path in facts["status"], f"{path} is not there"
    kind, mode, owner, group, _ = facts["status"][path]
    kinds = {"file": ("regular file", "regular empty file"), "link": ("symbolic link",)}
    assert kind in kinds.get(entry["kind"], ("directory",))
    if entry["kind"] != "link":
        assert f"{int(mode, 8):04o} {owner}:{group}" == f"{entry['mode']} {entry['owner']}:{entry['group']}"
    if entry.get("sha256"):
        assert facts["sums"][path] == entry["sha256"]


def test_links(host):
    links = {entry["path"]: entry["target"] for entry in EXPECTED["entries"] if entry["kind"] == "link"}
    assert {path: host.run("readlink -- %s", path).stdout.rstrip("\n") for path in links} == links


@pytest.mark.parametrize("name", EXPECTED["packages"])
def test_package(packages, name):
    assert name in packages


@pytest.mark.parametrize("name", EXPECTED["units"])
def test_unit(units, name):
    wanted = EXPECTED["units"][name]
    # a unit that is not on this distribution is as good as a disabled or masked one
    allowed = {"enabled": ["enabled"], "masked": ["masked"], "disabled": ["disabled", "static", "not-found"]}
    assert (units[name] or ["not-found"])[0] in allowed[wanted]


@pytest.mark.parametrize("user", EXPECTED["users"], ids=lambda user: user["name"])
def test_user(accounts, user):
    assert user["name"] in accounts["users"]
    row = accounts["users"][user["name"]]
    assert (accounts["names"][row[3]], row[5], row[6]) == (user["group"], user["home"], user["shell"])
    if user["uid"] is not None:
        assert row[2] == str(user["uid"])
    for group in user["groups"]:
        assert user["name"] in accounts["groups"][group][3].split(",")


@pytest.mark.parametrize("name", EXPECTED["groups"])
def test_group(accounts, name):
    assert name in accounts["groups"]


def test_nobody_has_a_password(host):
    rows = [line.split(":") for line in host.run("cat /etc/shadow").stdout.splitlines()]
    assert [row[0] for row in rows if row[1] == "" or row[1].startswith("$")] == []


def test_the_build_user_is_gone(accounts):
    assert EXPECTED["build_user"] not in accounts["users"]
    assert EXPECTED["build_user"] not in accounts["groups"]


@pytest.mark.parametrize("rule", EXPECTED["hygiene"], ids=lambda rule: f"{rule['action']} {rule['pattern']}")
def test_hygiene(host, rule):
    # the tests themselves log in: what they leave is removed once more before the machine is switched off
    patterns = " ".join(f"/{pattern}" for pattern in rule["pattern"].split())
    find = f"find {patterns} -maxdepth 0 2>/dev/null"
    if rule["action"] == "remove":
        assert host.run(find).stdout == "", rule["why"]
    elif rule["action"] == "create":
        assert host.run(f"{find} -type f -empty").stdout != "", rule["why"]
