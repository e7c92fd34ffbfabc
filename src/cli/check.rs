//! `ichd check`: everything that would keep the daemon from working, at once.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::{Common, explain, say, site};
use crate::config::{Config, Problem, line_of_key, problems_text};
use crate::device::{self, Want};
use crate::error::{Exit, Fatal};
use crate::kernel_cache;
use crate::reject::RejectCode;
use crate::roster::{Roster, Route};

/// Arguments of `ichd check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Says what a file's fate would be, which route it takes and why; or what the code of a rejection means.
    #[arg(long, value_name = "FILE or CODE")]
    explain: Option<PathBuf>,
}

pub fn check(common: &Common, args: &Args) -> Result<(), Fatal> {
    if let Some(what) = &args.explain {
        return explain_one(common, what);
    }
    let file = common.config.clone().unwrap_or_else(|| PathBuf::from("daemon.yaml"));
    let has_file = common.config.is_some() || file.exists();
    let (mut problems, mut facts) = (Vec::new(), Vec::new());
    match if has_file { Config::load(&file) } else { Ok(Config::default()) } {
        Err(error) => problems.extend(error.problems),
        Ok(mut config) => {
            if let Some(device) = &common.device {
                config.device.clone_from(device);
            }
            check_site(&config, &mut problems, &mut facts);
            // What no line causes, such as a device that is missing, keeps none.
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            for problem in problems.iter_mut().filter(|problem| problem.key.starts_with("routes[")) {
                problem.line = Some(line_of_key(&text, &problem.key));
            }
        }
    }
    if common.json {
        let rows: Vec<_> =
            problems.iter().map(|p| json!({"line": p.line, "key": p.key, "sentence": p.sentence})).collect();
        say(
            json!({"file": has_file.then(|| file.display().to_string()), "ok": problems.is_empty(), "problems": rows, "facts": facts}),
        );
    } else {
        for fact in &facts {
            say(format!("ok   {fact}"));
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    Err(Fatal::new(Exit::Config, format!("{} problem(s)\n{}", problems.len(), problems_text(&file, &problems))))
}

fn check_site(config: &Config, problems: &mut Vec<Problem>, facts: &mut Vec<String>) {
    let mut note = |key: &str, found: Result<String, String>| match found {
        Ok(fact) => facts.push(fact),
        Err(sentence) => problems.push(Problem { line: None, key: key.to_owned(), sentence }),
    };
    for (key, folder) in site::folders(config) {
        note(key, check_folder(&folder).map(|fact| format!("{key}: {} {fact}", folder.display())));
    }
    // No start fails for it.
    let cache = check_folder(&config.cache.path)
        .unwrap_or_else(|sentence| format!("{sentence}; compiled kernels are not kept"));
    note("cache.path", Ok(format!("cache.path: {} {cache}", config.cache.path.display())));
    match Roster::load(config) {
        Ok(roster) => {
            for route in roster.routing.routes.iter() {
                note("routes", Ok(route_fact(route)));
            }
        }
        Err(found) => {
            for problem in found {
                note(&problem.key, Err(problem.error.to_string()));
            }
        }
    }
    // What a look compiles is no start's.
    kernel_cache::keep_nothing();
    let chosen = Want::parse(&config.device).and_then(device::choose);
    note("device", chosen.map(|chosen| format!("device: {}", chosen.reason)));
}

/// A route and its models in words.
fn route_fact(route: &Route) -> String {
    let backbones: Vec<&str> = route.ensemble.members().iter().map(|member| member.card.backbone).collect();
    let trained = if !route.ensemble.is_trained() {
        "UNTRAINED: its probabilities mean nothing"
    } else if route.ensemble.members().iter().any(|member| member.card.is_phantom_only()) {
        "trained on SYNTHETIC HEADS ONLY: on patients its probabilities mean nothing"
    } else {
        "trained"
    };
    let urgent = if route.urgent { ", urgent" } else { "" };
    format!("route {}: {} on {}, {trained}{urgent}", route.name, route.ensemble.label(), backbones.join(", "))
}

/// Whether a folder can be written to, or made.
fn check_folder(folder: &Path) -> Result<String, String> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    if folder.is_dir() {
        return match tempfile::Builder::new().prefix(".ichd-").suffix(".tmp").tempfile_in(folder) {
            Ok(_) => Ok("can be written to".into()),
            Err(error) => Err(format!("{} cannot be written to: {error}", folder.display())),
        };
    }
    if folder.exists() {
        return Err(format!("{} is no folder", folder.display()));
    }
    let above = folder.parent().unwrap_or(Path::new("."));
    check_folder(above)
        .map(|_| "will be made".into())
        .map_err(|error| format!("{} cannot be made: {error}", folder.display()))
}

fn explain_one(common: &Common, what: &Path) -> Result<(), Fatal> {
    if let Some(code) = what.to_str().and_then(RejectCode::from_word) {
        say(format!("{code}: {}", code.meaning()));
        return Ok(());
    }
    explain::explain(common, what)
}
