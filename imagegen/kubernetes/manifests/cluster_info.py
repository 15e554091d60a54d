"""The ``cluster-info`` ConfigMap in ``kube-public``: a kubeconfig without credentials, by which
clients find the cluster.
"""

from __future__ import annotations

from imagegen.emit import emit_yaml
from imagegen.kubernetes.manifests.objects import (
    Manifest,
    core,
    metadata,
)

#: Stands for the base64 of the cluster CA until the bytes are known.
CA_MARK = "@cluster-ca@"


def cluster_info(endpoint_url: str) -> Manifest:
    """The ConfigMap with ``CA_MARK`` in the place of the CA's base64.

    The controller manager's bootstrapsigner adds its signatures under keys of their own; the shape is that of
    https://kubernetes.io/docs/reference/setup-tools/kubeadm/implementation-details/.
    """
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "", "cluster": {"certificate-authority-data": CA_MARK, "server": endpoint_url}}
        ],
        "contexts": [],
        "current-context": "",
        "preferences": {},
        "users": [],
    }
    return core(
        "ConfigMap",
        metadata("cluster-info", namespace="kube-public"),
        data={"kubeconfig": emit_yaml(kubeconfig)},
    )
