#!/bin/sh
# What people do without imagegen: one certificate, one user-data and one seed ISO a node, with openssl and genisoimage.
# Usage: shell-loop.sh NODES, in an empty folder.
set -eu

count=$1
openssl ecparam -name prime256v1 -genkey -noout -out ca.key
openssl req -x509 -new -key ca.key -subj /CN=kubernetes-ca -days 3650 -out ca.crt

node=0
while [ "${node}" -lt "${count}" ]; do
    name=worker-${node}
    mkdir "${name}"
    openssl ecparam -name prime256v1 -genkey -noout -out "${name}/node.key"
    openssl req -new -key "${name}/node.key" -subj "/O=system:nodes/CN=system:node:${name}" -out "${name}/node.csr"
    openssl x509 -req -in "${name}/node.csr" -CA ca.crt -CAkey ca.key -set_serial "${node}" -days 365 \
        -out "${name}/node.crt" 2>/dev/null
    {
        printf '#cloud-config\nhostname: %s\nwrite_files:\n' "${name}"
        for file in ca.crt "${name}/node.crt" "${name}/node.key"; do
            printf -- '- path: /etc/kubernetes/pki/%s\n  permissions: "0600"\n  content: |\n' "${file##*/}"
            sed 's/^/    /' "${file}"
        done
    } >"${name}/user-data"
    printf 'instance-id: iid-%s\nlocal-hostname: %s\n' "${name}" "${name}" >"${name}/meta-data"
    printf 'version: 2\nethernets: {eth0: {dhcp4: true}}\n' >"${name}/network-config"
    genisoimage -quiet -volid cidata -joliet -rock -output "${name}/seed.iso" \
        "${name}/user-data" "${name}/meta-data" "${name}/network-config"
    node=$((node + 1))
done
