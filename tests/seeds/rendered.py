"""What imagegen makes of a cluster file, in the lines of the source documents; read from the plan alone."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import yaml

from imagegen.kubernetes.config_fields import config_fields
from imagegen.kubernetes.gates import load_gates
from imagegen.kubernetes.releases import load_releases
from imagegen.model.cluster import CertificateSet, Role
from imagegen.pki.inventory import list_authorities, list_certificates
from imagegen.plan.items import (
    Binary,
    Directory,
    File,
    Group,
    Item,
    KernelModule,
    Package,
    Port,
    Sysctl,
    Unit,
    User,
)
from imagegen.plan.plan import Plan

#: flags of the kubelet and where its file says the same
_KUBELET_FIELDS = {
    "anonymous-auth": "authentication.anonymous.enabled",
    "authentication-token-webhook": "authentication.webhook.enabled",
    "authorization-mode": "authorization.mode",
    "cgroup-driver": "cgroupDriver",
    "client-ca-file": "authentication.x509.clientCAFile",
    "cluster-dns": "clusterDNS",
    "cluster-domain": "clusterDomain",
    "feature-gates": "featureGates",
    "hairpin-mode": "hairpinMode",
    "pod-manifest-path": "staticPodPath",
    "rotate-certificates": "rotateCertificates",
    "rotate-server-certificates": "serverTLSBootstrap",
    "serialize-image-pulls": "serializeImagePulls",
    "tls-cipher-suites": "tlsCipherSuites",
    "tls-min-version": "tlsMinVersion",
    "address": "address",
}
_DROP_INS = "/etc/systemd/system/"
#: daemon → the file that holds what are flags elsewhere, and its fields by flag
_FILES = {
    "kubelet": "/etc/kubernetes/kubelet.yaml",
    "etcd": "/etc/etcd/etcd.yaml",
    "kube-proxy": "/etc/kubernetes/kube-proxy.yaml",
}


def list_items(plan: Plan) -> list[Item]:
    """Every item of every node, each once."""
    items: dict[Item, None] = {}
    for role_plan in plan.role_plans:
        items |= dict.fromkeys(role_plan.items)
    for node_plan in plan.node_plans():
        items |= dict.fromkeys(node_plan.items)
    return list(items)


def list_lines(plan: Plan) -> set[str]:
    """Every line of the vocabulary that the plan fulfils."""
    items = list_items(plan)
    lines = set(_list_facts(plan))
    lines |= set(_list_plain(items))
    lines |= set(_list_certificates(plan))
    for node_plan in plan.node_plans():
        lines |= set(list_flags([*node_plan.role_plan.items, *node_plan.items]))
    lines |= set(_list_objects(items))
    lines |= set(list_settings(plan, items))
    lines |= set(_list_kubeadm(plan, items, lines))
    lines |= set(_list_ports(plan))
    return lines


def read_text(file: File) -> str:
    """The body; names of secrets in angle brackets."""
    parts = []
    for part in file.content:
        if isinstance(part, str):
            parts.append(part)
        else:
            parts.append(part.decode() if isinstance(part, bytes) else f"<{part.name}>")
    return "".join(parts)


def _list_facts(plan: Plan) -> Iterator[str]:
    cluster = plan.cluster
    network = cluster.network
    facts = {
        "system": cluster.image.os.value,
        "kubernetes": str(cluster.kubernetes.version),
        "nodes": network.nodes,
        "services": network.services,
        "api service": network.api_service,
        "dns": network.dns,
        "pods": network.pods,
        "node mask": network.node_cidr_mask_size,
        "domain": network.domain,
        "proxy": network.proxy.value,
        "cni": network.cni.value,
        "runtime": cluster.runtime.value,
        "layout": cluster.kubernetes.layout.value,
        "bootstrap": cluster.bootstrap.method.value,
        "endpoint": cluster.endpoint.url,
        "pki": "one certificate" if cluster.pki.certificates is CertificateSet.SINGLE else "one each",
        "etcd members": len(cluster.nodes_with(Role.ETCD)),
    }
    yield from (f"fact {key}: {value}" for key, value in facts.items())
    yield from (f"fact target: {target.value}" for target in cluster.targets)
    for node in cluster.nodes:
        yield f"fact node {node.name}: {node.address or 'dhcp'} {node.role_set}"
        yield f"fact node {node.name}: {node.role_set}"
        yield from (f"fact {role.value}: {node.address or 'dhcp'}" for role in node.roles)
        yield from (f"fact member {node.address}: {role.value}" for role in node.roles)
        yield from (f"fact node {node.address}: {role.value}" for role in node.roles)
    if all(node.address for node in cluster.nodes_with(Role.MASTER)):
        yield "fact masters: static addresses"
    if not any(node.address for node in cluster.nodes_with(Role.WORKER)):
        yield "fact workers: addresses by DHCP"
    for role, count in ((role.value, len(cluster.nodes_with(role))) for role in Role):
        yield f"practice {role}: {count}"
    yield f"practice cni: {network.cni.value}"
    for part, version in load_releases(cluster.kubernetes.version).versions.items():
        yield f"release {part}: {version}"


def _list_plain(items: list[Item]) -> Iterator[str]:
    for item in items:
        match item:
            case KernelModule():
                yield f"module {item.name}"
            case Sysctl():
                yield f"sysctl {item.key} = {item.value}"
            case Group():
                yield f"group {item.name}"
            case Package():
                yield f"host package {item.name}"
            case User():
                yield from (f"user {item.name}", f"user {item.name} group {item.group}")
                yield f"user {item.name} shell {item.shell.rpartition('/')[2]}"
                yield f"user {item.name} home {'none' if item.home == '/nonexistent' else item.home}"
            case Directory():
                yield from _list_path("directory", item.path, item.mode, item.owner)
            case File():
                yield from _list_path("file", item.path, item.mode, item.owner)
                if item.path.startswith(_DROP_INS):
                    name = item.path.removeprefix(_DROP_INS).partition(".d/")[0]
                    yield from _list_directives(name, read_text(item))
            case Binary():
                yield from _list_path("file", item.path, "0755", "root")
                yield f"host {item.path.rpartition('/')[2]}"
            case Unit():
                yield from _list_unit(item)


def _list_path(kind: str, path: str, mode: str, owner: str) -> Iterator[str]:
    yield from (f"{kind} {path}", f"{kind} {path} mode {mode}", f"{kind} {path} owner {owner}")


def _list_unit(unit: Unit) -> Iterator[str]:
    yield f"unit {unit.name}" if unit.state.value == "enabled" else f"unit {unit.name} {unit.state.value}"
    yield from _list_directives(unit.name, unit.content or "")


def _list_directives(name: str, text: str) -> Iterator[str]:
    for key, value in _read_directives(text):
        if key in {"After", "Before", "Wants", "Requires", "WantedBy", "RequiredBy"}:
            yield from (f"unit {name} {key}={word}" for word in value.split())
        else:
            yield f"unit {name} {key}={value}"


def _read_directives(text: str) -> Iterator[tuple[str, str]]:
    for line in text.replace("\\\n", " ").splitlines():
        key, equals, value = line.partition("=")
        if equals:
            yield key.strip(), " ".join(value.split())


def _list_certificates(plan: Plan) -> Iterator[str]:
    cluster = plan.cluster
    for authority in list_authorities(cluster):
        stem = authority.name.removeprefix("pki/")
        yield from _describe(stem, stem, f"{authority.subject}", authority.key.value, authority.lifetime.days)
        yield from (f"certificate {stem} is CA", f"certificate {stem} critical")
    for spec in list_certificates(cluster):
        stem = spec.name.rpartition("/")[2]
        issuer = spec.issuer.removeprefix("pki/")
        yield from _describe(stem, issuer, str(spec.subject), spec.key.value, spec.lifetime.days)
        yield from (f"certificate {stem} usage {usage.value}" for usage in spec.usages)
        yield from (f"certificate {stem} name {name}" for name in (*spec.dns_names, *spec.addresses))
        if issuer == "etcd/ca":
            kind = {"etcd-server": "server", "etcd-peer": "peer"}.get(stem, "client")
            words = ",".join(f"{usage.value.removesuffix('Auth')} auth" for usage in spec.usages)
            yield f"setting etcd profile {kind}: {words}"


def _describe(stem: str, issuer: str, subject: str, key: str, days: int) -> Iterator[str]:
    yield f"certificate {stem}"
    yield f"certificate {stem} issuer {issuer}"
    yield f"certificate {stem} subject {subject.replace(', ', ',')}"
    yield f"certificate {stem} key {key}"
    yield f"certificate {stem} days {days}"


def list_flags(items: list[Item]) -> Iterator[str]:
    """``flag COMPONENT --FLAG=VALUE``: of command lines, and of files that replace flags."""
    environment = dict(_read_environment(items))
    for item in items:
        if isinstance(item, Unit) and item.content:
            for key, value in _read_directives(item.content):
                if key == "ExecStart":
                    yield from _read_command(_fill(value, environment))
        if isinstance(item, File) and "/manifests/" in item.path:
            for container in (yaml.safe_load(read_text(item)) or {}).get("spec", {}).get("containers", []):
                yield from _read_command(
                    shlex.join([*container.get("command", []), *container.get("args", [])])
                )
        for component, path in _FILES.items():
            if isinstance(item, File) and item.path == path:
                yield from _read_fields(component, yaml.safe_load(read_text(item)))


def _read_environment(items: list[Item]) -> Iterator[tuple[str, str]]:
    for item in items:
        if isinstance(item, File) and item.path.endswith(".env"):
            for line in read_text(item).splitlines():
                key, equals, value = line.partition("=")
                if equals:
                    yield key, value.strip('"')


def _fill(command: str, environment: Mapping[str, str]) -> str:
    for key, value in environment.items():
        command = command.replace(f"${{{key}}}", value).replace(f"${key}", value)
    return command


def _read_command(command: str) -> Iterator[str]:
    words = shlex.split(command)
    if not words:
        return
    component = words[0].rpartition("/")[2]
    for word in words[1:]:
        if word.startswith("-"):
            name, equals, value = word.lstrip("-").partition("=")
            yield f"flag {component} --{name}={value if equals else 'true'}"


@cache
def _fields_of(component: str) -> dict[str, str]:
    if component == "kubelet":
        return _KUBELET_FIELDS
    return {flag: ".".join(found.path) for flag, found in config_fields(component).items()}


def _read_fields(component: str, document: dict[str, Any]) -> Iterator[str]:
    for flag, path in _fields_of(component).items():
        value: Any = document
        for part in path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None:
            yield f"flag {component} --{flag}={_spell(value)}"


def _spell(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ",".join(map(str, value))
    if isinstance(value, dict):
        return ",".join(f"{key}={_spell(each)}" for key, each in value.items())
    return str(value)


def list_documents(items: list[Item]) -> Iterator[dict[str, Any]]:
    """Every object that a master applies."""
    for item in items:
        if isinstance(item, File) and item.path.startswith(
            ("/etc/kubernetes/first-boot/", "/etc/kubernetes/addons/")
        ):
            yield from (each for each in yaml.safe_load_all(read_text(item)) if each)


def _list_objects(items: list[Item]) -> Iterator[str]:
    for each in list_documents(items):
        kind, meta = each["kind"], each["metadata"]
        name = f"{meta['namespace']}/{meta['name']}" if "namespace" in meta else meta["name"]
        yield f"object {kind} {name}"
        if kind.endswith("RoleBinding"):
            for subject in each["subjects"]:
                yield f"object {kind} {name}: {each['roleRef']['name']} <- {subject['name']}"
        if kind.endswith("Role"):
            for rule in each.get("rules", []):
                verbs, resources = ",".join(rule["verbs"]), ",".join(rule.get("resources", []))
                yield f"object {kind} {name}: {verbs} {resources}"


def has_gate(plan: Plan, component: str, item: str) -> bool:
    """Whether the version table has an item for the plan's version."""
    return load_gates(plan.cluster.kubernetes.version).has(component, item)


def _list_kubeadm(plan: Plan, items: list[Item], lines: set[str]) -> Iterator[str]:
    """What ``kubeadm init`` is known to leave behind."""
    pods = [
        yaml.safe_load(read_text(item))
        for item in items
        if isinstance(item, File) and item.path.startswith("/etc/kubernetes/manifests/")
    ]
    names = sorted({pod["metadata"]["name"] for pod in pods})
    if pods and all(
        pod["metadata"]["labels"].get("tier") == "control-plane"
        and "livenessProbe" in container
        and "cpu" in container["resources"]["requests"]
        for pod in pods
        for container in pod["spec"]["containers"]
    ):
        yield f"kubeadm makes static pods {', '.join(names)} with probes, labels, CPU requests"
    if {"setting master label: distinct from workers", "setting master taint: NoSchedule"} <= lines:
        yield "kubeadm makes label and taint of the master"
    if "setting bootstrap token: kube-system Secret of type bootstrap.kubernetes.io/token" in lines:
        yield "kubeadm makes Secret with the bootstrap token"
    for line in lines:
        if line.endswith(": system:node-bootstrapper <- system:bootstrappers"):
            yield "kubeadm makes ClusterRoleBinding system:node-bootstrapper for system:bootstrappers"
        if line.endswith(":nodeclient <- system:bootstrappers"):
            yield "kubeadm makes ClusterRoleBinding nodeclient for automatic approval"
    subjects = {line.partition(" <- ")[2] for line in lines if "RoleBinding kube-public/" in line}
    if "object ConfigMap kube-public/cluster-info" in lines:
        for subject in subjects - {""}:
            yield f"kubeadm makes ConfigMap cluster-info with Role and RoleBinding for {subject}"


def _list_ports(plan: Plan) -> Iterator[str]:
    for role_plan in plan.role_plans:
        places = []
        if {Role.MASTER, Role.ETCD} & set(role_plan.roles):
            places.append("control plane")
        if Role.WORKER in role_plan.roles:
            places.append("worker")
        for item in role_plan.items:
            if isinstance(item, Port):
                numbers = item.identity[1].partition("/")[0]
                yield from (f"port {place} {numbers}" for place in places)


def list_settings(plan: Plan, items: list[Item]) -> Iterator[str]:
    """Lines about what is inside files, and about the machine as a whole."""
    files = {item.path: read_text(item) for item in items if isinstance(item, File)}
    units = {item.name: item for item in items if isinstance(item, Unit)}
    yield from _list_host(plan, files, units)
    for path, text in files.items():
        if path.endswith((".kubeconfig", ".conf")) and "current-context" in text:
            yield _describe_kubeconfig(path, yaml.safe_load(text))
    if "/etc/kubernetes/encryption.yaml" in files:
        encryption = yaml.safe_load(files["/etc/kubernetes/encryption.yaml"])
        yield f"setting encryption api: {encryption['kind']} {encryption['apiVersion'].rpartition('/')[2]}"
        for entry in encryption["resources"]:
            yield f"setting encryption resources: {','.join(entry['resources'])}"
            for number, provider in enumerate(entry["providers"], 1):
                yield f"setting encryption provider {number}: {next(iter(provider))}"
    if "/etc/kubernetes/audit-policy.yaml" in files:
        policy = yaml.safe_load(files["/etc/kubernetes/audit-policy.yaml"])
        yield f"setting audit api: {policy['apiVersion']}"
        yield f"setting audit omits: {','.join(policy['omitStages'])}"
        yield from (f"setting audit rule: {_describe_rule(rule)}" for rule in policy["rules"])
    yield from _list_network(files)
    yield from _list_layout(plan, files)
    yield from _list_bootstrap(plan, files, units)
    yield from _list_addons(items)


def _list_layout(plan: Plan, files: Mapping[str, str]) -> Iterator[str]:
    """How the control plane runs, and what makes its machines others than the workers."""
    folder = "/etc/kubernetes/manifests/"
    yield from (
        f"file static pod {path.removeprefix(folder).removesuffix('.yaml')}"
        for path in files
        if path.startswith(folder)
    )
    if "/usr/local/bin/control-plane-logs" in files:
        yield "setting where a static pod's log is: told"
    if any('"usePodCidr"' in text for text in files.values()):
        yield "setting calico ipam: usePodCidr"
    known = files.get("/etc/coredns/hosts", "").split()
    if all(node.name in known for node in plan.cluster.nodes):
        yield "setting coredns hosts: names and internal addresses of the nodes"
    for role_plan in plan.role_plans:
        units = {item.name: item for item in role_plan.items if isinstance(item, Unit)}
        if (
            Role.MASTER in role_plan.roles
            and Role.WORKER not in role_plan.roles
            and "kubelet.service" in units
        ):
            yield "unit kubelet.service on masters"
            text = units["kubelet.service"].content or ""
            if "NoSchedule" in text:
                yield "setting master taint: NoSchedule"
        if Role.LB in role_plan.roles and "coredns.service" in units:
            yield "unit coredns.service on the load balancer"
    texts = " ".join([*files.values(), *(unit.content or "" for unit in _list_units(plan))])
    if "--node-label node-role.kubernetes.io/" in texts:
        yield "setting master label: distinct from workers"


def _list_units(plan: Plan) -> Iterator[Unit]:
    for role_plan in plan.role_plans:
        yield from (item for item in role_plan.items if isinstance(item, Unit))


def _list_network(files: Mapping[str, str]) -> Iterator[str]:
    for key, value in json.loads(files.get("/etc/docker/daemon.json", "{}")).items():
        yield f"setting daemon.json {key}: {_spell(value)}"
        yield f"flag dockerd --{key}={_spell(value)}"
    if any("dockerd $DOCKER_NETWORK_OPTIONS" in text for text in files.values()):
        yield "flag dockerd --DOCKER_NETWORK_OPTIONS=from flannel"
    if "/etc/etcd/flannel-network.json" in files:
        network = json.loads(files["/etc/etcd/flannel-network.json"])
        wanted = {key: network[key] for key in ("Network", "SubnetLen")} | {
            "Backend": {"Type": network["Backend"]["Type"]}
        }
        yield f"setting etcd key /coreos.com/network/config: {json.dumps(wanted, separators=(',', ':'))}"


def _list_host(plan: Plan, files: Mapping[str, str], units: Mapping[str, Unit]) -> Iterator[str]:
    masked = {name for name, unit in units.items() if unit.state.value == "masked"}
    if "swap.target" in masked:
        yield "host swap off"
    if "firewalld.service" in masked:
        yield "host firewalld off"
    if "SELINUX=permissive" in files.get("/etc/selinux/config", ""):
        yield "host selinux permissive"
    text = " ".join([*files.values(), *(unit.content or "" for unit in units.values())])
    if "FORWARD" in text and "ACCEPT" in text:
        yield "host FORWARD policy ACCEPT"
    balancers = {node.address for node in plan.cluster.nodes_with(Role.LB)}
    workers = plan.cluster.nodes_with(Role.WORKER)
    if balancers and all(balancers == set(plan.cluster.nameservers_of(node)) for node in workers):
        yield "host name server is the load balancer"


def _describe_kubeconfig(path: str, document: dict[str, Any]) -> str:
    (entry,) = document["users"]
    how = "token" if "token" in entry["user"] else "certificate"
    return f"kubeconfig {path}: {entry['name'].partition('@')[0]} by {how}"


def _describe_rule(rule: dict[str, Any]) -> str:
    words = [rule["level"], *rule.get("users", []), *rule.get("userGroups", []), *rule.get("verbs", [])]
    for entry in rule.get("resources", []):
        words.append(",".join(entry.get("resources", [entry["group"] or "core"])))
        words += entry.get("resourceNames", [])
    words += [",".join(rule["nonResourceURLs"])] if "nonResourceURLs" in rule else []
    words += [f"in {name}" for name in rule.get("namespaces", [])]
    return " ".join(words) if len(words) > 1 else f"{rule['level']} everything"


def _list_bootstrap(plan: Plan, files: Mapping[str, str], units: Mapping[str, Unit]) -> Iterator[str]:
    bootstrap = plan.cluster.bootstrap
    if bootstrap.method.value == "token" and "/etc/imagegen/bootstrap-tokens" in files:
        yield "setting bootstrap token: kube-system Secret of type bootstrap.kubernetes.io/token"
        yield "setting bootstrap token usage: authentication,signing"
        yield f"setting bootstrap token lifetime: {int(bootstrap.token_lifetime.total_seconds()) // 3600}h"
    if "csr-approver.service" in units:
        yield "setting kubelet client certificate: approved by itself"
        if bootstrap.approve_serving:
            yield "setting kubelet serving certificate: approved by itself"


def _list_addons(items: list[Item]) -> Iterator[str]:
    for each in list_documents(items):
        name, kind = each["metadata"]["name"], each["kind"]
        if kind == "ConfigMap" and name == "cluster-info":
            yield "object ConfigMap kube-public/cluster-info: holds the CA and the address"
        if kind == "DaemonSet":
            yield f"setting {name}: DaemonSet"
        if kind == "DaemonSet" and "flannel" in name:
            yield "object manifest flannel: DaemonSet with vxlan"
        if kind == "Deployment" and "coredns" in name:
            count = {1: "one replica", 2: "two replicas"}[each["spec"]["replicas"]]
            yield f"object manifest coredns: Deployment with {count}"
        if kind == "Deployment" and "metrics-server" in name:
            yield "object manifest metrics-server: Deployment with APIService"


def list_commands(plan: Plan) -> Iterator[str]:
    """The flags on command lines alone: what a program must know."""
    for node_plan in plan.node_plans():
        items = [*node_plan.role_plan.items, *node_plan.items]
        yield from list_flags([item for item in items if not _is_configuration(item)])


def _is_configuration(item: Item) -> bool:
    return isinstance(item, File) and item.path in _FILES.values()
