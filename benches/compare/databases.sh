#!/bin/bash
# Days of a database, as restow reads it itself and as restic is fed: growth, time, restore, drill, --unpack.
#   databases.sh RESTOW RESTIC SHOP.sql [SCALE=100]
# SHOP.sql is a plain dump of the workload (its first day); SCALE is the one it was made with. Starts a private
# server in a temporary folder and stops it at the end. Prints one line a figure.
set -euo pipefail
restow=$(realpath "$1"); restic=$2; sql=$(realpath "$3"); scale=${4:-100}
bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -1)
work=$(mktemp -d); chmod 755 "$work"; pg=$work/pg; mkdir "$pg"; chown postgres "$pg"
as() { (cd / && runuser -u postgres -- env PGHOST="$pg" PGPORT=5498 PGDATABASE=shop PGUSER=postgres LC_ALL=C.UTF-8 "$@"); }
as "$bin/initdb" -D "$pg/data" -A trust --no-sync >/dev/null
as "$bin/pg_ctl" -D "$pg/data" -w -l "$pg/log" -o "-k $pg -p 5498 -c listen_addresses='' -c fsync=off -c max_wal_size=4GB -c autovacuum=off" start >/dev/null
trap 'as "$bin/pg_ctl" -D "$pg/data" -m immediate stop >/dev/null || true; rm -rf "$work"' EXIT
as createdb -h "$pg" -p 5498 shop
as "$bin/psql" -q -f "$sql" >/dev/null
as "$bin/psql" -q -c 'analyze'
export PGHOST=$pg PGPORT=5498 PGUSER=postgres RESTOW_PASSWORD=x RESTIC_PASSWORD=x RESTOW_CACHE_DIR=$work/cache RESTIC_CACHE_DIR=$work/rcache
dsn() { echo "postgres://postgres@${pg//\//%2F}:5498/$1"; }
cat >"$work/restow.toml" <<T
[source.tables]
type = "postgres"
dsn = "$(dsn shop)"
[source.dump]
type = "postgres"
mode = "dump"
dsn = "$(dsn shop)"
[source.elsewhere]
type = "postgres"
dsn = "$(dsn elsewhere)"
[source.elsewhere-dump]
type = "postgres"
mode = "dump"
dsn = "$(dsn elsewhere)"
T
export RESTOW_CONFIG=$work/restow.toml
for mode in tables dump unpack; do "$restow" -r "$work/$mode" init -q; done
"$restic" -q -r "$work/restic" init
size() { du -sb "$work/$1" | cut -f1; }
now() { date +%s.%N; }
since() { echo "$(now) - $1" | bc; }
# The tools take turns; each line: what, seconds, bytes added.
back_up() { # NAME of the moment, database where it is another
  for mode in tables dump; do
    before=$(size $mode); t=$(now)
    case "${2:-}-$mode" in
      -*) source=$mode ;;
      elsewhere-tables) source=elsewhere ;;
      elsewhere-dump) source=elsewhere-dump ;;
    esac
    "$restow" -q -r "$work/$mode" backup --source "$source"
    printf '%-10s restow %-7s %6.2f s  %12d bytes added\n' "$1" "$mode" "$(since "$t")" $(($(size $mode) - before))
  done
  before=$(size restic); t=$(now)
  "$bin/pg_dump" -Fc -Z0 "${2:-shop}" | "$restic" -q -r "$work/restic" backup --stdin --stdin-filename shop.dump
  printf '%-10s restic         %6.2f s  %12d bytes added\n' "$1" "$(since "$t")" $(($(size restic) - before))
  t=$(now); "$bin/pg_dump" -Fc -Z0 "${2:-shop}" >/dev/null
  printf '%-10s pg_dump alone  %6.2f s\n' "$1" "$(since "$t")"
}
day() {
  e=$((2000000*scale/100)); a=$((25*scale/100))
  as "$bin/psql" -q -v ON_ERROR_STOP=1 <<S
select setseed(0.$1) \g /dev/null
insert into events(at,user_id,session,kind,status,payload,amount) select timestamptz '2026-06-01' + $1*interval '1 day' + i*interval '4 seconds', (random()*200000)::int, md5(random()::text)::uuid,'order','new',
 jsonb_build_object('ref',md5(random()::text),'n',(random()*1000)::int,'ua','Chrome'), (random()*100000)::numeric(12,2) from generate_series(1,$((e/100))) i;
update events set status='done' where id in (select (random()*$e)::bigint from generate_series(1,$((e/200))));
delete from events where id in (select (random()*$e)::bigint from generate_series(1,$((e/500))));
update package set seen=seen+1 where random() < 0.005;
S
  as "$bin/pgbench" -n -c 1 --random-seed="$1" -t $((a*1000)) >/dev/null 2>&1
  as "$bin/psql" -q -c vacuum
}
"$bin/pg_dump" -Fc shop > "$work/z-0"
back_up first
for d in 1 2; do
  day $d; back_up "day $d"
  [ $d = 2 ] || "$bin/pg_dump" -Fc shop > "$work/z-1"
done
as "$bin/psql" -q -c 'cluster events using events_pkey'; back_up cluster
as "$bin/psql" -q -c 'vacuum full pgbench_accounts'; back_up vacuumfull
"$bin/pg_dump" -Fc -Z0 -f "$work/local.dump" shop
for turn in 1 2; do
  as createdb -h "$pg" -p 5498 plain$turn; t=$(now)
  "$bin/pg_restore" -j2 -d plain$turn "$work/local.dump"; echo "pg_restore -j2 from a local file: $(since "$t") s"
  t=$(now); "$restow" -q -r "$work/tables" restore --source tables --into "$(dsn postgres)" --database own$turn --create
  echo "restow restore, tables: $(since "$t") s"
  t=$(now); "$restow" -q -r "$work/dump" restore --source dump --into "$(dsn postgres)" --database dumped$turn --create
  echo "restow restore, dump: $(since "$t") s"
  [ $turn = 2 ] || for name in plain1 dumped1; do as dropdb -h "$pg" -p 5498 $name; done
done
as "$bin/psql" -q -d postgres -c 'alter database own1 rename to elsewhere'
back_up elsewhere elsewhere
t=$(now); "$restow" -r "$work/tables" drill run tables; echo "drill, tables: $(since "$t") s"
for d in 0 1; do
  before=$(size unpack); t=$(now)
  "$restow" -q -r "$work/unpack" backup --stdin --stdin-filename shop.dump --unpack < "$work/z-$d"
  echo "--unpack of pg_dump -Fc, day $d: $(since "$t") s, $(stat -c %s "$work/z-$d") bytes, added $(($(size unpack) - before))"
  "$restow" -q -r "$work/unpack" dump latest shop.dump | cmp - "$work/z-$d" && echo "it comes back to the byte"
done
