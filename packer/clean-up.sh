#!/bin/sh
# Removes what must not be in an image, by the table of hygiene. With "wait" as second argument it waits until the build
# asks for the end or the machine is stopped, cleans up once more, and switches the machine off without stopping its
# units: they would write logs, seeds and accounting again.
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
# no unit is stopped, which would write again; but processes end, and file systems are unmounted
systemctl --force poweroff
