//! ichd: watches a folder for head-CT DICOM files and writes the probability of hemorrhage for every slice.
//!
//! In reading order: the words ([`slice`], [`reject`], [`parcel`]); the stages in the order of the flow ([`watch`],
//! [`admit`], [`decode`], [`batch`] with [`schedule`], [`infer`], [`record`]) and what wires them ([`pipeline`],
//! [`stage`]); what they share ([`config`], [`route`], [`clock`], [`disk`], [`ledger`], [`recalled`], [`tally`], [`upstream`], [`dispose`],
//! [`patience`], [`room`], [`retention`], [`daily_log`], [`supervisor`], [`watchdog`], [`identity`], [`names`],
//! [`limits`], [`error`], [`telemetry`], [`profile`], [`metrics`], [`flood`]); DICOM ([`dicom`]); models and devices ([`model`], [`ensemble`],
//! [`roster`], [`registry`], [`device`], [`kernel_cache`], [`engine`], [`frugal`]); what comes out ([`results`], [`study`], [`picture`]); synthetic
//! heads ([`phantom`]); training ([`trainer`]); measuring ([`measure`]); the commands ([`cli`]).

pub mod admit;
pub mod ahead;
pub mod batch;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daily_log;
pub mod decode;
pub mod device;
pub mod dicom;
pub mod disk;
pub mod dispose;
pub mod engine;
pub mod ensemble;
pub mod error;
pub mod flood;
pub mod frugal;
pub mod identity;
pub mod infer;
pub mod kernel_cache;
pub mod ledger;
pub mod limits;
pub mod measure;
pub mod metrics;
pub mod model;
pub mod names;
pub mod parcel;
pub mod patience;
pub mod phantom;
pub mod picture;
pub mod pipeline;
pub mod profile;
pub mod recalled;
pub mod record;
pub mod registry;
pub mod reject;
pub mod results;
pub mod retention;
pub mod room;
pub mod roster;
pub mod route;
pub mod schedule;
pub mod settle;
pub mod shelf;
pub mod slice;
pub mod stage;
pub mod study;
pub mod supervisor;
pub mod tally;
pub mod telemetry;
pub mod trainer;
pub mod upload;
pub mod upstream;
pub mod watch;
pub mod watchdog;
pub mod yaml;
