#!/bin/sh
# Removes what must not be in an image, by the table of hygiene. With "wait" as second argument it waits until the build
# asks for the end or the machine is stopped, cleans up once more, and switches the machine off at once: an orderly
# shutdown would write logs, seeds and accounting again.
set -eu
umask 022

clean_up() {
    passwd --quiet --lock root 2>/dev/null || passwd -l root >/dev/null
    # patterns of our own table, expanded below the root
    while read -r action patterns; do
        case ${action} in
        remove) (cd / && eval "rm -rf -- ${patterns}") ;;
        empty) (cd / && eval "truncate --no-create --size=0 -- ${patterns}") ;;
        create) : >"/${patterns}" ;;
        esac
    done <"$1"
}

last_time() {
    trap - TERM
    [ ! -e /run/imagegen/sshd.pid ] || kill "$(cat /run/imagegen/sshd.pid)" 2>/dev/null || :
    clean_up "$1"
    sync
    fstrim --all 2>/dev/null || :
    sync
}

if [ "${2:-}" != wait ]; then
    clean_up "$1"
    exit
fi
table=$1
trap 'last_time "${table}"; exit 0' TERM
until [ -e /run/imagegen/door/halt ]; do
    sleep 1
done
last_time "${table}"
# remount everything read-only, then power off; the kernel remounts when it finds the time
echo u >/proc/sysrq-trigger
tries=120
while grep -q '^[^ ]* / [^ ]* rw[, ]' /proc/self/mounts && [ "${tries}" -gt 0 ]; do
    tries=$((tries - 1))
    sleep 0.5
done
echo o >/proc/sysrq-trigger
