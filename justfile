# The parts of what `cargo test` runs, one by one, and what takes longer. `just --list` shows them.

# The versions of the tools.
set dotenv-path := ".ci/versions"

default: check test-unit test-journal

# Formatting, lints, the committed header.
check:
    cargo fmt --check
    git ls-files '*.c' '*.cpp' '*.h' ':!include' | xargs clang-format --dry-run -Werror
    cargo clippy --locked --all-targets --all-features -- -D warnings
    cargo test --test header

# clang-tidy over the glue and the C and C++ tests: 3 minutes.
tidy:
    .ci/tidy

# Units and the simulation of the reconciler: seconds.
test-unit:
    cargo test --lib

# The journal alone: seconds.
test-journal:
    cargo test --test journal

# Power loss, damage, faulty disks, all of it: 6 minutes. `cargo test --test storage` looks at a sample.
test-storage:
    timeout 20m cargo test --test storage -- --include-ignored

# The C API and the bridge, under sanitizers and valgrind: 5 minutes.
test-native:
    timeout 20m cargo test --test native -- --include-ignored

# The installed package, the host over libmk_api, the examples: 5 minutes.
test-embed:
    timeout 20m cargo test --test embed -- --include-ignored

# A MediaServer from outside, or the stand-in where there is none: 10 minutes. `just test-e2e restore` runs a part.
test-e2e *filter:
    timeout 30m cargo test --test e2e -- --include-ignored {{filter}}

# A fleet on etcd: 8 minutes. `just test-fleet faults` runs a part; with ZLMJ_FLEET_FAULTS=200, 30 minutes more.
test-fleet *filter:
    timeout 90m cargo test --test fleet -- --include-ignored --nocapture {{filter}}

# The rules of placement, on 1,000 nodes with 100,000 cameras and 10,000 events.
simulate:
    timeout 30m cargo run --release --package zlm-journal-fleet -- simulate --events 10000

# Each fuzz target for so many seconds.
fuzz seconds="60":
    ZLMJ_FUZZ_SEC={{seconds}} timeout 2h cargo test --test fuzz_smoke -- --include-ignored

# An hour of 5,000 proxies, a third off and a third coming and going, with 200 times kill -9.
soak seconds="3600" proxies="5000" kills="200":
    ZLMJ_FLOW_SEC={{seconds}} ZLMJ_FLOW_PROXIES={{proxies}} ZLMJ_FLOW_KILLS={{kills}} timeout 3h cargo test --test e2e -- --ignored flow --nocapture

# Races of calls on one key, for so many seconds.
schedules seconds="600":
    ZLMJ_SCHEDULES_SEC={{seconds}} timeout 2h cargo test --test e2e -- --ignored schedules races --nocapture

# All that `cargo test` leaves out, the slow ones with larger bounds. A test that cannot be run here is a failure.
test-long:
    ZLMJ_NO_SKIP=1 just test-storage test-native test-embed test-e2e
    ZLMJ_NO_SKIP=1 ZLMJ_FLEET_FAULTS=200 ZLMJ_SEED=$(date +%s) just test-fleet
    just simulate
    ZLMJ_SEED=$(date +%s) ZLMJ_CASES=100000 timeout 1h cargo test --lib properties -- --nocapture
    just fuzz 600
    just schedules
    just soak

# Every figure of docs/benchmarks.md, which it writes: an hour on a quiet machine.
bench *which:
    cargo bench --bench ratios -- {{which}}

# Writes include/zlm_journal.h anew.
header:
    ZLMJ_UPDATE_HEADER=1 cargo test --test header

# Licences and advisories of what we depend on.
deny:
    cargo deny --workspace check

# All compiles with the oldest Rust that Cargo.toml promises.
msrv:
    .ci/msrv

# All compiles with the oldest dependencies that Cargo.toml allows.
minimal-versions:
    .ci/minimal-versions

# Installs the tools that cargo can, in the versions of .ci/versions.
tools:
    cargo install --locked cargo-deny --version "$CARGO_DENY"
    cargo install --locked cargo-fuzz --version "$CARGO_FUZZ"
    cargo install --locked just --version "$JUST"
