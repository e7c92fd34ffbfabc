//! The sources themselves: where `unsafe` stands and why, and that every test that RELIABILITY.md names exists.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Files that may hold `unsafe` code, and how many blocks, functions and implementations of it.
const UNSAFE: &[(&str, usize)] = &[
    ("kernels/gpu-check/networks.rs", 1), // a graph whose tensors live as long as it does
    ("kernels/src/cpu/bfloat.rs", 11), // AVX512-BF16, behind the question whether there is any, and tiles known to lie within
    ("kernels/src/cpu/conv.rs", 1),    // vectors of a tile that is known to be long enough
    ("kernels/src/cpu/chain.rs", 4),   // rows of a result that one part alone has
    ("kernels/src/cpu/depthwise.rs", 4), // vectors of a row that is known to be long enough
    ("kernels/src/cpu/direct.rs", 3),  // vectors of a tile that is known to lie within
    ("kernels/src/cpu/no_bfloat.rs", 1), // stands for one of the above and is never called
    ("kernels/src/cpu/pointwise.rs", 4), // vectors of a tile that is known to lie within
    ("kernels/src/cpu/pool.rs", 4),    // memory of results that is used again
    ("kernels/src/cpu/pools.rs", 5),   // vectors of a slice that is long enough
    ("kernels/src/cpu/threads.rs", 6), // work that threads share and that ends before its maker goes on
    ("kernels/src/cpu/tile.rs", 10),   // a tile's vectors, behind the question which there are
    ("kernels/src/cpu/window/avx512.rs", 9), // vectors of AVX-512, behind the question whether there is AVX-512
    ("kernels/src/cpu/window/turned.rs", 1), // a function for AVX, behind the question whether there is AVX
    ("kernels/src/cpu/winograd.rs", 3), // vectors of a tile that is known to lie within
    ("kernels/src/gpu/cuda_source.rs", 2), // tests: NVIDIA's compiler, a C library
    ("kernels/src/gpu/window.rs", 1),  // a kernel's launch
    ("kernels/tests/steady.rs", 5),    // tests: the counted heap
    ("src/device.rs", 2),              // whether the driver's and the compiler's library are there
    ("src/device/signature.rs", 2),    // their versions
    ("src/trainer/cache.rs", 1),       // mapped files of the cache
    ("tests/support/heap.rs", 9),      // tests: the counted heap
];

/// Lines above `unsafe` among which its reason must stand.
const REASON_LINES: usize = 8;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Our own sources, by path below the root. `kernels/no-llvm` only has names.
fn sources() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for folder in ["src", "kernels", "plugins", "tests", "fuzz/src", "fuzz/fuzz_targets"] {
        for file in crate::support::files(&root().join(folder)) {
            let name = file.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
            if name.ends_with(".rs") && !name.starts_with("kernels/no-llvm") {
                found.insert(name, fs::read_to_string(&file).unwrap());
            }
        }
    }
    assert!(found.len() > 100, "{} sources", found.len());
    found
}

#[test]
fn unsafe_code_is_listed_and_every_piece_says_why_it_is_sound() {
    let (sources, mut found) = (sources(), BTreeMap::new());
    // In two parts, so that this file holds none.
    let (block, implementation) = (concat!("unsafe", " {"), concat!("unsafe", " impl"));
    let function = concat!("unsafe", " fn");
    for (name, text) in &sources {
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            // A function tells its callers what they must see to. One of a trait is bound by the trait; what one that others
            // cannot call asks for stands at its callers.
            let reason = match () {
                () if code.contains(block) || code.contains(implementation) => "SAFETY",
                () if code.contains(function) && code.contains("pub") => "# Safety",
                () if code.contains(function) => "",
                () => continue,
            };
            *found.entry(name.as_str()).or_insert(0) += 1;
            let above = &lines[at.saturating_sub(REASON_LINES)..at];
            assert!(above.iter().any(|line| line.contains(reason)), "{name}:{}: unsafe without a reason", at + 1);
        }
    }
    assert_eq!(found, UNSAFE.iter().copied().collect(), "found on the left, listed on the right");
    let page = fs::read_to_string(root().join("RELIABILITY.md")).unwrap();
    let section = page.split("\n## Dependencies").nth(1).unwrap().split("\n## ").next().unwrap();
    let on_page: BTreeSet<&str> = section.split('`').skip(1).step_by(2).filter(|word| word.ends_with(".rs")).collect();
    let listed: BTreeSet<&str> = UNSAFE.iter().map(|(name, _)| *name).collect();
    assert_eq!(on_page, listed, "named in RELIABILITY.md on the left, listed here on the right");
}

/// Variables of the environment that make a test longer, or another one, are told where long runs are.
#[test]
fn every_variable_that_tests_listen_to_is_on_the_page() {
    let page = fs::read_to_string(root().join("RELIABILITY.md")).unwrap();
    for (name, text) in sources().iter().filter(|(name, _)| name.starts_with("tests/")) {
        for call in ["number(\"ICHD_", "from_environment(\"ICHD_"] {
            for rest in text.split(call).skip(1) {
                let variable = format!("ICHD_{}", rest.split('"').next().unwrap_or_default());
                assert!(page.contains(&format!("`{variable}")), "{variable} of {name} is not in RELIABILITY.md");
            }
        }
    }
}

/// Names of all tests as `module::test`, with the modules of their own file only.
fn tests() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (name, text) in &sources() {
        let path = Path::new(name).with_extension("");
        let module = path.to_string_lossy().replace('/', "::");
        let module = module.trim_start_matches("tests::").trim_start_matches("src::").trim_end_matches("::mod");
        let module = module.trim_end_matches("::tests");
        let mut is_test = false;
        for line in text.lines().map(str::trim) {
            match line.strip_prefix("fn ").and_then(|rest| rest.split('(').next()) {
                Some(function) if is_test => {
                    found.insert(format!("{module}::{function}"));
                    is_test = false;
                }
                _ => is_test = line == "#[test]" || (is_test && line.starts_with("#[")),
            }
        }
    }
    found
}

#[test]
fn every_test_that_reliability_names_exists_and_no_row_is_missing() {
    let text = fs::read_to_string(root().join("RELIABILITY.md")).unwrap();
    let tests = tests();
    let named: BTreeSet<&str> = text.split('`').skip(1).step_by(2).filter(|word| word.contains("::")).collect();
    assert!(named.len() > 40, "{named:?}");
    let missing: Vec<_> = named.iter().filter(|name| !tests.contains(**name)).collect();
    assert!(missing.is_empty(), "RELIABILITY.md names tests that are not there: {missing:?}");
    for row in 1..=47 {
        let found: Vec<&str> = text.lines().filter(|line| line.starts_with(&format!("| {row} |"))).collect();
        let [line] = found.as_slice() else { panic!("row {row} stands {} times", found.len()) };
        let said = line.contains('`') || line.contains("Not tested here");
        assert!(said && line.split('|').count() == 6, "row {row} has neither a test nor a reason: {line}");
    }
}

/// Versions by name in a lock file.
fn locked(file: &str) -> BTreeMap<String, BTreeSet<String>> {
    let text = fs::read_to_string(root().join(file)).unwrap();
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut name = String::new();
    for line in text.lines() {
        if let Some(value) = line.strip_prefix("name = ") {
            name = value.to_owned();
        } else if let Some(value) = line.strip_prefix("version = ") {
            found.entry(name.clone()).or_default().insert(value.to_owned());
        }
    }
    found
}

#[test]
fn fuzz_targets_are_built_of_what_the_daemon_is_built_of() {
    let (daemon, fuzz) = (locked("Cargo.lock"), locked("fuzz/Cargo.lock"));
    let own = ["\"ichd-fuzz\"", "\"libfuzzer-sys\"", "\"arbitrary\"", "\"derive_arbitrary\""];
    let others: Vec<_> = fuzz
        .iter()
        .filter(|(name, versions)| {
            !own.contains(&name.as_str()) && !daemon.get(*name).is_some_and(|known| versions.is_subset(known))
        })
        .collect();
    assert!(others.is_empty(), "copy Cargo.lock to fuzz/Cargo.lock and build there once: {others:?}");
}
