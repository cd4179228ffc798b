#!/usr/bin/env bash
# Whether a service of this machine is up: healthy.sh PORT takes a connection, healthy.sh PORT PATH answers OK by HTTP.
# It costs a few milliseconds; `ray status` takes seconds of a processor.
set -eu
exec 3<> "/dev/tcp/127.0.0.1/$1"
if [ $# -gt 1 ]; then
    printf 'GET %s HTTP/1.0\r\n\r\n' "$2" >&3
    read -r _ status _ <&3
    [ "$status" = 200 ]
fi
