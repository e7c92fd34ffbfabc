//! Training: from a labelled folder to a served model.
//!
//! The data, which know no pixel, no network and no device, in reading order: [`labels`] reads the label table, [`inventory`] finds the files and matches them, [`split`] parts
//! them by patient (by the method in [`stratify`], kept on disk by [`split_file`]), [`balance`] lists what an epoch sees, after
//! the split and never before, [`augment`] draws crops and mirrors. All chance comes from [`random`] and so from the seed:
//! every list is a pure function of (seed, epoch) and training resumes exactly. [`settings`] holds what can be chosen, [`table`]
//! what all tables have in common.
//!
//! The work: [`recipe`] says how training goes, [`matrix`] lists runs to compare, [`cache`] holds the decoded slices, [`dataset`] puts these together,
//! [`batches`] brings them to the device, [`waiting`] tells how long it had none, [`training`] is the loop, [`checkpoint`] keeps what the next steps depend on,
//! [`outcome`] makes the model and what people look at, [`published`] remembers it, [`worst`] shows where the model errs.

pub mod augment;
pub mod balance;
pub mod batches;
pub mod cache;
pub mod checkpoint;
pub mod dataset;
pub mod groups;
pub mod inventory;
pub mod labels;
pub mod matrix;
pub mod outcome;
pub mod problems;
pub mod published;
pub mod random;
pub mod recipe;
pub mod settings;
pub mod split;
pub mod split_file;
pub mod stratify;
pub mod table;
pub mod training;
pub mod waiting;
pub mod worst;
