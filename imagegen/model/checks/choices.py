"""Choices against each other and against this release: version, runtime, operating system, proxy, layout."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from imagegen.diagnostics import Severity, register_code
from imagegen.model.cluster import (
    Addon,
    Cluster,
    ClusterDns,
    Cni,
    DiskFormat,
    ImageMode,
    ImagePki,
    Layout,
    NodeDns,
    NodeTool,
    Role,
    Target,
)
from imagegen.model.compatibility import DOUBTFUL_PAIR, IMPOSSIBLE_PAIR, METRICS_SERVER_FIRST, PAIR_RULES
from imagegen.model.review import Review
from imagegen.model.support import FIRST_BOOTED_MINOR, RENDERED_MINORS

NOT_RENDERED = register_code(
    "IMG190",
    "this release does not know the version yet",
    "The cluster file is right, but this release of imagegen cannot make it: it renders Kubernetes "
    f"1.{RENDERED_MINORS[0]} to 1.{RENDERED_MINORS[-1]}.",
)
NOT_BOOTED = register_code(
    "IMG191",
    "a Kubernetes version that nobody has booted here",
    f"Before Kubernetes 1.{FIRST_BOOTED_MINOR}, everything is rendered in the form that the version knows: "
    "flags, files, units, add-ons, the approver's API. Its programs could not be had where imagegen is "
    "tested, so no such cluster has come up there.",
)
GIVEN_TWICE = register_code(
    "IMG109", "an entry is given twice", "Lists of words and addresses hold each entry once."
)
IMAGE_SIZE = register_code(
    "IMG160",
    "a target does not take the image size",
    "Google Compute Engine imports disks whose size is a whole number of GiB. The target gce and the format "
    "gce ask for one.",
)
SHARED_SECRET = register_code(
    "IMG161",
    "an image with a node's keys in it would be shared",
    "With image.pki: baked, an image holds the certificates, keys and settings of its one node and needs "
    "no seed. Two nodes with the same roles share an image, and keys must not be shared: give such nodes "
    "their seeds (image.pki: seed), or different roles. A stock image (image.mode: stock) is not made by "
    "imagegen, so nothing can be baked into it.",
)


def choices_of(cluster: Cluster) -> dict[str, StrEnum]:
    """Every choice of words in the cluster, by model path."""
    return {
        "kubernetes.layout": cluster.kubernetes.layout,
        "network.cni": cluster.network.cni,
        "network.proxy": cluster.network.proxy,
        "network.node_dns": cluster.network.node_dns,
        "network.cluster_dns": cluster.network.cluster_dns,
        "runtime": cluster.runtime,
        "pki.key": cluster.pki.key,
        "pki.certificates": cluster.pki.certificates,
        "bootstrap.method": cluster.bootstrap.method,
        "image.os": cluster.image.os,
        "image.mode": cluster.image.mode,
        "image.pki": cluster.image.pki,
    }


def check_choices(review: Review) -> None:
    choices = choices_of(review.cluster)
    _check_pairs(review, choices)
    _check_rendered(review)
    cluster = review.cluster
    for path, entries in _lists(cluster):
        seen: dict[object, int] = {}
        for number, entry in enumerate(entries):
            if entry in seen:
                first = f"{path}[{seen[entry]}]"
                review.error(
                    GIVEN_TWICE,
                    f"{entry} is given twice",
                    f"{path}[{number}]",
                    also=[first],
                    hint="remove one",
                )
            else:
                seen[entry] = number
    _check_size(review)
    _check_baked(review)
    _check_node_dns(review)
    _check_addons(review)
    _check_tools(review)


def _check_tools(review: Review) -> None:
    cluster = review.cluster
    if cluster.kubernetes.layout is Layout.KUBEADM and NodeTool.CRICTL not in cluster.image.tools:
        message = "kubeadm asks the container runtime through crictl, got tools without it"
        hint = "add crictl to tools, or leave tools out"
        review.error(IMPOSSIBLE_PAIR, message, "image.tools", hint=hint, also=["kubernetes.layout"])


def _check_node_dns(review: Review) -> None:
    cluster = review.cluster
    balancers = [node for node in cluster.nodes_with(Role.LB) if node.address is not None]
    if cluster.network.node_dns is NodeDns.LB and not balancers:
        message = "node_dns lb needs a load balancer with a fixed address, got none"
        hint = "add a node with roles: [lb], or leave node_dns out"
        review.error(IMPOSSIBLE_PAIR, message, "network.node_dns", hint=hint, also=["nodes"])


def _check_addons(review: Review) -> None:
    """Add-ons need pods, and the API that they are registered with."""
    cluster, version = review.cluster, review.cluster.kubernetes.version
    for number, addon in enumerate(cluster.addons):
        place = f"addons[{number}]"
        if addon is Addon.METRICS_SERVER and version.minor < METRICS_SERVER_FIRST:
            message = f"metrics-server needs Kubernetes 1.{METRICS_SERVER_FIRST}, got {version}"
            hint = "leave it out, or use a newer Kubernetes"
            review.error(IMPOSSIBLE_PAIR, message, place, hint=hint, also=["kubernetes.version"])
        if not cluster.nodes_with(Role.WORKER):
            message = f"{addon.value} needs a worker to run on, got none"
            review.error(IMPOSSIBLE_PAIR, message, place, hint="add a worker", also=["nodes"])
        if addon is Addon.SAMPLE and cluster.network.cni is Cni.LOOPBACK:
            message = "the sample application needs a pod network, got cni loopback"
            review.error(IMPOSSIBLE_PAIR, message, place, hint="use cni: flannel", also=["network.cni"])
        if addon is Addon.SAMPLE and cluster.network.cluster_dns is ClusterDns.NONE:
            message = "the sample application is made of CoreDNS, got cluster_dns none"
            hint = "leave cluster_dns out"
            review.error(IMPOSSIBLE_PAIR, message, place, hint=hint, also=["network.cluster_dns"])


def _check_size(review: Review) -> None:
    cluster = review.cluster
    if not cluster.image.size_mib % 1024:
        return
    for path, wants in (
        ("targets", Target.GCE in cluster.targets),
        ("image.formats", DiskFormat.GCE in cluster.image.formats),
    ):
        if wants:
            what = "target" if path == "targets" else "format"
            message = f"the {what} gce takes whole GiB, got {cluster.image.size_mib}MiB"
            hint = f"for example {cluster.image.size_mib // 1024 + 1}GiB"
            review.error(IMAGE_SIZE, message, "image.size", hint=hint, needs=[path])
            return


def _check_baked(review: Review) -> None:
    cluster = review.cluster
    if cluster.image.pki is not ImagePki.BAKED:
        return
    if cluster.image.mode is not ImageMode.GOLDEN:
        message = f"pki baked needs images that imagegen builds, got mode {cluster.image.mode.value}"
        review.error(
            SHARED_SECRET, message, "image.pki", hint="use mode: golden, or pki: seed", also=["image.mode"]
        )
        return
    for roles in cluster.role_sets:
        numbers = [number for number, node in enumerate(cluster.nodes) if node.roles == roles]
        if len(numbers) > 1:
            names = " and ".join(review.label(number) for number in numbers[:2])
            more = f" and {len(numbers) - 2} more" if len(numbers) > 2 else ""
            review.error(
                SHARED_SECRET,
                f"pki baked puts keys into the image {'+'.join(roles)}, which {names}{more} would share",
                "image.pki",
                hint="use pki: seed, which gives every node its own seed",
                also=[f"nodes[{number}]" for number in numbers[:2]],
            )


def _lists(cluster: Cluster) -> Iterable[tuple[str, tuple[object, ...]]]:
    yield "targets", cluster.targets
    yield "addons", cluster.addons
    yield "image.firmware", cluster.image.firmware
    yield "image.formats", cluster.image.formats
    yield "image.packages", cluster.image.packages
    yield "image.tools", cluster.image.tools
    yield "network.nameservers", cluster.network.nameservers
    yield "network.ntp_servers", cluster.network.ntp_servers


def _check_pairs(review: Review, choices: dict[str, StrEnum]) -> None:
    version = review.cluster.kubernetes.version
    for rule in PAIR_RULES:
        if not rule.first <= version.minor <= rule.last:
            continue
        if any(choices[path] not in values for path, values in rule.when.items()):
            continue
        message = rule.message.replace("{version}", str(version))
        for path in rule.when:
            message = message.replace(f"{{{path}}}", choices[path].value)
        involved = list(rule.when)
        if rule.first or rule.last < 9999:
            involved.append("kubernetes.version")
        also = [path for path in involved if path != rule.at and review.is_written(path)]
        code = IMPOSSIBLE_PAIR if rule.severity is Severity.ERROR else DOUBTFUL_PAIR
        review.add(rule.severity, code, message, rule.at, hint=rule.hint, also=also, needs=involved)


def _check_rendered(review: Review) -> None:
    version = review.cluster.kubernetes.version
    if version.minor not in RENDERED_MINORS:
        rendered = f"1.{RENDERED_MINORS[0]} to 1.{RENDERED_MINORS[-1]}"
        message = f"Kubernetes {version} is not supported yet in this release"
        review.error(NOT_RENDERED, message, "kubernetes.version", hint=f"supported are {rendered}")
    elif version.minor < FIRST_BOOTED_MINOR:
        message = f"Kubernetes {version} is rendered whole, but no cluster of it was ever booted in our tests"
        hint = "imagegen upgrade-check says what changes on the way to a newer one"
        review.add(Severity.NOTE, NOT_BOOTED, message, "kubernetes.version", hint=hint)
