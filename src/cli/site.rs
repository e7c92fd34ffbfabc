//! What several commands do before their work: settings, models, device, folders, ledger.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};

use super::Common;
use crate::clock::SystemClock;
use crate::config::Config;
use crate::device::{self, Chosen, Want};
use crate::disk::{RealDisk, make_folders};
use crate::error::Fatal;
use crate::ledger::{Ledger, LedgerError};
use crate::pipeline::Site;
use crate::roster::Roster;
use crate::supervisor::Supervisor;

/// The settings that a command line asks for: its file, else ./daemon.yaml if there is one, else the defaults.
pub fn settings(common: &Common) -> Result<Config, Fatal> {
    let usual = Path::new("daemon.yaml");
    let mut config = match &common.config {
        Some(path) => Config::load(path).map_err(Fatal::config)?,
        None if usual.exists() => Config::load(usual).map_err(Fatal::config)?,
        None => Config::default(),
    };
    if let Some(device) = &common.device {
        Want::parse(device).map_err(|error| Fatal::new(crate::error::Exit::Usage, format!("--device: {error}")))?;
        config.device.clone_from(device);
    }
    Ok(config)
}

/// The device that the settings ask for.
pub fn device(config: &Config) -> Result<Chosen, Fatal> {
    let want = Want::parse(&config.device).map_err(Fatal::config)?;
    let chosen = device::choose(want).map_err(Fatal::config)?;
    tracing::info!("{}", chosen.reason);
    Ok(chosen)
}

/// Holds the site: no other daemon may work on it.
#[derive(Debug)]
pub struct Lock {
    _file: std::fs::File,
}

/// Takes the site of a ledger for this process.
pub fn lock(ledger: &Path) -> Result<Lock, Fatal> {
    let path: PathBuf = ledger.with_extension("lock");
    let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|error| Fatal::config(format!("{}: {error}", path.display())))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
        Fatal::config(format!(
            "another ichd works on this site (it holds {}); one site takes one daemon",
            path.display()
        ))
    })?;
    Ok(Lock { _file: file })
}

/// Makes the folders, takes the site, opens the ledger, loads the models and chooses the device.
pub fn open(config: Config) -> Result<(Site, Lock), Fatal> {
    for (key, folder) in folders(&config) {
        make_folders(&folder).map_err(|error| Fatal::config(format!("{key}: {}: {error}", folder.display())))?;
    }
    let lock = lock(&config.ledger.path)?;
    let ledger = Ledger::open(&config.ledger.path).map_err(|error| {
        let sentence = format!("{}: {error}", config.ledger.path.display());
        // A restart heals no damage and teaches no schema.
        let is_final = matches!(error, LedgerError::Damaged(_) | LedgerError::Version { .. });
        if is_final { Fatal::config(sentence) } else { Fatal::io(sentence) }
    })?;
    let roster = Roster::load(&config).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        Fatal::config(lines.join("\n"))
    })?;
    tracing::info!(sha256 = config.digest(), "Settings are read.");
    for route in roster.routing.routes.iter() {
        for member in route.ensemble.members() {
            let (model, sha256) = (format!("{}/{}", member.card.name, member.card.version), &member.card.sha256);
            tracing::info!(route = route.name, model, sha256, "A model is loaded.");
        }
    }
    for route in roster.routing.routes.iter().filter(|route| !route.ensemble.is_trained()) {
        let (route, model) = (&route.name, route.ensemble.label());
        tracing::warn!(route, model, "The model is untrained: its probabilities mean nothing. Every result says so.");
    }
    for route in roster.routing.routes.iter() {
        if route.ensemble.members().iter().any(|member| member.card.is_phantom_only()) {
            let route = &route.name;
            tracing::warn!(
                route,
                "phantom_only knows synthetic heads only: on patients its probabilities mean nothing."
            );
        }
    }
    let device = device(&config)?;
    let site = Site {
        config,
        clock: Arc::new(SystemClock::new()),
        disk: Arc::new(RealDisk),
        ledger: Arc::new(ledger),
        roster,
        device,
        supervisor: Arc::new(Supervisor::of_environment()),
    };
    Ok((site, lock))
}

/// Folders that the daemon writes to, by key.
pub fn folders(config: &Config) -> Vec<(&'static str, PathBuf)> {
    let ledger = config.ledger.path.parent().map(Path::to_owned).unwrap_or_default();
    vec![
        ("inbox.path", config.inbox.path.clone()),
        ("inbox.done_path", config.inbox.done_path.clone()),
        ("inbox.rejected_path", config.inbox.rejected_path.clone()),
        ("results.path", config.results.path.clone()),
        ("ledger.path", ledger),
    ]
}
