//! `ichd run`: the daemon.

use std::time::Instant;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::{Common, site};
use crate::error::Fatal;
use crate::pipeline::{Pipeline, Source};
use crate::stage::Stop;
use crate::telemetry;

pub fn run(common: &Common) -> Result<(), Fatal> {
    let config = site::settings(common)?;
    telemetry::start(&config.log, common.verbose);
    let (inbox, results) = (config.inbox.path.clone(), config.results.path.clone());
    let (site, _lock) = site::open(config)?;
    let model = site.roster.routing.default_route().ensemble.label();
    let begun = Instant::now();
    let pipeline = Pipeline::start(site, Source::Inbox, None)?;
    stop_on_signals(&pipeline.stop())?;
    tracing::info!(inbox = %inbox.display(), results = %results.display(), model, "Ready.");
    let count = pipeline.join()?;
    let secs = begun.elapsed().as_secs_f64();
    let rate = count.slices as f64 / secs;
    tracing::info!("Stopped: {count}, {} slices scored in {secs:.1} s ({rate:.1} a second).", count.slices);
    Ok(())
}

/// SIGTERM and SIGINT voice the wish to stop; what was taken is finished.
pub fn stop_on_signals(stop: &Stop) -> Result<(), Fatal> {
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(|error| Fatal::io(format!("signals: {error}")))?;
    let stop = stop.clone();
    let wait = move || {
        for _ in signals.forever() {
            tracing::info!("Stopping: what was taken is finished first.");
            stop.wish();
        }
    };
    // Lives as long as the process.
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(wait)
        .map_err(|error| Fatal::io(format!("signals: {error}")))?;
    Ok(())
}
