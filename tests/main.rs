//! One integration binary: every file here is a module of it, so that it is linked once.

mod cli;
mod decode;
mod models;
mod phantom;
mod pipeline;
mod receiver;
mod routes;
mod support;
