#!/bin/sh
# First program of a node of the quick tier: makes a container look like a machine, then becomes systemd.
# Arguments: the address of the network card; the words for systemd.
set -u
mac=$1
shift

# the name that machines without predictable names have, and the card's address from the cluster file
ip link set host0 down
ip link set host0 name eth0 address "$mac"
ip link set eth0 up

# the node's own cgroups; nspawn hands out those of version 1 read-only
for place in /sys/fs/cgroup/*/; do
    mount -o remount,bind,rw "$place" 2>/dev/null
done

# Settings of the one kernel that all nodes and this machine share: the node gets a file of its own in their place, so that
# what it writes it reads again, and nothing else changes.
mkdir -p /run/imagegen-lab/sysctl
{
    echo net.netfilter.nf_conntrack_max
    cat /usr/lib/sysctl.d/*.conf /etc/sysctl.d/*.conf | sed -n 's/^-\{0,1\}\([a-z][a-z0-9._/-]*\)[ ]*=.*/\1/p'
} | tr / . | sort -u | while read -r key; do
    path=/proc/sys/$(echo "$key" | tr . /)
    [ -f "$path" ] || continue
    case $key in net.*) [ "$(stat -c %a "$path")" != 644 ] || continue ;; esac
    cat "$path" >"/run/imagegen-lab/sysctl/$key" && mount --bind "/run/imagegen-lab/sysctl/$key" "$path"
done

# kube-proxy wants to see how many connections can be tracked
mount -o remount,bind,rw /sys 2>/dev/null || mount -o remount,rw /sys
mkdir -p /sys/module/nf_conntrack/parameters
cat /proc/sys/net/netfilter/nf_conntrack_buckets >/sys/module/nf_conntrack/parameters/hashsize 2>/dev/null ||
    echo 262144 >/sys/module/nf_conntrack/parameters/hashsize
mount -o remount,bind,ro /sys 2>/dev/null || mount -o remount,ro /sys

# what a kernel says first on a machine's console
cat /proc/version

exec /usr/lib/systemd/systemd "$@"
