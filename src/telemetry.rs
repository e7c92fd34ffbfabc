//! Logs to standard error, for people or for machines. Knows no message.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// Starts logging. A second call in one process changes nothing.
pub fn start(log: &Log, verbose: u8) {
    let filter = match verbose {
        0 => log.filter.clone(),
        1 => "info,ichd=debug".into(),
        _ => "info,ichd=trace".into(),
    };
    // The libraries below speak of their own affairs; only their warnings matter here.
    let quiet = "burn=warn,cubecl=warn,wgpu=warn,naga=warn,dicom_object=warn";
    let filter = EnvFilter::try_new(format!("{quiet},{filter}")).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let builder = builder.with_ansi(std::io::stderr().is_terminal());
    let started = match log.format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    // Only a second start can fail, and then the first one serves.
    drop(started);
}
