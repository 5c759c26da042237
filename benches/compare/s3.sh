#!/usr/bin/env bash
# First and next backup of a dump into SeaweedFS on loopback, against the same on the local disk.
#   benches/compare/s3.sh RESTOW WEED DUMP NEXT_DUMP [RUNS]
set -euo pipefail
restow=$1 weed=$2 dump=$3 next=$4 runs=${5:-3}
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill -9 "$server" 2>/dev/null || true; rm -rf "$work"' EXIT
cat > "$work/s3.json" <<'J'
{"identities":[{"name":"b","credentials":[{"accessKey":"k","secretKey":"s"}],"actions":["Admin","Read","Write","List"]}]}
J
mkdir "$work/data"
"$weed" server -s3 -dir="$work/data" -ip=127.0.0.1 -ip.bind=127.0.0.1 -volume.minFreeSpace=16MiB -volume.max=50 \
  -master.volumeSizeLimitMB=1024 -s3.config="$work/s3.json" -s3.port=18333 -s3.port.iceberg=0 -s3.port.lance=0 \
  -master.port=19333 -volume.port=18080 -filer.port=18888 >"$work/weed.log" 2>&1 &
server=$!
for _ in $(seq 60); do
  echo "s3.bucket.create -name bench" | timeout 10 "$weed" shell -master=127.0.0.1:19333 2>&1 |
    grep -q "created bucket" && break
  sleep 1
done
export AWS_ACCESS_KEY_ID=k AWS_SECRET_ACCESS_KEY=s RESTOW_PASSWORD=x RESTOW_CACHE_DIR=$work/cache
cat "$dump" "$next" >/dev/null
measure() {
  /usr/bin/time -f "$1: %e s wall, %U s user, %S s system, %M KiB" \
    "$restow" -r "$2" -q backup --stdin --stdin-filename dump.sql <"$3"
}
for run in $(seq "$runs"); do
  for place in "$work/local$run" "s3://bench/run$run?endpoint=http://127.0.0.1:18333"; do
    "$restow" -r "$place" -q init
    measure "${place%%:*} first" "$place" "$dump"
    measure "${place%%:*} next " "$place" "$next"
    case $place in
      s3*) /usr/bin/time -f "s3 restore: %e s wall" "$restow" -r "$place" dump latest dump.sql | cmp - "$next" ;;
    esac
  done
  rm -rf "$work/local$run" "$work/cache"
done
