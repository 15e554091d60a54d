"""imagegen: one cluster file in; PKI, cloud-init, seed ISOs and golden images of a Kubernetes cluster out."""

__version__ = "0.1.0"
