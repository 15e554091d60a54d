#!/bin/sh
# Runs the tests of the finished system, on this machine, through the door that finish.sh left open.
# With "check" as argument: only looks whether they can be run, which is better known before a build than after it.
set -eu

# IMAGEGEN_PYTEST is a command with arguments; testinfra is what knows --hosts
# shellcheck disable=SC2086
if ! ${IMAGEGEN_PYTEST} -q -p no:cacheprovider -c /dev/null --hosts=local:// --collect-only \
    "${IMAGEGEN_TESTS}/test_image.py" >/dev/null 2>&1; then
    echo "imagegen: cannot start '${IMAGEGEN_PYTEST}' with testinfra; install pytest-testinfra, or set the variable pytest" >&2
    exit 1
fi
[ "${1-}" != check ] || exit 0

temp=$(mktemp -d)
trap 'ssh -F "${temp}/config" -O exit build 2>/dev/null || :; rm -rf "${temp}"' EXIT
# the host key was made a minute ago, and nobody could tell us what it is; one connection serves all questions
cat >"${temp}/config" <<END
Host *
    StrictHostKeyChecking no
    UserKnownHostsFile /dev/null
    LogLevel ERROR
    IdentitiesOnly yes
    ControlPath ${temp}/master
END

# shellcheck disable=SC2086
${IMAGEGEN_PYTEST} -q --tb=short -p no:cacheprovider --rootdir="${IMAGEGEN_TESTS}" -c /dev/null \
    --hosts="${IMAGEGEN_TARGET}" --ssh-identity-file="${IMAGEGEN_KEY}" --ssh-config="${temp}/config" \
    "${IMAGEGEN_TESTS}/test_image.py"
