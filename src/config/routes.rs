//! Key `routes` of `daemon.yaml`: what was written and what of it makes no sense. Knows no slice and no model.

use serde::{Deserialize, Serialize};

use crate::limits::{ROUTE_MODELS_MAX, ROUTES_MAX};
use crate::names::component;

/// Name of the route that all other slices take: to the model of the key `model`.
pub const DEFAULT_ROUTE: &str = "default";

/// An item with every key that an item may have; `!or_list` marks what may also be a list of such texts. The values
/// serve as examples in sentences.
pub const KNOWN_ITEM: &str = "
name: thin
match:
  modality: !or_list CT
  body_part: !or_list HEAD
  manufacturer: !or_list 'siemens*'
  station: !or_list CT01
  kernel: !or_list 'H3?s'
  thickness_min: 0.5
  thickness_max: 2.5
  folder: !or_list er
  priority: !or_list STAT
models:
  - { name: first, weight: 1.0 }
urgent: false
";

/// One item of `routes`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct RouteSetting {
    pub name: String,
    #[serde(rename = "match")]
    pub rules: MatchSetting,
    pub models: Vec<MemberSetting>,
    pub urgent: bool,
}

/// Key `match` of a route: all of it must hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct MatchSetting {
    pub modality: Option<Texts>,
    pub body_part: Option<Texts>,
    pub manufacturer: Option<Texts>,
    pub station: Option<Texts>,
    pub kernel: Option<Texts>,
    pub thickness_min: Option<f64>,
    pub thickness_max: Option<f64>,
    pub folder: Option<Texts>,
    pub priority: Option<Texts>,
}

/// One text, or several of which any will do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Texts {
    /// One.
    One(String),
    /// Any of these.
    Any(Vec<String>),
}

impl Texts {
    /// All of them.
    pub fn all(&self) -> &[String] {
        match self {
            Texts::One(text) => std::slice::from_ref(text),
            Texts::Any(texts) => texts,
        }
    }
}

/// One item of `models` of a route.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct MemberSetting {
    pub name: String,
    pub weight: f64,
}

impl Default for MemberSetting {
    fn default() -> Self {
        MemberSetting { name: String::new(), weight: 1.0 }
    }
}

impl MatchSetting {
    /// The rules about texts, by key.
    pub fn texts(&self) -> [(&'static str, Option<&Texts>); 7] {
        [
            ("modality", self.modality.as_ref()),
            ("body_part", self.body_part.as_ref()),
            ("manufacturer", self.manufacturer.as_ref()),
            ("station", self.station.as_ref()),
            ("kernel", self.kernel.as_ref()),
            ("folder", self.folder.as_ref()),
            ("priority", self.priority.as_ref()),
        ]
    }

    /// Whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        *self == MatchSetting::default()
    }
}

/// What may name a model: a name, or name/version.
pub fn is_model_name(name: &str) -> bool {
    !name.is_empty() && name.split('/').count() <= 2 && name.split('/').all(|part| component(part) == part)
}

/// What is wrong with a name that is none.
pub const MODEL_NAME_RULE: &str = "must be a name, or name/version, of letters, digits, dots, dashes and underscores";

/// Reports what makes no sense, by key.
pub fn check(routes: &[RouteSetting], report: &mut dyn FnMut(&str, String)) {
    if routes.len() > ROUTES_MAX {
        report("routes", format!("{} routes are not possible; at most {ROUTES_MAX} would be right", routes.len()));
    }
    for (item, route) in routes.iter().enumerate() {
        let (key, before) = (format!("routes[{item}]"), &routes[..item]);
        check_name(&key, &route.name, before, report);
        check_rules(&key, &route.rules, report);
        check_models(&key, &route.models, report);
        if let Some(catcher) = before.iter().find(|other| other.rules.is_empty()) {
            let sentence =
                format!("is never reached: `{}` before it has no `match` and takes everything", catcher.name);
            report(&key, sentence);
        }
    }
}

fn check_name(key: &str, name: &str, before: &[RouteSetting], report: &mut dyn FnMut(&str, String)) {
    let key = format!("{key}.name");
    if component(name) != *name {
        report(&key, "must be a name of letters, digits, dots, dashes and underscores".into());
    } else if name == DEFAULT_ROUTE {
        report(
            &key,
            format!("`{DEFAULT_ROUTE}` is the route of what nothing else matches; another name would be right"),
        );
    } else if before.iter().any(|other| other.name == name) {
        report(&key, format!("`{name}` is the name of a route above; each needs a name of its own"));
    }
}

fn check_rules(key: &str, rules: &MatchSetting, report: &mut dyn FnMut(&str, String)) {
    for (fact, texts) in rules.texts() {
        let Some(texts) = texts.map(Texts::all) else { continue };
        if texts.is_empty() || texts.iter().any(|text| text.trim().is_empty()) {
            let sentence = "must not be empty: a fact that is missing never matches; `*` would match any that is there";
            report(&format!("{key}.match.{fact}"), sentence.into());
        }
    }
    let (min, max) = (rules.thickness_min, rules.thickness_max);
    for (fact, bound) in [("thickness_min", min), ("thickness_max", max)] {
        if bound.is_some_and(|bound| !(bound.is_finite() && bound >= 0.0)) {
            report(&format!("{key}.match.{fact}"), "must be a number of millimetres, 0 or more".into());
        }
    }
    if let Some((min, max)) = min.zip(max)
        && min > max
    {
        report(&format!("{key}.match.thickness_max"), format!("{max} is below thickness_min {min}"));
    }
}

fn check_models(key: &str, models: &[MemberSetting], report: &mut dyn FnMut(&str, String)) {
    if models.is_empty() || models.len() > ROUTE_MODELS_MAX {
        let sentence = format!("{} models are not possible; 1 to {ROUTE_MODELS_MAX} would be right", models.len());
        report(&format!("{key}.models"), sentence);
    }
    for (item, member) in models.iter().enumerate() {
        let key = format!("{key}.models[{item}]");
        if !is_model_name(&member.name) {
            report(&format!("{key}.name"), MODEL_NAME_RULE.into());
        } else if models[..item].iter().any(|other| other.name == member.name) {
            report(&format!("{key}.name"), format!("`{}` stands twice; a larger weight would be right", member.name));
        }
        if !(member.weight.is_finite() && member.weight > 0.0) {
            report(&format!("{key}.weight"), format!("{} is not possible; more than 0 would be right", member.weight));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::yaml::{self, Value};

    fn problems(text: &str) -> Vec<String> {
        let problems = Config::from_text(text).expect_err("must be refused");
        problems.iter().map(|p| format!("{}|{}|{}", p.line.unwrap_or(0), p.key, p.sentence)).collect()
    }

    #[test]
    fn the_known_item_has_every_key_and_no_other() {
        let known = yaml::parse(KNOWN_ITEM).unwrap();
        let empty = RouteSetting { models: vec![MemberSetting::default()], ..RouteSetting::default() };
        let keys = |value: &Value| -> Vec<String> {
            let Value::Mapping(map) = value else { panic!("no mapping") };
            map.keys().map(|key| key.as_str().unwrap().to_owned()).collect()
        };
        let written = yaml::to_value(&empty).unwrap();
        assert_eq!(keys(&known), keys(&written));
        assert_eq!(keys(&known["match"]), keys(&written["match"]));
        assert_eq!(keys(&known["models"][0]), keys(&written["models"][0]));
    }

    #[test]
    fn the_shipped_file_shows_every_key_in_a_comment_that_is_right() {
        let shipped = include_str!("../../daemon.yaml");
        let lines = shipped.lines().skip_while(|line| *line != "#   routes:").take_while(|line| *line != "#");
        let example: String = lines.map(|line| format!("{}\n", line.trim_start_matches("#   "))).collect();
        let config = Config::from_text(&example).unwrap();
        let written = yaml::parse(&example).unwrap();
        let known = yaml::parse(KNOWN_ITEM).unwrap();
        let keys = |value: &Value| -> Vec<String> {
            value.as_mapping().unwrap().keys().map(|key| key.as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(keys(&written["routes"][0]), keys(&known));
        assert_eq!(keys(&written["routes"][0]["match"]), keys(&known["match"]));
        assert_eq!(keys(&written["routes"][0]["models"][0]), keys(&known["models"][0]));
        assert_eq!(config.routes[0].models[1], MemberSetting { name: "thin-b/3".into(), weight: 1.0 });
    }

    #[test]
    fn texts_and_lists_of_texts_are_read() {
        let text = "routes:\n- name: er\n  match: { folder: er, kernel: [H30s, 'H3*'], thickness_min: 1 }\n  models: [{ name: a }, { name: b/2, weight: 3 }]\n  urgent: true\n";
        let config = Config::from_text(text).unwrap();
        let route = &config.routes[0];
        assert_eq!(route.rules.folder.as_ref().unwrap().all(), ["er"]);
        assert_eq!(route.rules.kernel.as_ref().unwrap().all(), ["H30s", "H3*"]);
        assert_eq!((route.rules.thickness_min, route.urgent), (Some(1.0), true));
        assert_eq!(route.models[1], MemberSetting { name: "b/2".into(), weight: 3.0 });
        assert_eq!(route.models[0].weight, 1.0);
    }

    #[test]
    fn misspelt_keys_and_wrong_kinds_are_named_with_their_lines() {
        let text = "routes:\n- name: a\n  match:\n    folders: er\n    station: 12\n    kernel: [H30s, 4]\n  models:\n  - { name: m, wieght: 2 }\n- nam: b\n  models: m\n  urgent: yes please\n";
        assert_eq!(
            problems(text),
            [
                "4|routes[0].match.folders|is unknown; did you mean `folder`?",
                "5|routes[0].match.station|is a number; text such as `CT01`, or a list, would be right",
                "6|routes[0].match.kernel[1]|is a number; text such as `H3?s` would be right",
                "8|routes[0].models[0].wieght|is unknown; did you mean `weight`?",
                "9|routes[1].nam|is unknown; did you mean `name`?",
                "10|routes[1].models|is text; a list such as `- name: first, weight: 1.0` would be right",
                "11|routes[1].urgent|is text; true or false such as `false` would be right",
            ]
        );
    }

    #[test]
    fn values_that_make_no_sense_are_named_with_their_lines() {
        let text = "routes:\n- name: default\n  match:\n    folder: ''\n    body_part: []\n    thickness_min: 3\n    thickness_max: 2\n  models: []\n- name: all\n  models:\n  - { name: m, weight: 0 }\n  - { name: ../m }\n  - name: m\n- name: all\n  match: { station: x, thickness_min: -1 }\n  models:\n  - name: m\n";
        let found = problems(text);
        let heads: Vec<String> =
            found.iter().map(|problem| problem.rsplitn(2, '|').last().unwrap().to_owned()).collect();
        assert_eq!(
            heads,
            [
                "2|routes[0].name",
                "5|routes[0].match.body_part",
                "4|routes[0].match.folder",
                "7|routes[0].match.thickness_max",
                "8|routes[0].models",
                "11|routes[1].models[0].weight",
                "12|routes[1].models[1].name",
                "13|routes[1].models[2].name",
                "14|routes[2].name",
                "15|routes[2].match.thickness_min",
                "14|routes[2]",
            ]
        );
        assert!(found[10].ends_with("is never reached: `all` before it has no `match` and takes everything"));
        assert!(found[7].ends_with("`m` stands twice; a larger weight would be right"));
    }
}
