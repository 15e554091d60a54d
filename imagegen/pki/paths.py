"""Where PKI material lies on a machine, and who owns it: one list for units, kubeconfigs and checks."""

from __future__ import annotations

KUBERNETES = "/etc/kubernetes"
PKI = "/etc/kubernetes/pki"
ETCD_PKI = "/etc/etcd/pki"

CA = f"{PKI}/ca.crt"
CA_KEY = f"{PKI}/ca.key"  # masters only, owner kube-controller-manager
FRONT_PROXY_CA = f"{PKI}/front-proxy-ca.crt"
FRONT_PROXY_CA_KEY = f"{PKI}/front-proxy-ca.key"  # masters of kubeadm only
APISERVER_ETCD_CA = f"{PKI}/etcd-ca.crt"  # the etcd CA as the API server sees it
SERVICE_ACCOUNT_PUBLIC = f"{PKI}/sa.pub"
SERVICE_ACCOUNT_KEY = f"{PKI}/sa.key"  # owner kube-apiserver
# The same key once more, owner kube-controller-manager.
CONTROLLER_MANAGER_SERVICE_ACCOUNT_KEY = f"{PKI}/controller-manager-sa.key"

# Stems: ``.crt`` and ``.key`` are added.
APISERVER = f"{PKI}/apiserver"
APISERVER_ETCD_CLIENT = f"{PKI}/apiserver-etcd-client"
APISERVER_KUBELET_CLIENT = f"{PKI}/apiserver-kubelet-client"
FRONT_PROXY_CLIENT = f"{PKI}/front-proxy-client"
CONTROLLER_MANAGER_SERVER = f"{PKI}/controller-manager"  # serving certificate of port 10257
SCHEDULER_SERVER = f"{PKI}/scheduler"  # serving certificate of port 10259

ETCD_CA = f"{ETCD_PKI}/ca.crt"
ETCD_SERVER = f"{ETCD_PKI}/server"
ETCD_PEER = f"{ETCD_PKI}/peer"
ETCD_HEALTHCHECK_CLIENT = f"{ETCD_PKI}/healthcheck-client"

FLANNEL = "/etc/flannel"
FLANNEL_ETCD_CA = f"{FLANNEL}/pki/etcd-ca.crt"
FLANNEL_ETCD_CLIENT = f"{FLANNEL}/pki/etcd-client"  # root: flanneld changes routes and the packet filter

CONTROLLER_MANAGER_KUBECONFIG = f"{KUBERNETES}/controller-manager.kubeconfig"
SCHEDULER_KUBECONFIG = f"{KUBERNETES}/scheduler.kubeconfig"
KUBE_PROXY_KUBECONFIG = f"{KUBERNETES}/kube-proxy.kubeconfig"
CSR_APPROVER_KUBECONFIG = f"{KUBERNETES}/csr-approver.kubeconfig"
FIRST_BOOT_KUBECONFIG = f"{KUBERNETES}/first-boot.kubeconfig"  # root only, group system:masters
BOOTSTRAP_KUBECONFIG = f"{KUBERNETES}/bootstrap.kubeconfig"
KUBELET_KUBECONFIG = "/var/lib/kubelet/kubelet.kubeconfig"  # written by the kubelet
MASTER_KUBELET_KUBECONFIG = f"{KUBERNETES}/kubelet.kubeconfig"  # where it starts the API server itself
KUBELET_CLIENT_CERTIFICATE = "/var/lib/kubelet/pki/kubelet-client-current.pem"  # written by the kubelet

# Unprivileged users, each with a group of the same name.
USER_ETCD = "etcd"
USER_APISERVER = "kube-apiserver"
USER_CONTROLLER_MANAGER = "kube-controller-manager"
USER_SCHEDULER = "kube-scheduler"
USER_CSR_APPROVER = "csr-approver"

#: NODE_NAME, and NODE_ADDRESS unless the node uses DHCP; written per node by the component ``identity``
NODE_ENV = "/etc/imagegen/node.env"
