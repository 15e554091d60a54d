#!/bin/sh
# Runs the tests of the finished system, on this machine, through the door that finish.sh left open.
set -eu

options="-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o IdentitiesOnly=yes"
# IMAGEGEN_PYTEST is a command with arguments
# shellcheck disable=SC2086
if ! ${IMAGEGEN_PYTEST} --version >/dev/null 2>&1; then
    echo "imagegen: cannot start '${IMAGEGEN_PYTEST}'; install pytest and pytest-testinfra, or set the variable pytest" >&2
    exit 1
fi
# shellcheck disable=SC2086
exec ${IMAGEGEN_PYTEST} -q -p no:cacheprovider --rootdir="${IMAGEGEN_TESTS}" -c /dev/null --hosts="${IMAGEGEN_TARGET}" \
    --ssh-identity-file="${IMAGEGEN_KEY}" --ssh-extra-args="${options}" "${IMAGEGEN_TESTS}/test_image.py"
