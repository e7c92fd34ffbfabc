//! `ichd run`: the daemon.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use super::{Common, say, site};
use crate::config::MetricsSetting;
use crate::error::Fatal;
use crate::metrics::{self, MetricsFile};
use crate::pipeline::{Pipeline, Source};
use crate::profile::ProfileReport;
use crate::stage::Stop;
use crate::{flood, telemetry};

/// Arguments of `ichd run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// When it ends, prints where the time went: what each step took, which threads waited, which step is the limit.
    #[arg(long)]
    profile: bool,
}

pub fn run(common: &Common, args: &Args) -> Result<(), Fatal> {
    let config = site::settings(common)?;
    telemetry::start(&config.log, common.verbose);
    let (inbox, results) = (config.inbox.path.clone(), config.results.path.clone());
    let metrics = config.metrics.clone();
    let (site, _lock) = site::open(config)?;
    let device = site.device.name.clone();
    let model = site.roster.routing.default_route().ensemble.label();
    let supervisor = Arc::clone(&site.supervisor);
    let begun = Instant::now();
    let pipeline = Pipeline::start(site, Source::Inbox, None)?;
    let (told, profile) = (Arc::clone(&supervisor), pipeline.profile());
    stop_on_signals(&pipeline.stop(), move || told.stopping())?;
    tracing::info!(inbox = %inbox.display(), results = %results.display(), model, "Ready.");
    supervisor.ready();
    let metrics = write_metrics(metrics, device, &pipeline)?;
    let ended = pipeline.join();
    if let Some(Writing { running, thread }) = metrics {
        drop(running);
        // What it could not write it has told.
        drop(thread.join());
    }
    flood::tell(true);
    if args.profile
        && let Some(report) = profile()
    {
        say_profile(&report, common.json);
    }
    let count = ended?;
    let secs = begun.elapsed().as_secs_f64();
    let rate = count.slices as f64 / secs;
    tracing::info!("Stopped: {count}, {} slices scored in {secs:.1} s ({rate:.1} a second).", count.slices);
    Ok(())
}

/// The thread that writes the metrics. It ends when the sender is gone.
struct Writing {
    running: Sender<()>,
    thread: JoinHandle<()>,
}

/// Starts it, if metrics are wanted.
fn write_metrics(setting: MetricsSetting, device: String, pipeline: &Pipeline) -> Result<Option<Writing>, Fatal> {
    if setting.every_secs == 0 {
        return Ok(None);
    }
    let (tally, profile) = (pipeline.tally(), pipeline.profile());
    let read = move || metrics::text(&device, &tally.count(), profile().as_ref());
    let file = MetricsFile { path: setting.path, every: Duration::from_secs(setting.every_secs) };
    let (running, ended) = bounded(0);
    let thread = std::thread::Builder::new().name("metrics".into()).spawn(move || file.run(read, &ended));
    let thread = thread.map_err(|error| Fatal::io(format!("cannot start the thread metrics: {error}")))?;
    Ok(Some(Writing { running, thread }))
}

/// Prints where the time went.
pub fn say_profile(report: &ProfileReport, is_json: bool) {
    match serde_json::to_string(report) {
        Ok(json) if is_json => say(json),
        _ => say(report),
    }
}

/// SIGTERM and SIGINT voice the wish to stop; what was taken is finished. The second one ends the program as if nobody
/// had listened: nothing is lost by that, the rest is taken again at the next start.
pub fn stop_on_signals(stop: &Stop, first: impl FnOnce() + Send + 'static) -> Result<(), Fatal> {
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(|error| Fatal::io(format!("signals: {error}")))?;
    let stop = stop.clone();
    let wait = move || {
        let mut first = Some(first);
        for signal in signals.forever() {
            match first.take() {
                Some(first) => {
                    stop.wish();
                    first();
                    tracing::info!("Stopping: what was taken is finished first. A second signal ends at once.");
                }
                // It fails for signals that cannot be raised, which these are not.
                None => drop(emulate_default_handler(signal)),
            }
        }
    };
    // Lives as long as the process.
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(wait)
        .map_err(|error| Fatal::io(format!("signals: {error}")))?;
    Ok(())
}
