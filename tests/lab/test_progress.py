"""How far a node is, from texts that real machines wrote."""

from __future__ import annotations

import json

import pytest

from imagegen.lab.progress import Event, NodeProgress, list_wanted, read_console, read_units
from imagegen.lab.timeline import Timeline, list_rows, render_table
from imagegen.model.cluster import Role

FIRMWARE = "\x1b[H\x1b[J  Booting `Linux'\r\n"
KERNEL = "[    0.512341] pci 0000:00:1f.2: quirk\r\n"
CLOUD_INIT = "[   42.623576] cloud-init[451]: Cloud-init v. 25.1.4 running 'init-local' at Sat\r\n"
FINISHED = "[   80.1] cloud-init[500]: imagegen: cloud-init finished after 79.83 seconds\r\n"


def _node(*roles: Role) -> NodeProgress:
    return NodeProgress(name="one", roles=roles, address="10.0.0.1")


def test_a_console_tells_the_steps_and_the_first_time_counts() -> None:
    node = _node(Role.BASE)
    read_console(node, "", 1.0)
    assert node.phase == "power on"
    read_console(node, FIRMWARE, 2.0)
    assert node.phase == "firmware"
    read_console(node, FIRMWARE + KERNEL, 5.0)
    read_console(node, FIRMWARE + KERNEL + CLOUD_INIT, 45.0)
    assert node.phase == "user space"
    assert not node.is_complete
    read_console(node, FIRMWARE + KERNEL + CLOUD_INIT + FINISHED, 81.04)
    assert node.times == {
        Event.FIRMWARE: 2.0,
        Event.KERNEL: 5.0,
        Event.USERSPACE: 45.0,
        Event.CLOUD_INIT: 81.0,
    }
    assert node.is_complete


@pytest.mark.parametrize(
    ("roles", "wanted"),
    [
        ((Role.ETCD,), {Event.CLOUD_INIT, Event.ETCD}),
        ((Role.LB,), {Event.CLOUD_INIT, Event.BALANCER}),
        ((Role.MASTER,), {Event.CLOUD_INIT, Event.API}),
        ((Role.WORKER,), {Event.CLOUD_INIT, Event.KUBELET, Event.READY}),
        (
            (Role.ETCD, Role.MASTER, Role.WORKER),
            {Event.CLOUD_INIT, Event.ETCD, Event.API, Event.KUBELET, Event.READY},
        ),
    ],
)
def test_what_is_expected_follows_from_the_roles(roles: tuple[Role, ...], wanted: set[Event]) -> None:
    assert set(list_wanted(roles)) == wanted


def test_units_are_read_as_systemd_shows_them() -> None:
    node = _node(Role.BASE)
    read_units(
        node,
        "Id=etcd.service ActiveState=active ActiveEnterTimestampMonotonic=45123456 \n"
        "Id=broken.service ActiveState=failed ActiveEnterTimestampMonotonic=0 \n"
        "rubbish\n",
    )
    assert node.units == {"etcd.service": 45.1}
    assert node.failed_units == ("broken.service",)


def test_units_of_a_container_are_timed_from_its_own_start() -> None:
    node = _node(Role.BASE)
    read_units(
        node,
        "UserspaceTimestampMonotonic=36972000000\n"
        "Id=etcd.service ActiveState=active ActiveEnterTimestampMonotonic=36979200000 \n",
    )
    assert node.units == {"etcd.service": 7.2}


def test_the_table_shows_times_gaps_and_what_does_not_apply() -> None:
    etcd, worker = _node(Role.ETCD), _node(Role.WORKER)
    for event, seconds in ((Event.KERNEL, 9.2), (Event.CLOUD_INIT, 41.0), (Event.ETCD, 43.6)):
        etcd.note(event, seconds)
    worker.note(Event.KERNEL, 10.0)
    rows = list_rows([etcd, worker])
    assert rows[0] == ("one", "etcd", "done", "9 s", "41 s", "44 s", "-", "-", "…")
    assert rows[1] == ("one", "worker", "kernel", "10 s", "…", "…", "-", "…", "…")
    assert len(render_table([etcd, worker]).splitlines()) == 3


def test_the_table_says_which_units_have_failed() -> None:
    node = _node(Role.BASE)
    active = "Id=a.service ActiveState=active ActiveEnterTimestampMonotonic=1000000 \n"
    read_units(node, active)
    assert list_rows([node])[0][-1] == "1 ok"
    read_units(node, active + "Id=b.service ActiveState=failed ActiveEnterTimestampMonotonic=0 \n")
    assert list_rows([node])[0][-1] == "b.service failed"


def test_trouble_takes_the_place_of_the_phase() -> None:
    node = _node(Role.WORKER)
    node.trouble = "Kernel panic - not syncing"
    assert node.phase == "failed"
    assert list_rows([node])[0][2] == "Kernel panic - not syncing"


def test_a_timeline_is_json_with_the_same_keys_whatever_happened() -> None:
    node = _node(Role.WORKER)
    timeline = Timeline(
        cluster="lab",
        kubernetes="1.36.4",
        engine="qemu",
        runs_on="kvm",
        started_at=0.0,
        seconds=None,
        api_seconds=None,
        nodes={"one": node},
    )
    data = json.loads(timeline.emit())
    assert data["started"] == "1970-01-01T00:00:00+00:00"
    assert data["ready_seconds"] is None
    assert set(data["nodes"]["one"]) == {
        "roles", "address", "power_on", "events", "units", "failed_units", "cpu_seconds", "trouble",
    }  # fmt: skip
