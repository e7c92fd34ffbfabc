//! The data of training: which slices there are, what they show, who belongs together, what an epoch sees. Knows no
//! pixel, no network and no device.
//!
//! In reading order: [`labels`] reads the label table, [`inventory`] finds the files and matches them, [`split`] parts
//! them by patient (by the method in [`stratify`], kept on disk by [`split_file`]), [`balance`] lists what an epoch sees, after
//! the split and never before, [`augment`] draws crops and mirrors. All chance comes from [`random`] and so from the seed:
//! every list is a pure function of (seed, epoch) and training resumes exactly. [`settings`] holds what can be chosen, [`table`]
//! what all tables have in common.

pub mod augment;
pub mod balance;
pub mod groups;
pub mod inventory;
pub mod labels;
pub mod problems;
pub mod random;
pub mod settings;
pub mod split;
pub mod split_file;
pub mod stratify;
pub mod table;
