//! CubeCL's own store on this stand-in: what is kept is there for the next process, whatever else happens to the file.

use cubecl_environment::environment::{self, CacheOption, Namespace, Store, StoreOptions};

fn store(namespace: &str) -> Store<String, Vec<u8>> {
    environment::store(StoreOptions::new().storage(Namespace::new(namespace)).cache(CacheOption::Lazy))
}

/// One test, as the environment is the whole process's.
#[test]
fn what_is_kept_is_found_again_and_a_bad_place_costs_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    environment::set_root(folder.path().join("new/folder"));
    environment::activate("ours");
    let value: Vec<u8> = (0..100_000u32).map(|byte| byte as u8).collect();
    let mut kernels = store("cuda/ptx");
    kernels.insert("a".into(), value.clone()).unwrap();
    kernels.insert("b".into(), vec![]).unwrap();
    assert!(kernels.insert("a".into(), vec![1]).is_err(), "the first one stays");
    store("autotune/x").insert("a".into(), vec![7]).unwrap();
    let file = environment::path();
    assert!(file.ends_with("new/folder/ours.db") && file.exists());

    // Another environment knows nothing of it; back again it is there, though nothing of it is in memory.
    environment::activate("theirs");
    assert!(store("cuda/ptx").remove(&"a".into()).is_none());
    environment::activate("ours");
    assert!(store("cuda/ptx").remove(&"a".into()) == Some(value));
    let mut found = Vec::new();
    store("autotune/x").scan(|key, value| found.push((key, value)));
    assert_eq!(found, [("a".to_owned(), vec![7])]);

    // It is SQLite's file, with all that was committed.
    let connection = rusqlite::Connection::open(&file).unwrap();
    let count: i64 = connection.query_row("SELECT count(*) FROM entries", [], |row| row.get(0)).unwrap();
    assert_eq!(count, 3);
    let check: String = connection.query_row("PRAGMA quick_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");

    // A place that cannot be: the store serves from memory.
    let blocked = folder.path().join("blocked");
    std::fs::write(&blocked, "a file, no folder").unwrap();
    environment::set_root(&blocked);
    let mut kernels = store("cuda/ptx");
    kernels.insert("a".into(), vec![9]).unwrap();
    assert_eq!(kernels.remove(&"a".into()), Some(vec![9]));

    // So it does with a file that is no database.
    environment::set_root(folder.path());
    std::fs::write(folder.path().join("damaged.db"), vec![0xa5; 9000]).unwrap();
    environment::activate("damaged");
    let mut kernels = store("cuda/ptx");
    kernels.insert("a".into(), vec![5]).unwrap();
    assert_eq!(kernels.remove(&"a".into()), Some(vec![5]));
}
