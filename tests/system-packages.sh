#!/bin/sh
# Install what tests need beside Python packages, when root and when it is missing.
missing=""
for command in chromium redis-server memcached; do
    command -v "$command" >/dev/null 2>&1 || missing="$missing $command"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "cannot install$missing here: tests that need them will be skipped"
    exit 0
fi
case $missing in *chromium*) missing="$missing fonts-noto-cjk" ;; esac
export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1  # no service is begun: tests begin their own
# shellcheck disable=SC2086 # one word for each package
apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing >/dev/null
