//! Results that lie ready before their files may be told of: written and synced under temporary names, so that nothing waits
//! for the disk once a file has settled. A `Shelf` knows which there are; whether they are used is the recorder's.

use std::collections::HashMap;
use std::path::PathBuf;

use serde_json::Value;

use crate::limits::READY_MAX;

/// A result that is complete but for its name.
#[derive(Clone, Debug, PartialEq)]
pub struct Ready {
    /// What it says.
    pub json: Value,
    /// The file's content.
    pub text: String,
    /// Where that lies by now.
    pub prepared: PathBuf,
}

/// The results that lie ready, by the admission of their file and by the path that they will have.
#[derive(Debug, Default)]
pub struct Shelf {
    files: HashMap<u64, HashMap<String, Ready>>,
    n_ready: usize,
}

impl Shelf {
    /// How many more may lie here: each is a file on the disk.
    pub fn room(&self) -> usize {
        READY_MAX - self.n_ready
    }

    /// Puts one down. Gives back one that lay in its place.
    pub fn put(&mut self, ticket: u64, result: String, ready: Ready) -> Option<Ready> {
        let before = self.files.entry(ticket).or_default().insert(result, ready);
        self.n_ready += usize::from(before.is_none());
        before
    }

    /// Takes one away.
    pub fn take(&mut self, ticket: u64, result: &str) -> Option<Ready> {
        let ready = self.files.get_mut(&ticket)?.remove(result)?;
        self.n_ready -= 1;
        Some(ready)
    }

    /// Takes away what lies here for nothing: a file has its fate.
    pub fn clear(&mut self, ticket: u64) -> Vec<Ready> {
        let left: Vec<Ready> = self.files.remove(&ticket).into_iter().flat_map(HashMap::into_values).collect();
        self.n_ready -= left.len();
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(letter: &str) -> Ready {
        Ready { json: Value::Null, text: letter.into(), prepared: letter.into() }
    }

    #[test]
    fn what_is_put_down_is_taken_or_cleared_away_and_room_comes_back() {
        let mut shelf = Shelf::default();
        assert_eq!((shelf.put(1, "x".into(), ready("a")), shelf.put(1, "y".into(), ready("b"))), (None, None));
        assert_eq!(shelf.put(2, "x".into(), ready("c")), None);
        assert_eq!(shelf.put(1, "y".into(), ready("d")), Some(ready("b")), "one file, one result of a name");
        assert_eq!(shelf.room(), READY_MAX - 3);
        assert_eq!((shelf.take(1, "x"), shelf.take(1, "x"), shelf.take(3, "x")), (Some(ready("a")), None, None));
        assert_eq!((shelf.clear(1), shelf.clear(1)), (vec![ready("d")], vec![]));
        assert_eq!(shelf.take(2, "x"), Some(ready("c")));
        assert_eq!((shelf.room(), shelf.clear(2)), (READY_MAX, vec![]));
    }
}
