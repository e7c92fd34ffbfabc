//! One integration binary: every file here is a module of it, so that it is linked once.

mod cli;
mod decode;
mod faults;
#[cfg(feature = "cuda")]
mod gpu_check;
mod hostile;
mod models;
mod packaging;
mod phantom;
mod pipeline;
mod privacy;
mod receiver;
mod routes;
mod simulation;
mod support;
mod tidy;
mod trainer;

#[global_allocator]
static HEAP: support::heap::Counting = support::heap::Counting;
