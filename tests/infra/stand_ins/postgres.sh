#!/bin/sh
# PostgreSQL as its own image starts it: POSTGRES_USER, _PASSWORD and _DB make a new cluster.
set -eu
data=/var/lib/postgresql/data
as_postgres() { setpriv --reuid=postgres --regid=postgres --init-groups "$@"; }

if [ ! -s $data/PG_VERSION ]; then
    install -d -o postgres -g postgres -m 700 $data
    password=$(mktemp)
    chown postgres "$password"
    echo "$POSTGRES_PASSWORD" > "$password"
    as_postgres initdb --pgdata=$data --username="$POSTGRES_USER" --pwfile="$password" \
        --encoding=UTF8 --locale=C.UTF-8 --auth-local=trust --auth-host=scram-sha-256
    rm "$password"
    echo "host all all all scram-sha-256" >> $data/pg_hba.conf
    echo "CREATE DATABASE $POSTGRES_DB" | as_postgres postgres --single -D $data postgres
fi
exec setpriv --reuid=postgres --regid=postgres --init-groups postgres -D $data -c "listen_addresses=*"
