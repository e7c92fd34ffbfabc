#!/usr/bin/env bash
# Fuzzing on the stable toolchain: builds the targets in fuzz/ with AddressSanitizer and coverage, and runs them from the
# seeds in fuzz/seeds. `cargo fuzz` works in that folder too, with a nightly toolchain.
#
#   tools/fuzz.sh build
#   tools/fuzz.sh run TARGET [LIBFUZZER OPTIONS...]     e.g. run decode -max_total_time=60
#   tools/fuzz.sh all SECONDS                           every target for so long
#   tools/fuzz.sh seeds                                 writes fuzz/seeds anew from tests/data
set -euo pipefail
cd "$(dirname "$0")/.."

targets=(prewalk decode inflate rle jpeg jpegls jpeg2000 config weights)
host=$(rustc -vV | sed -n 's/^host: //p')
folder="${CARGO_TARGET_DIR:-$PWD/fuzz/target}/fuzz"
# What a run finds on its way; the committed seeds are not touched.
corpus="${ICHD_FUZZ_CORPUS:-$folder/corpus}"

build() {
  # What cargo-fuzz passes.
  RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR="$folder" CARGO_INCREMENTAL=0 RUSTFLAGS="--cfg fuzzing -Zsanitizer=address \
    -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Cllvm-args=-simplifycfg-branch-fold-threshold=0" \
    cargo build --quiet --locked --release --manifest-path fuzz/Cargo.toml --target "$host" --bins
}

run() {
  local target=$1
  shift
  mkdir -p "$corpus/$target" "$folder/artifacts/$target"
  local seeds=fuzz/seeds/$target
  [ "$target" != decode ] || seeds=tests/data/dicom
  "$folder/$host/release/$target" "$corpus/$target" "$seeds" -artifact_prefix="$folder/artifacts/$target/" \
    -max_len=16384 -timeout=10 -rss_limit_mb=1024 -malloc_limit_mb=256 -print_final_stats=1 "$@"
}

case "${1:-}" in
  build) build ;;
  run) shift; run "$@" ;;
  all)
    for target in "${targets[@]}"; do
      log=$(mktemp)
      run "$target" -max_total_time="${2:?seconds}" >"$log" 2>&1 || { tail -60 "$log" >&2; exit 1; }
      sed -n "s/^stat::number_of_executed_units: */fuzz $target executions: /p" "$log"
      rm "$log"
    done ;;
  seeds) python3 tools/fuzz_seeds.py ;;
  *) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 64 ;;
esac
