//! `ichd check --explain FILE`: the verdict on a file, and which route each of its slices takes and why.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::inspect::Examined;
use super::{Common, say, site};
use crate::config::{Config, DEFAULT_ROUTE, MemberSetting};
use crate::dicom;
use crate::error::Fatal;
use crate::route::{Opinion, Rules};
use crate::slice::{Facts, folder_below};

/// Slices of a file whose facts are the same.
struct Group {
    facts: Facts,
    /// Numbers of the first and last of them in the file, from 1, and how many there are.
    first: usize,
    last: usize,
    n_slices: usize,
}

pub fn explain(common: &Common, file: &Path) -> Result<(), Fatal> {
    let config = site::settings(common)?;
    let examined = Examined::of(&config, file)?;
    let groups = groups(all_facts(&config, &examined, file));
    let rules = Rules::new(&config.routes);
    if common.json {
        let mut answer = examined.to_json();
        answer["routing"] = groups.iter().map(|group| to_json(&config, &rules, group)).collect();
        say(answer);
        return Ok(());
    }
    examined.print();
    if examined.verdict.is_err() && !groups.is_empty() {
        say("A rejected file takes no route. Were it accepted:");
    }
    for group in &groups {
        print(&config, &rules, group);
    }
    Ok(())
}

/// The facts of every slice; of a rejected file those that its header tells, if it can be read.
fn all_facts(config: &Config, examined: &Examined, file: &Path) -> Vec<Facts> {
    let mut facts: Vec<Facts> = match &examined.verdict {
        Ok(slices) => slices.iter().map(|slice| slice.facts.clone()).collect(),
        Err(_) => dicom::read_facts(&examined.bytes, &config.admission).unwrap_or_default(),
    };
    let folder = folder(config, file);
    facts.iter_mut().for_each(|facts| facts.folder.clone_from(&folder));
    facts
}

/// The file's folder below the inbox, however the command line names it.
fn folder(config: &Config, file: &Path) -> Option<String> {
    let whole = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let inbox: [PathBuf; 1] = [whole(&config.inbox.path)];
    folder_below(&inbox, &whole(file))
}

fn groups(all: Vec<Facts>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for (number, facts) in (1..).zip(all) {
        match groups.iter_mut().find(|group| group.facts == facts) {
            Some(group) => (group.last, group.n_slices) = (number, group.n_slices + 1),
            None => groups.push(Group { facts, first: number, last: number, n_slices: 1 }),
        }
    }
    groups
}

/// The models that the settings give to a route.
fn models(config: &Config, route: &str) -> Vec<MemberSetting> {
    let found = config.routes.iter().find(|setting| route != DEFAULT_ROUTE && setting.name == route);
    let fallback = || vec![MemberSetting { name: config.model.name.clone(), weight: 1.0 }];
    found.map_or_else(fallback, |setting| setting.models.clone())
}

fn to_json(config: &Config, rules: &Rules, group: &Group) -> Value {
    let facts = &group.facts;
    let opinions = rules.explain(facts);
    let taken = opinions.iter().find(|opinion| opinion.taken).map(|opinion| opinion.route.as_str());
    let rows: Vec<Value> = opinions
        .iter()
        .map(|opinion| json!({"route": opinion.route, "matches": opinion.matches, "reason": opinion.reason}))
        .collect();
    json!({
        "slices": {"first": group.first, "last": group.last, "count": group.n_slices},
        "facts": {
            "modality": facts.modality, "body_part": facts.body_part, "manufacturer": facts.manufacturer,
            "station": facts.station, "kernel": facts.kernel, "priority": facts.priority,
            "thickness_mm": facts.thickness_mm, "folder": facts.folder,
        },
        "routes": rows,
        "route": taken,
        "models": taken.map(|route| models(config, route)),
    })
}

fn print(config: &Config, rules: &Rules, group: &Group) {
    if group.n_slices > 1 || group.first > 1 {
        say(format!("slices     {} of them, from {} to {} in the file", group.n_slices, group.first, group.last));
    }
    say(format!("facts      {}", facts_text(&group.facts)));
    let opinions = rules.explain(&group.facts);
    for Opinion { route, matches, reason, .. } in &opinions {
        let word = if *matches { "matches" } else { "no match" };
        say(format!("{word:<10} {route}: {reason}"));
    }
    if let Some(taken) = opinions.iter().find(|opinion| opinion.taken) {
        let models = models(config, &taken.route);
        let name = |member: &MemberSetting| match models.len() {
            1 => member.name.clone(),
            _ => format!("{} x {}", member.name, member.weight),
        };
        let names: Vec<String> = models.iter().map(name).collect();
        say(format!("route      {} to {}", taken.route, names.join(" + ")));
    }
}

fn facts_text(facts: &Facts) -> String {
    let text = |key: &str, value: &Option<String>| {
        format!("{key} {}", value.as_ref().map_or("-".into(), |value| value.escape_debug().to_string()))
    };
    let thickness = facts.thickness_mm.map_or("-".into(), |mm| format!("{mm} mm"));
    let folder = match &facts.folder {
        Some(folder) if folder.is_empty() => Some("(the inbox itself)".into()),
        other => other.clone(),
    };
    [
        text("modality", &facts.modality),
        text("body_part", &facts.body_part),
        text("manufacturer", &facts.manufacturer),
        text("station", &facts.station),
        text("kernel", &facts.kernel),
        format!("thickness {thickness}"),
        text("folder", &folder),
        text("priority", &facts.priority),
    ]
    .join(", ")
}
