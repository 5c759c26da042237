#!/bin/bash
# Runs the file benchmark side by side and prints the medians of ROUNDS (3) as one table.
#   files.sh DIR TOOL...     TOOL: restow restic borg rustic bupstash tar;  PEERS=/tmp/peers  RESTOW=path of the binary
# DIR gets two point releases of linux-source-6.1 from Debian (about 3 GB). Each tool backs up the older one, the same again, the newer one in its
# place (every time stamp differs, so every file is read), and restores the newer one into an empty folder; RSS is the biggest of all its processes.
# "added" is the growth of the repository folder (du), caches apart. The page cache is warm.
set -euo pipefail
here=$(realpath "$(dirname "$0")"); mkdir -p "$1"; data=$(realpath "$1"); shift
peers=${PEERS:-/tmp/peers}; p=$peers/bin; restow=$(realpath "${RESTOW:-target/release/restow}"); rounds=${ROUNDS:-3}
versions=${VERSIONS:-6.1.190-1 6.1.192-2}
for v in $versions; do
  [ -d "$data/$v" ] || (cd "$data"; apt-get download -qq "linux-source-6.1=$v"; rm -rf x; dpkg -x linux-source-6.1_"$v"_all.deb x; mkdir "$v.new"
    tar -xf x/usr/src/linux-source-6.1.tar.xz -C "$v.new"; mv "$v.new" "$v"; rm -rf x)
done
set -- $versions "$@"; old=$data/$1 new=$data/$2; shift 2
cur=$data/cur; work=$(mktemp -d "$data/work.XXXX"); rows=$work/rows
trap 'sources; rm -rf "$work"' EXIT
# Puts one of the two in the place that is backed up, or both back.
sources() { for v in $old $new; do [ -d "$v" ] || mv "$cur" "$v"; done; [ $# = 0 ] || { mv "$1" "$cur"; find "$cur" -type f -print0 | xargs -0 cat >/dev/null; }; }
size() { du -sb "$repo" | cut -f1; }
run() { local step=$1 before; before=$(size); shift; sync
  /usr/bin/time -f '%e %U %S %M' -o "$work/t" "$@" >/dev/null 2>"$work/err" || { echo "$t $step FAILED: $(tail -3 "$work/err")" >&2; return 0; }
  read -r w u s m < "$work/t"; echo "$t $step $w $u $s $m $(($(size)-before))" >> "$rows"; }
for ((round = 0; round < rounds; round++)); do for t in "$@"; do
  # What is restored stays until the end: ext4 is slow for minutes after many files were deleted (it does not use their inodes again at once).
  repo=$work/repo out=$work/out-$t-$round; mkdir "$repo"; export HOME=$work/home XDG_CACHE_HOME=$work/cache; mkdir "$HOME" "$XDG_CACHE_HOME"; cd "$data"
  export RESTOW_PASSWORD=x RESTOW_REPOSITORY=$repo RESTIC_PASSWORD=x RESTIC_REPOSITORY=$repo BORG_PASSPHRASE=x BORG_REPO=$repo RUSTIC_REPOSITORY=$repo RUSTIC_PASSWORD=x
  export BUPSTASH_REPOSITORY=$repo/r BUPSTASH_KEY=$work/bupstash.key
  case $t in restow) "$restow" init >/dev/null;; restic) "$p/restic" init -q;; borg) "$p/borg" init -e repokey-blake2 >/dev/null 2>&1;; rustic) "$p/rustic" init >/dev/null 2>&1;; bupstash) rm -f "$BUPSTASH_KEY"; "$p/bupstash" new-key -o "$BUPSTASH_KEY"; "$p/bupstash" init;; esac
  for step in first again update; do
    case $step in first) sources "$old";; update) sources; sources "$new";; esac
    case $t in
      restow) run $step "$restow" backup -q cur;;
      restic) run $step "$p/restic" backup -q cur;;
      borg) run $step "$p/borg" create -C zstd,3 ::$step cur;;
      rustic) run $step "$p/rustic" backup cur;;
      bupstash) run $step "$p/bupstash" put -q --send-log "$work/cache/log" name=cur step=$step cur;;
      tar) run $step sh -c "tar -c cur | zstd -3 -T2 -q -o $repo/$step.zst";;
    esac; done
  mkdir "$out"; cd "$out"
  case $t in
    restow) run restore "$restow" restore -q latest --target "$out";;
    restic) run restore "$p/restic" restore -q latest --target "$out";;
    borg) run restore "$p/borg" extract ::update;;
    rustic) run restore "$p/rustic" restore latest "$out";;
    bupstash) run restore "$p/bupstash" restore -q --into "$out" step=update;;
    tar) run restore sh -c "zstd -dc $repo/update.zst | tar -x -C $out";;
  esac
  found=$(find "$out" -type f | wc -l); [ "$found" = "$(find "$cur" -type f | wc -l)" ] || echo "$t restored $found files" >&2
  cd "$data"; sources; rm -rf "$repo" "$HOME" "$XDG_CACHE_HOME"
done; done
python3 "$here/medians.py" "$rows"
