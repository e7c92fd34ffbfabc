//! One integration binary: every file here is a module of it.

mod decode;
