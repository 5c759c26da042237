#!/usr/bin/env bash
# Runs every fuzz target for some seconds:   fuzz/run.sh [SECONDS=20] [TARGET...]
# Needs cargo-fuzz (cargo install cargo-fuzz). RUSTC_BOOTSTRAP lets a stable compiler build the
# instrumented targets; nothing else of the project needs it.
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:-20}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(ls fuzz_targets | sed 's/\.rs$//')
export RUSTC_BOOTSTRAP=1
for target in "${targets[@]}"; do
  echo "== $target"
  cargo fuzz run --fuzz-dir . --sanitizer none "$target" -- -max_total_time="$seconds" -max_len=65536 -verbosity=0
done
