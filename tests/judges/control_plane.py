"""Runs etcd and the control plane of one node as its plan says, in a network of its own, and questions it.

Started by ``test_flags_run.py`` with ``unshare --net``; prints what it saw as JSON. Paths of the machine are
moved below a folder; users and sandboxes of the units are not used.
"""

from __future__ import annotations

import base64
import json
import shlex
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

ADDRESS = "10.240.0.10"
API = f"https://{ADDRESS}:6443"
MOVED = ("/etc/kubernetes", "/etc/etcd", "/etc/imagegen", "/var/lib/etcd", "/var/log/kubernetes")


def read_environment(root: Path) -> dict[str, str]:
    """The variables of every environment file that the units name."""
    files = (root / "etc/imagegen/node.env", root / "etc/kubernetes/kube-apiserver.env")
    lines = [line for file in files for line in file.read_text().splitlines()]
    return dict(line.split("=", 1) for line in lines)


def read_command(root: Path, unit: str, programs: dict[str, str]) -> list[str]:
    """The command line of a unit with its variables filled in and its paths moved."""
    text = (root / "units" / unit).read_text()
    start = text.index("ExecStart=") + len("ExecStart=")
    words = shlex.split(text[start : text.index("\nRestart=", start)].replace("\\\n", " "))
    for name, value in read_environment(root).items():
        words = [word.replace(f"${{{name}}}", value) for word in words]
    return [programs[Path(words[0]).name], *(move_paths(word, root) for word in words[1:])]


def move_paths(text: str, root: Path) -> str:
    """``text`` with the paths of the machine below ``root``."""
    for path in MOVED:
        text = text.replace(path, f"{root}{path}")
    return text


def make_context(root: Path, client: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(root / "etc/kubernetes/pki/ca.crt"))
    if client:
        context.load_cert_chain(root / f"{client}.crt", root / f"{client}.key")
    return context


def ask(
    root: Path,
    url: str,
    client: str | None = None,
    body: dict[str, Any] | None = None,
    method: str | None = None,
) -> tuple[int, str]:
    """Status and text of one request; status 0 when there is no answer."""
    data = json.dumps(body).encode() if body else None
    kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
    request = urllib.request.Request(url, data=data, headers={"Content-Type": kind}, method=method)
    try:
        with urllib.request.urlopen(request, context=make_context(root, client), timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


def make_node(root: Path) -> str | None:
    """Register the node as its kubelet would; the pod range that the controller manager gives it."""
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "one"}}
    ask(root, f"{API}/api/v1/nodes", "admin", node)
    addresses = [{"type": "InternalIP", "address": ADDRESS}, {"type": "Hostname", "address": "one"}]
    status = {"status": {"addresses": addresses}}
    ask(root, f"{API}/api/v1/nodes/one/status", "admin", status, method="PATCH")
    for _ in range(60):
        found = json.loads(ask(root, f"{API}/api/v1/nodes/one", "admin")[1])
        if found.get("spec", {}).get("podCIDR"):
            return str(found["spec"]["podCIDR"])
        time.sleep(0.5)
    return None


#: nftables and iptables mode
_SERVICE_RULES = {
    "nft list table ip kube-proxy": b"10.32.0.1 . tcp . 443",
    "iptables-save -t nat": b"-d 10.32.0.1/32 -p tcp",
}


def find_service_rule(seconds: float) -> bool:
    """Whether kube-proxy has put the address of the API's own service into the packet filter."""
    for _ in range(int(seconds * 2)):
        for command, words in _SERVICE_RULES.items():
            rules = subprocess.run(command.split(), capture_output=True, check=False).stdout
            if words in rules:
                return True
        time.sleep(0.5)
    return False


#: 6443 API server, 2379 and 2380 etcd, 10256 kube-proxy's health
_MEANT = {6443, 2379, 2380, 10256}


def list_open_ports() -> list[int]:
    """TCP ports that listen beyond loopback and are not meant to."""
    found = set()
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/self/net/{name}").read_text().splitlines()[1:]:
            address, _, port = line.split()[1].partition(":")
            listens, local = line.split()[3] == "0A", address in ("0100007F", f"{'0' * 24}01000000")
            if listens and not local:
                found.add(int(port, 16))
    return sorted(found - _MEANT)


def wait_for(root: Path, url: str, client: str | None, seconds: float) -> float | None:
    """Seconds until ``url`` answers 200, or None."""
    begin = time.monotonic()
    while time.monotonic() - begin < seconds:
        if ask(root, url, client)[0] == 200:
            return time.monotonic() - begin
        time.sleep(0.5)
    return None


def observe(root: Path, programs: dict[str, str]) -> dict[str, Any]:
    """Everything that the test looks at, by name."""
    seen: dict[str, Any] = {"ready": wait_for(root, f"{API}/readyz", "admin", 120)}
    for name, path in (("readyz", "/readyz"), ("api", "/api"), ("version", "/version")):
        seen[f"anonymous {name}"] = ask(root, f"{API}{path}")[0]
    seen["admin nodes"] = ask(root, f"{API}/api/v1/nodes", "admin")[0]
    for name, port in (("controller manager", 10257), ("scheduler", 10259)):
        seen[name] = wait_for(root, f"https://127.0.0.1:{port}/healthz", None, 60)
    seen["pod range"] = make_node(root)
    seen["service rule"] = find_service_rule(60)
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "canary"},
        "data": {"word": base64.b64encode(b"yellow-bird").decode()},
    }
    seen["create secret"] = ask(root, f"{API}/api/v1/namespaces/default/secrets", "admin", secret)[0]
    seen["open ports"] = list_open_ports()
    pki = root / "etc/etcd/pki"
    stored = subprocess.run(
        [
            programs["etcdctl"],
            f"--endpoints=https://{ADDRESS}:2379",
            f"--cacert={pki}/ca.crt",
            f"--cert={pki}/healthcheck-client.crt",
            f"--key={pki}/healthcheck-client.key",
            "get",
            "/registry/secrets/default/canary",
        ],
        capture_output=True,
        check=False,
    ).stdout
    seen["stored encrypted"] = b"k8s:enc:secretbox:v1:key1:" in stored
    seen["stored in clear"] = b"yellow-bird" in stored
    audit = (root / "var/log/kubernetes/audit.log").read_text()
    seen["audit names the secret"] = '"name":"canary"' in audit
    seen["audit shows the secret"] = base64.b64encode(b"yellow-bird").decode() in audit
    return seen


def observe_etcd(root: Path) -> dict[str, Any]:
    """What etcd alone shows: ready, and closed to a client without a certificate."""
    seconds = wait_for(root, "http://127.0.0.1:2381/readyz", None, 60)
    try:
        context = ssl.create_default_context(cafile=str(root / "etc/etcd/pki/ca.crt"))
        urllib.request.urlopen(f"https://{ADDRESS}:2379/health", context=context, timeout=10).close()
        return {"ready": seconds, "without a certificate": "let in"}
    except OSError as error:
        return {"ready": seconds, "without a certificate": str(error)}


def observe_tokens(root: Path) -> dict[str, Any]:
    """Who is let in with which token: statuses of the question what oneself may do."""
    seen: dict[str, Any] = {"ready": wait_for(root, f"{API}/readyz", "admin", 120)}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"resource": "nodes", "verb": "get"}},
    }
    url = f"{API}/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    for name, token in (("token", (root / "token").read_text()), ("wrong token", "abcdef.0123456789abcdef")):
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
        request = urllib.request.Request(url, data=json.dumps(review).encode(), headers=headers)
        try:
            with urllib.request.urlopen(request, context=make_context(root, None), timeout=10) as answer:
                seen[name] = answer.status
        except urllib.error.HTTPError as error:
            seen[name] = error.code
    return seen


def observe_what_runs(root: Path, programs: dict[str, str], daemons: list[str]) -> dict[str, Any]:
    if daemons == ["etcd"]:
        return observe_etcd(root)
    return observe_tokens(root) if (root / "token").exists() else observe(root, programs)


def main() -> None:
    """Arguments: the folder, the programs by name as JSON, and the daemons to start."""
    root, programs, daemons = Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3:]
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["ip", "address", "add", f"{ADDRESS}/32", "dev", "lo"], check=True)
    running = []
    try:
        for name in daemons:
            log = (root / f"{name}.log").open("w")
            command = read_command(root, f"{name}.service", programs)
            running.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
        print(json.dumps(observe_what_runs(root, programs, daemons)))
    finally:
        for process in reversed(running):
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
