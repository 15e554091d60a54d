#!/bin/sh
# The last steps of a build, in the order that leaves nothing behind: silence what writes, open a door for the tests,
# remove the build user, clean up; then wait to be switched off, and clean up what the tests left.
# Runs as root, started by the build user through sudo.
set -eu
umask 077
cd /

here=/var/tmp/imagegen
run=/run/imagegen
user=${SUDO_USER:?}
home=$(getent passwd "${user}" | cut -d : -f 6)

# What would write while the machine goes down: in memory only from now on. /run is gone after that.
silence() {
    mkdir -p /run/systemd/journald.conf.d
    printf '[Journal]\nStorage=volatile\n' >/run/systemd/journald.conf.d/zz-imagegen.conf
    for unit in systemd-random-seed.service systemd-update-utmp.service systemd-journal-flush.service; do
        systemctl --quiet mask --runtime "${unit}" 2>/dev/null || :
    done
    for unit in chrony.service chronyd.service systemd-timesyncd.service rsyslog.service apt-daily.timer \
        apt-daily-upgrade.timer systemd-tmpfiles-clean.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer \
        logrotate.timer; do
        systemctl --quiet stop "${unit}" 2>/dev/null || :
    done
    systemctl daemon-reload
    systemctl restart systemd-journald.service
}

# An sshd of the build alone, in memory: the tests come as root when the build user is gone.
open_door() {
    mkdir -p "${run}/door" /run/sshd
    cp "${home}/.ssh/authorized_keys" "${run}/authorized_keys"
    ssh-keygen -q -t ed25519 -N '' -f "${run}/host_key"
    cat >"${run}/sshd_config" <<END
HostKey ${run}/host_key
AuthorizedKeysFile ${run}/authorized_keys
PidFile ${run}/sshd.pid
PermitRootLogin prohibit-password
AuthenticationMethods publickey
AllowUsers root
StrictModes no
UsePAM yes
UseDNS no
PrintMotd no
PrintLastLog no
END
    systemctl --quiet stop ssh.socket sshd.socket 2>/dev/null || :
    systemctl --quiet stop ssh.service 2>/dev/null || systemctl --quiet stop sshd.service
    mkdir -p /run/sshd
    "$(command -v sshd || echo /usr/sbin/sshd)" -f "${run}/sshd_config"
    # the only thing that the former build user may still do: ask for the end
    chown "${user}" "${run}/door"
    chmod 0711 "${run}"
}

remove_user() {
    userdel --force --remove "${user}" 2>/dev/null || :
    ! getent passwd "${user}" >/dev/null || { echo "imagegen: ${user} cannot be removed" >&2; exit 1; }
    ! getent group "${user}" >/dev/null || groupdel "${user}"
}

silence
open_door
cp "${here}/hygiene" "${here}/paths" "${here}/clean-up.sh" "${run}/"
remove_user
sh "${run}/clean-up.sh" "${run}/hygiene"
systemd-run --quiet --unit=imagegen-halt --property=TimeoutStopSec=60 /bin/sh "${run}/clean-up.sh" "${run}/hygiene" wait
echo "imagegen: finished; the build user is gone"
