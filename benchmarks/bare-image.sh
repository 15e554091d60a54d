#!/bin/sh
# What a person would type for the same disk without any tool of ours: the same packages, the same files, the same size.
# PACKAGES: names with commas between. PAYLOAD: a tar archive for the root. SIZE: of the file system, for mke2fs.
set -eu
mmdebstrap --variant=minbase --format=directory \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --aptopt='Acquire::Languages "none"' \
    --include="${PACKAGES:?}" --customize-hook="tar -C \"\$1\" --no-same-owner -xf ${PAYLOAD:?}" trixie root
mke2fs -q -t ext4 -d root root.ext4 "${SIZE:?}"
qemu-img convert -c -O qcow2 -o compression_type=zstd root.ext4 bare.qcow2
rm -rf root root.ext4
