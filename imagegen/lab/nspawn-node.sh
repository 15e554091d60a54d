#!/bin/sh
# One node of the quick tier: a golden image's root tree, booted by systemd-nspawn.
# Runs as first process of a PID namespace with a mount namespace of its own; both end with it, and so does the node.
# Arguments: the node's folder, its root tree, its cgroup, its name, the bridge; then the words for systemd. Without a
# name: only try whether this machine allows all that.
set -eu

folder=$1 tree=$2 group=$3
name=${4:-} bridge=${5:-}
[ $# -lt 5 ] || shift 5

# A cgroup weighs as much as one process, and this one holds a cluster.
weigh() {
    [ ! -e "$1/cpu.shares" ] || echo 20480 >"$1/cpu.shares"
    [ ! -e "$1/cpu.weight" ] || echo 2000 >"$1/cpu.weight"
}

# One cgroup in every hierarchy: the only one there is, or (version 1) one for each controller.
make_cgroups() {
    if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
        # controllers reach a cgroup only through all that are above it
        place=/sys/fs/cgroup
        for part in $(echo "$group" | tr / ' '); do
            tr ' ' '\n' <"$place/cgroup.controllers" | while read -r controller; do
                echo "+$controller" >"$place/cgroup.subtree_control" 2>/dev/null || :
            done
            place=$place/$part
            mkdir -p "$place"
        done
        weigh "${place%/*}"
        echo $$ >"$place/cgroup.procs"
        return
    fi
    for hierarchy in /sys/fs/cgroup/*/; do
        [ -e "$hierarchy/cgroup.procs" ] || continue
        place=$hierarchy$group
        mkdir -p "$place"
        if [ -e "$hierarchy/cpuset.cpus" ]; then
            # a new cpuset is empty, and nobody can live in it
            for part in "${place%/*}" "$place"; do
                cat "$hierarchy/cpuset.cpus" >"$part/cpuset.cpus"
                cat "$hierarchy/cpuset.mems" >"$part/cpuset.mems"
                echo 1 >"$part/cgroup.clone_children"
            done
        fi
        weigh "${place%/*}"
        echo $$ >"$place/cgroup.procs"
    done
}

# What the last start of the node left in its cgroups; its processes are gone.
clear_cgroups() {
    for place in /sys/fs/cgroup/"$group" /sys/fs/cgroup/*/"$group"; do
        [ -d "$place" ] || continue
        find "$place" -mindepth 1 -depth -type d -exec rmdir {} + 2>/dev/null || :
    done
}

# the tree is a layer of the build cache: as long as the node runs, nobody may remove it
if [ -e "${tree%/*}.lock" ]; then
    exec 9<"${tree%/*}.lock"
    flock --shared 9
fi
# nspawn's own notes and locks stay in here, too
mount -t tmpfs -o mode=0755 tmpfs /run
make_cgroups
mkdir -p "$folder/upper" "$folder/work" "$folder/root" "$folder/containerd"
mount -t overlay overlay -o "lowerdir=$tree,upperdir=$folder/upper,workdir=$folder/work" "$folder/root"
if [ -z "$name" ]; then
    exec systemd-nspawn --quiet --register=no --keep-unit --directory="$folder/root" --bind-ro=/usr \
        --private-network --console=pipe /bin/true
fi

status=133
# a restart of the node
while [ "$status" = 133 ]; do
    clear_cgroups
    # after a power cut, the kernel takes its time to remove the last start's card
    ip link delete "vb-$name" 2>/dev/null || :
    status=0
    # /proc/sys/net belongs to the node's own network; the rest of /proc/sys is this machine's and stays read-only
    SYSTEMD_NSPAWN_API_VFS_WRITABLE=network systemd-nspawn --quiet --register=no --keep-unit \
        --directory="$folder/root" --machine="$name" --hostname=imagegen --network-bridge="$bridge" \
        --link-journal=no --resolv-conf=off --timezone=off --console=read-only --kill-signal=SIGRTMIN+3 \
        --system-call-filter="@keyring bpf" --capability=CAP_SYSLOG --bind=/dev/kmsg \
        --bind="$folder/containerd:/var/lib/containerd" --bind-ro="$folder/init:/run/imagegen-lab-init" \
        -- /bin/sh /run/imagegen-lab-init "$@" || status=$?
done
exit "$status"
