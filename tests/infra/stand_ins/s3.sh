#!/bin/sh
# Ceph's S3 gateway with one monitor and one object daemon below /data, on port 9000, with the root
# user that MinIO's image takes. A stop is a power cut to the daemons: what was answered is on disk.
set -eu
conf=/etc/ceph/ceph.conf keyring=/data/keyring mon='[v2:127.0.0.1:3300/0,v1:127.0.0.1:6789/0]'
new=
[ -s /data/fsid ] || new=yes
[ -z "$new" ] || python3 -c 'import uuid; print(uuid.uuid4())' > /data/fsid
id=$(cat /data/fsid)

cat > $conf << CONF
[global]
fsid = $id
mon host = $mon
public addr = 127.0.0.1
cluster addr = 127.0.0.1
run dir = /run/ceph
log to file = false
log to stderr = true
admin socket =
keyring = $keyring
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd objectstore = bluestore
osd memory target = 939524096
bluestore block size = 8589934592
bluestore fsck on mount = false
mon allow pool size one = true
mon max pg per osd = 1000
mon data avail crit = 1
mon data avail warn = 1
mon data = /data/mon
osd data = /data/osd
[client.rgw]
rgw frontends = beast port=9000 tcp_nodelay=1
rgw data = /data/rgw
CONF

if [ -n "$new" ]; then
    mkdir -p /data/mon /data/osd /data/rgw
    create=--create-keyring
    for name in mon. client.admin client.rgw osd.0; do
        ceph-authtool $keyring $create --gen-key -n "$name" \
            --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *'
        create=
    done
    cp $keyring /data/osd/keyring
    cp $keyring /data/rgw/keyring
    monmaptool --create --fsid "$id" --addv a "$mon" /data/monmap
    ceph-mon --mkfs -i a --monmap /data/monmap --keyring $keyring
fi
mkdir -p /run/ceph
ceph-mon -i a
if [ -n "$new" ]; then
    ceph osd new "$id" 0
    ceph-osd -i 0 --mkfs --osd-uuid "$id"
fi
ceph-osd -i 0
[ -z "$new" ] || radosgw-admin -n client.rgw user create --uid=root --display-name=root \
    --access-key="$MINIO_ROOT_USER" --secret-key="$MINIO_ROOT_PASSWORD" > /dev/null
exec radosgw -n client.rgw -f
