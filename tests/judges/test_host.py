"""Foreign judges over host preparation: nft, sshd, visudo, systemd-analyze; and packets at the filter."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from imagegen.kubernetes.gates import load_gates
from imagegen.kubernetes.releases import load_releases
from imagegen.model.cluster import Cluster, Cni, ImageMode, OperatingSystem, ProxyMode, Role
from imagegen.model.systems import SYSTEMS
from imagegen.plan.component import Component, Context
from imagegen.plan.components import access, firewall, host
from imagegen.plan.items import File, Item, Login, Origin, Phase, Port, Unit, UnitState
from tests.judges.tools import Tool
from tests.plan.plans import make_plan, read_cluster, write_cluster

pytestmark = pytest.mark.judge

ORIGIN = Origin("component test")
ROLE_SETS = ((Role.ETCD,), (Role.MASTER,), (Role.WORKER,), (Role.LB,), (Role.ETCD, Role.MASTER, Role.WORKER))


def make_port(first: int, last: int = 0, protocol: str = "tcp", sources: tuple[str, ...] = ()) -> Port:
    return Port(
        phase=Phase.BAKE,
        origin=ORIGIN,
        first=first,
        last=last or first,
        protocol="udp" if protocol == "udp" else "tcp",
        purpose=f"test {first}",
        sources=sources,
    )


PORTS = [
    make_port(22),
    make_port(30000, 32767),
    make_port(8472, protocol="udp", sources=("10.240.0.0/16",)),
    make_port(2379, 2380, sources=("10.240.0.0/16", "192.168.0.0/24", "fd00::/8")),
    make_port(9100, sources=("10.240.7.0/24", "10.240.0.0/16", "fd00:1::/32", "fd00::/8")),
]


def quickstart(tmp_path: Path, network: str = "") -> Cluster:
    return read_cluster(write_cluster(tmp_path, network=network))


def run_alone(*argv: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """A program in a network of its own; further options of ``unshare`` may come first."""
    root = ["--map-root-user"] if os.geteuid() else []
    return subprocess.run(
        ["unshare", *root, "--net", *argv], capture_output=True, text=True, timeout=60, check=False, env=env
    )


@pytest.mark.parametrize("proxy", [mode.value for mode in ProxyMode])
@pytest.mark.parametrize("cni", [cni.value for cni in Cni])
def test_nft_accepts_every_ruleset_twice(tmp_path: Path, nft: Tool, cni: str, proxy: str) -> None:
    """Loaded a second time it replaces itself; what others own stays."""
    cluster = quickstart(tmp_path)
    network = dataclasses.replace(cluster.network, cni=Cni(cni), proxy=ProxyMode(proxy))
    cluster = dataclasses.replace(cluster, network=network)
    script = ["set -e", f"{nft.argv[0]} add table ip kube-proxy"]
    for number, roles in enumerate(ROLE_SETS):
        file = tmp_path / f"{number}.nft"
        file.write_text(firewall.emit_ruleset(cluster, roles, PORTS))
        script += [f"{nft.argv[0]} -c -f {file}", f"{nft.argv[0]} -f {file}", f"{nft.argv[0]} -f {file}"]
    script += [f"{nft.argv[0]} delete table inet imagegen", f"{nft.argv[0]} list tables"]
    done = run_alone("sh", "-c", "\n".join(script))
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "table ip kube-proxy\n")


def test_rulesets_of_real_plans_load(tmp_path: Path, nft: Tool) -> None:
    for role_plan in make_plan(write_cluster(tmp_path)).role_plans:
        ruleset = next(i for i in role_plan.items if isinstance(i, File) and i.path == firewall.RULESET)
        file = tmp_path / "real.nft"
        file.write_text(str(ruleset.content[0]))
        done = run_alone(*nft.argv, "-f", str(file))
        assert (done.returncode, done.stderr) == (0, ""), role_plan.name


#: two networks joined by a cable; the inner one holds the rules and answers on every port that is asked
_CABLE = """
set -e
ip link set lo up
unshare --net sleep 30 &
other=$!
sleep 0.3
ip link add inside type veth peer name outside netns $other
ip address add 10.240.0.2/16 dev inside
ip link set inside up
nsenter --net=/proc/$other/ns/net ip address add 10.240.0.3/16 dev outside
nsenter --net=/proc/$other/ns/net ip address add 172.16.0.3/16 dev outside
nsenter --net=/proc/$other/ns/net ip link set outside up
ip route add 172.16.0.0/16 dev inside
%(nft)s -f %(rules)s
%(python)s %(probe)s server &
sleep 0.5
nsenter --net=/proc/$other/ns/net %(python)s %(probe)s client
kill $other
"""

_PROBE = """
import socket, sys, threading
PORTS = (22, 2379, 8080, 30001)
if sys.argv[1] == "server":
    for port in PORTS:
        listener = socket.create_server(("", port))
        threading.Thread(target=lambda l=listener: [l.accept() for _ in range(9)]).start()
else:
    for source in ("10.240.0.3", "172.16.0.3"):
        for port in PORTS:
            try:
                socket.create_connection(("10.240.0.2", port), 0.7, (source, 0)).close()
                print(source, port)
            except OSError:
                pass
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="joining network namespaces needs root")
def test_only_the_ports_of_the_table_answer_to_their_sources(tmp_path: Path, nft: Tool) -> None:
    rules, probe = tmp_path / "rules.nft", tmp_path / "probe.py"
    rules.write_text(firewall.emit_ruleset(quickstart(tmp_path), (Role.WORKER,), PORTS))
    probe.write_text(_PROBE)
    names = {"nft": nft.argv[0], "rules": rules, "probe": probe, "python": sys.executable}
    done = run_alone("--kill-child", "--fork", "--pid", "--mount-proc", "sh", "-c", _CABLE % names)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "10.240.0.3 22",
        "10.240.0.3 2379",
        "10.240.0.3 30001",
        "172.16.0.3 22",
        "172.16.0.3 30001",
    ]


def items_of(tmp_path: Path, *components: Component, mode: ImageMode = ImageMode.GOLDEN) -> list[Item]:
    """What these components want on a worker."""
    cluster = quickstart(tmp_path)
    cluster = dataclasses.replace(cluster, image=dataclasses.replace(cluster.image, mode=mode))
    version = cluster.kubernetes.version
    ctx = Context(cluster=cluster, gates=load_gates(version), releases=load_releases(version))
    return [item for component in components for item in component.plan_role(ctx, (Role.WORKER,)).items]


def test_sshd_reads_the_drop_in_and_lets_nobody_in_by_password(tmp_path: Path, sshd: Tool) -> None:
    drop_in = next(i for i in items_of(tmp_path, access) if isinstance(i, File))
    assert drop_in.path == SYSTEMS[OperatingSystem.DEBIAN_13].sshd_config
    key, config = tmp_path / "host_key", tmp_path / "sshd_config"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    distribution = "PasswordAuthentication yes\nPermitRootLogin yes\n"
    config.write_text(f"{drop_in.content[0]!s}{distribution}HostKey {key}\n")
    # sshd insists on its user and its folder, which a machine without a server lacks.
    accounts = tmp_path / "passwd"
    accounts.write_text(f"{Path('/etc/passwd').read_text()}sshd:x:99:65534::/run/sshd:/usr/sbin/nologin\n")
    script = f"""
    mount --bind {accounts} /etc/passwd && mount -t tmpfs none /run && mkdir -m 0755 /run/sshd
    exec {sshd.argv[0]} -T -f {config} -C user=ops,host=x,addr=10.0.0.1
    """
    done = run_alone("--mount", "sh", "-c", script, env=sshd.environment())
    assert done.returncode == 0, done.stderr
    effective = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
    wanted = {
        "permitrootlogin": "no",
        "passwordauthentication": "no",
        "kbdinteractiveauthentication": "no",
        "authenticationmethods": "publickey",
        "allowusers": "ops",
        "x11forwarding": "no",
    }
    assert {key: effective[key] for key in wanted} == wanted


def test_visudo_reads_the_rule_of_the_login(tmp_path: Path, visudo: Tool) -> None:
    login = next(i for i in items_of(tmp_path, access) if isinstance(i, Login))
    file = tmp_path / "sudoers"
    file.write_text(f"{login.name} {login.sudo}\n")
    file.chmod(0o440)
    done = visudo.run("-c", "-f", file)
    assert done.returncode == 0, done.stdout + done.stderr


def test_systemd_accepts_the_units_of_the_host(tmp_path: Path, systemd_analyze: Tool) -> None:
    """In a root that has every program and unit they name, so that nothing but the units is judged."""
    # a stock image gets all of them; nothing can have switched swap on in a golden one
    wanted = [i for i in items_of(tmp_path, host, firewall, mode=ImageMode.STOCK) if isinstance(i, Unit)]
    golden = {item.identity for item in items_of(tmp_path, host, firewall)}
    assert {i.name for i in wanted if i.identity not in golden} == {"imagegen-swap-off.service"}
    root = tmp_path / "root"
    units = root / "etc/systemd/system"
    units.mkdir(parents=True)
    shutil.copytree("/lib/systemd/system", root / "lib/systemd/system", symlinks=True)
    ours = [item for item in wanted if item.content is not None]
    assert {item.name for item in ours} == {
        "imagegen-firewall.service",
        "imagegen-swap-off.service",
        "imagegen-time-sync.service",
    }
    for item in ours:
        (units / item.name).write_text(str(item.content))
    assert {item.name for item in wanted if item.state is UnitState.MASKED} >= {
        "swap.target",
        "nftables.service",
    }
    stub = "[Service]\nExecStart=/bin/true\n"
    (units / "chrony.service").write_text(stub)
    for program in ("usr/sbin/nft", "usr/sbin/swapoff", "usr/bin/chronyc", "bin/sh", "bin/true"):
        path = root / program
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o755)
    done = systemd_analyze.run("verify", f"--root={root}", "--man=no", *(item.name for item in ours))
    assert (done.returncode, done.stderr) == (0, "")
    exposed = systemd_analyze.run(
        "security", "--offline=true", "--no-pager", "--threshold=30", *(units / item.name for item in ours)
    )
    assert exposed.returncode == 0, exposed.stdout


#: a time server of its own, our client, and the wait of our unit against it
_CLOCKS = """
mount -t tmpfs none /run && mkdir -m 0700 /run/chrony && mkdir -p /var/lib/chrony
ip link set lo up && ip address add 10.240.0.9/32 dev lo
%(chronyd)s -x -d -u root -f %(server)s >/dev/null 2>&1 &
%(chronyd)s -x -d -u root -f %(client)s >/dev/null 2>&1 &
sleep 1
%(wait)s
echo status $?
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="chronyd starts as root only")
@pytest.mark.parametrize("has_time", [True, False])
def test_the_clock_is_waited_for_and_boot_goes_on_without(
    tmp_path: Path, chronyd: Tool, has_time: bool
) -> None:
    cluster = quickstart(tmp_path, "ntp_servers: [10.240.0.9]")
    text = host.emit_chrony(cluster)
    server, client = tmp_path / "server.conf", tmp_path / "client.conf"
    port = 11123 if has_time else 11124
    server.write_text(
        f"local stratum 3\nport 11123\nallow\nbindcmdaddress /\ncmdport 0\npidfile {tmp_path}/pid\n"
    )
    client.write_text(text.replace("server 10.240.0.9 iburst", f"server 10.240.0.9 port {port} iburst"))
    done = chronyd.run("-p", "-f", client)
    assert done.returncode == 0, done.stderr
    unit = next(i for i in items_of(tmp_path, host) if i.identity[1] == "imagegen-time-sync.service")
    assert isinstance(unit, Unit)
    command = str(unit.content).partition("ExecStart=")[2].partition("\n")[0]
    chronyc = str(Path(chronyd.argv[0]).parents[1] / "bin/chronyc")
    command = command.replace("/usr/bin/chronyc", chronyc)
    if not has_time:
        command = command.replace(f"waitsync {host.CLOCK_SILENCE_SECONDS} ", "waitsync 2 ")
        # nobody answers, so the second wait must not happen
        command = command.replace(
            f"waitsync {host.CLOCK_WAIT_SECONDS - host.CLOCK_SILENCE_SECONDS} ", "wrong "
        )
    names = {"chronyd": chronyd.argv[0], "server": server, "client": client, "wait": command}
    done = run_alone(
        "--mount", "--kill-child", "--fork", "--pid", "--mount-proc", "sh", "-c", _CLOCKS % names,
        env=chronyd.environment(),
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert lines[-1] == "status 0", done.stdout + done.stderr
    assert any("going on with the clock as it is" in line for line in lines) != has_time


@pytest.mark.parametrize(("reach", "waits"), [("0", ["8"]), ("1", ["8", "12"]), ("17", ["8", "12"])])
def test_a_time_source_that_answers_is_waited_for(tmp_path: Path, reach: str, waits: list[str]) -> None:
    """chronyc -c sources: one line a source, the register of answers in the sixth field (chronyc(1))."""
    fake = tmp_path / "chronyc"
    fake.write_text(
        f"""#!/bin/sh
case $* in
*waitsync*) echo $3 >>{tmp_path}/waits; exit 1 ;;
*) echo '^,?,10.240.0.9,0,6,{reach},4294967295,0.0,0.0,0.0' ;;
esac
"""
    )
    fake.chmod(0o755)
    unit = next(i for i in items_of(tmp_path, host) if i.identity[1] == "imagegen-time-sync.service")
    assert isinstance(unit, Unit)
    command = str(unit.content).partition("ExecStart=")[2].partition("\n")[0]
    command = command.replace("/usr/bin/chronyc", str(fake))
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0
    assert "going on with the clock as it is" in done.stdout
    assert (tmp_path / "waits").read_text().split() == waits


def test_chrony_configuration_serves_nobody_and_names_the_servers(tmp_path: Path) -> None:
    cluster = quickstart(tmp_path, "ntp_servers: [10.240.0.1, time.example.org]")
    text = host.emit_chrony(cluster).splitlines()
    assert text[:2] == ["server 10.240.0.1 iburst", "server time.example.org iburst"]
    assert not any(line.startswith("pool") for line in text)
    assert {"port 0", "cmdport 0", "makestep 1.0 3"} <= set(text)
    assert any(
        line.startswith("pool 2.debian.") for line in host.emit_chrony(quickstart(tmp_path)).splitlines()
    )
