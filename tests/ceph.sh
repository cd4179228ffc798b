#!/bin/bash
# Start Ceph's S3 gateway on loopback (a monitor, an OSD in memory, a gateway; some 1 GB) from Debian's packages, which
# are unpacked into the folder and not installed. Needs apt and dpkg. Stop it with: kill $(cat FOLDER/*.pid)
#   tests/ceph.sh FOLDER [PORT]
#   NORMLOOM_TEST_S3=http://127.0.0.1:PORT pytest tests/store/test_s3_*.py
set -e
folder=$(realpath -m "$1") port=${2:-7480}
root=$folder/root libraries=$folder/root/usr/lib/x86_64-linux-gnu
if [ ! -e "$root/usr/bin/radosgw" ]; then
  mkdir -p "$folder/packages/partial" "$root"
  apt-get install -y --no-install-recommends --download-only -o Dir::Cache::archives="$folder/packages" \
    radosgw ceph-mon ceph-osd ceph-common
  for package in "$folder"/packages/*.deb; do dpkg -x "$package" "$root"; done
fi
export LD_LIBRARY_PATH=$libraries:$libraries/ceph:$root/lib/x86_64-linux-gnu PATH=$root/usr/bin:$PATH
export PYTHONPATH=$root/usr/lib/python3/dist-packages CEPH_CONF=$folder/ceph.conf
rm -rf "$folder"/{mon,osd,rgw,run} && mkdir -p "$folder"/{mon,osd,rgw,run}
cluster=$(cat /proc/sys/kernel/random/uuid) disk=$(cat /proc/sys/kernel/random/uuid)
cat > "$CEPH_CONF" <<END
[global]
fsid = $cluster
mon host = [v1:127.0.0.1:6790]
public network = 127.0.0.0/8
auth cluster required = none
auth service required = none
auth client required = none
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd crush chooseleaf type = 0
mon allow pool size one = true
mon data avail warn = 1
mon data avail crit = 1
osd objectstore = memstore
memstore device bytes = 2147483648
osd memory target = 939524096
mon data = $folder/mon
osd data = $folder/osd
rgw data = $folder/rgw
rgw frontends = beast endpoint=127.0.0.1:$port
plugin dir = $libraries/ceph
erasure code dir = $libraries/ceph/erasure-code
osd class dir = $libraries/rados-classes
crash dir = $folder/run
run dir = $folder/run
admin socket = $folder/run/\$name.\$pid.asok
log file = $folder/run/\$name.log
END
started() { # NAME COMMAND...: start it apart from this shell
  setsid "${@:2}" -f > "$folder/run/$1.out" 2>&1 &
  echo $! > "$folder/$1.pid"
}
monmaptool --create --clobber --fsid "$cluster" --addv a '[v1:127.0.0.1:6790]' "$folder/monmap" > /dev/null
ceph-mon --mkfs -i a --monmap "$folder/monmap"
started mon ceph-mon -i a
timeout 60 ceph osd new "$disk"
ceph-osd --mkfs -i 0 --osd-uuid "$disk"
started osd ceph-osd -i 0
for _ in {1..60}; do timeout 10 ceph osd stat | grep -q "1 up" && break || sleep 1; done
started gateway radosgw -n client.rgw.a
for _ in {1..60}; do curl -so /dev/null "http://127.0.0.1:$port" && break || sleep 1; done
timeout 60 radosgw-admin user create --uid tests --display-name tests --access-key tests \
  --secret-key not-a-real-secret-of-tests > /dev/null
radosgw --version
