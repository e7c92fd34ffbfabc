//! Which route a slice takes: rules on its facts, the first that matches wins, and the reasons in words. Knows no file,
//! no model and no device.

use crate::config::{DEFAULT_ROUTE, MatchSetting, RouteSetting};
use crate::slice::Facts;

/// Most letters of a fact in a sentence.
const SHOWN_MAX: usize = 40;

/// Routes in the order in which they are asked. Slices that none of them takes go to the default route, whose index is
/// the number of the others.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    routes: Vec<Rule>,
}

/// The conditions of one route; all of them must hold.
#[derive(Clone, Debug)]
struct Rule {
    name: String,
    urgent: bool,
    conditions: Vec<Condition>,
}

/// One condition on one fact. A fact that is missing never holds.
#[derive(Clone, Debug)]
enum Condition {
    /// A text is like one of these.
    Text { fact: Fact, patterns: Vec<Pattern> },
    /// Millimetres, both ends included.
    Thickness { min: Option<f64>, max: Option<f64> },
}

/// A fact that is a text.
#[derive(Clone, Copy, Debug)]
struct Fact {
    /// The key in `daemon.yaml`.
    key: &'static str,
    of: fn(&Facts) -> Option<&str>,
    /// Whether a rule for a folder holds for the folders in it.
    is_folder: bool,
}

/// The facts that are texts, with their keys.
const TEXT_FACTS: [Fact; 7] = [
    Fact { key: "modality", of: |facts| facts.modality.as_deref(), is_folder: false },
    Fact { key: "body_part", of: |facts| facts.body_part.as_deref(), is_folder: false },
    Fact { key: "manufacturer", of: |facts| facts.manufacturer.as_deref(), is_folder: false },
    Fact { key: "station", of: |facts| facts.station.as_deref(), is_folder: false },
    Fact { key: "kernel", of: |facts| facts.kernel.as_deref(), is_folder: false },
    Fact { key: "folder", of: |facts| facts.folder.as_deref(), is_folder: true },
    Fact { key: "priority", of: |facts| facts.priority.as_deref(), is_folder: false },
];

/// Why a route does or does not match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opinion {
    /// The route's name.
    pub route: String,
    /// Whether all its conditions hold.
    pub matches: bool,
    /// Whether it is the one that is taken.
    pub taken: bool,
    /// The reason.
    pub reason: String,
}

impl Rules {
    /// The rules of the settings.
    pub fn new(routes: &[RouteSetting]) -> Self {
        let rule = |route: &RouteSetting| Rule {
            name: route.name.clone(),
            urgent: route.urgent,
            conditions: conditions(&route.rules),
        };
        Rules { routes: routes.iter().map(rule).collect() }
    }

    /// Index of the route that a slice with these facts takes.
    pub fn choose(&self, facts: &Facts) -> usize {
        self.routes.iter().position(|route| route.matches(facts)).unwrap_or(self.routes.len())
    }

    /// Whether a file in this folder may go first before anything else is known of it: an urgent route asks for the
    /// folder, and no route above takes all of it.
    pub fn is_urgent_folder(&self, folder: &str) -> bool {
        let facts = Facts { folder: Some(folder.to_owned()), ..Facts::default() };
        let asks = |route: &&Rule| {
            let mut of_folder = route.conditions.iter().filter(|condition| condition.is_of_folder()).peekable();
            let takes_all = route.matches(&facts);
            takes_all || (route.urgent && of_folder.peek().is_some() && of_folder.all(|rule| rule.holds(&facts)))
        };
        self.routes.iter().find(asks).is_some_and(|route| route.urgent && !route.conditions.is_empty())
    }

    /// Whether there can be such a folder.
    pub fn has_urgent_folders(&self) -> bool {
        self.routes
            .iter()
            .any(|route| route.urgent && route.conditions.iter().any(|condition| condition.is_of_folder()))
    }

    /// What every route says about a slice with these facts, the default route last.
    pub fn explain(&self, facts: &Facts) -> Vec<Opinion> {
        let chosen = self.choose(facts);
        let opinion = |(idx, route): (usize, &Rule)| {
            let (matches, reason) = route.reason(facts);
            let reason =
                if matches && idx != chosen { format!("{reason}; but a route above was first") } else { reason };
            Opinion { route: route.name.clone(), matches, taken: idx == chosen, reason }
        };
        let mut opinions: Vec<Opinion> = self.routes.iter().enumerate().map(opinion).collect();
        let taken = chosen == self.routes.len();
        let reason = if taken { "no route above matches" } else { "a route above matches" };
        opinions.push(Opinion { route: DEFAULT_ROUTE.into(), matches: taken, taken, reason: reason.into() });
        opinions
    }
}

impl Rule {
    fn matches(&self, facts: &Facts) -> bool {
        self.conditions.iter().all(|condition| condition.holds(facts))
    }

    /// All conditions that fail, or else all that hold.
    fn reason(&self, facts: &Facts) -> (bool, String) {
        let matches = self.matches(facts);
        let decisive = self.conditions.iter().filter(|condition| condition.holds(facts) == matches);
        let words: Vec<String> = decisive.map(|condition| condition.words(facts)).collect();
        (matches, if words.is_empty() { "it has no conditions".into() } else { words.join("; ") })
    }
}

fn conditions(rules: &MatchSetting) -> Vec<Condition> {
    let texts = rules.texts().into_iter().filter_map(|(key, texts)| Some((key, texts?)));
    let text = |(key, texts): (&str, &crate::config::Texts)| {
        let fact = TEXT_FACTS.into_iter().find(|fact| fact.key == key)?;
        Some(Condition::Text { fact, patterns: texts.all().iter().map(|text| Pattern::new(text)).collect() })
    };
    let (min, max) = (rules.thickness_min, rules.thickness_max);
    let thickness = (min.is_some() || max.is_some()).then_some(Condition::Thickness { min, max });
    texts.filter_map(text).chain(thickness).collect()
}

impl Condition {
    fn holds(&self, facts: &Facts) -> bool {
        match self {
            Condition::Text { fact, patterns } => {
                let Some(text) = (fact.of)(facts) else { return false };
                patterns.iter().any(|pattern| if fact.is_folder { pattern.leads(text) } else { pattern.fits(text) })
            }
            Condition::Thickness { min, max } => facts.thickness_mm.is_some_and(|thickness| {
                min.is_none_or(|min| thickness >= min) && max.is_none_or(|max| thickness <= max)
            }),
        }
    }

    fn is_of_folder(&self) -> bool {
        matches!(self, Condition::Text { fact, .. } if fact.is_folder)
    }

    fn words(&self, facts: &Facts) -> String {
        let verb = if self.holds(facts) { "fits" } else { "does not fit" };
        match self {
            Condition::Text { fact, patterns } => {
                let wanted: Vec<String> = patterns.iter().map(|pattern| format!("`{}`", pattern.text)).collect();
                match (fact.of)(facts) {
                    Some(text) => format!("{} {} {verb} {}", fact.key, shown(text), wanted.join(" or ")),
                    None => format!("{} is not known, {} is asked for", fact.key, wanted.join(" or ")),
                }
            }
            Condition::Thickness { min, max } => {
                let bound = |word: &str, bound: &Option<f64>| bound.map(|mm| format!("{word} {mm} mm"));
                let wanted: Vec<String> = bound("at least", min).into_iter().chain(bound("at most", max)).collect();
                match facts.thickness_mm {
                    Some(mm) => format!("thickness {mm} mm {verb} {}", wanted.join(" and ")),
                    None => format!("thickness is not known, {} is asked for", wanted.join(" and ")),
                }
            }
        }
    }
}

/// Untrusted text in a sentence: quoted, short, on one line.
fn shown(text: &str) -> String {
    let start: String = text.chars().take(SHOWN_MAX).collect();
    format!("\"{}\"", start.escape_debug())
}

/// A text with wildcards: `*` for any letters or none, `?` for one. Capitals do not count.
#[derive(Clone, Debug)]
struct Pattern {
    text: String,
    letters: Vec<char>,
}

impl Pattern {
    fn new(text: &str) -> Self {
        Pattern { text: text.to_owned(), letters: folded(text.trim()) }
    }

    /// Whether the whole text is like the pattern.
    fn fits(&self, text: &str) -> bool {
        fits(&self.letters, &folded(text.trim()))
    }

    /// Whether a folder, or one that it lies in, is like the pattern.
    fn leads(&self, folder: &str) -> bool {
        let letters = folded(folder);
        let (pattern, folder) = (without_slashes(&self.letters), without_slashes(&letters));
        let ends = folder.iter().enumerate().filter(|(_, letter)| **letter == '/').map(|(at, _)| at);
        ends.chain([folder.len()]).any(|end| fits(pattern, &folder[..end]))
    }
}

/// Without slashes at either end.
fn without_slashes(mut letters: &[char]) -> &[char] {
    while let ['/', rest @ ..] | [rest @ .., '/'] = letters {
        letters = rest;
    }
    letters
}

fn folded(text: &str) -> Vec<char> {
    text.chars().flat_map(char::to_lowercase).collect()
}

/// Goes on from the last `*` when a letter does not fit: at most pattern times text steps, whatever the pattern.
fn fits(pattern: &[char], text: &[char]) -> bool {
    let (mut in_pattern, mut in_text, mut star) = (0, 0, None);
    while in_text < text.len() {
        match pattern.get(in_pattern) {
            Some('*') => {
                star = Some((in_pattern, in_text));
                in_pattern += 1;
            }
            Some(letter) if *letter == '?' || *letter == text[in_text] => {
                in_pattern += 1;
                in_text += 1;
            }
            _ => {
                let Some((at, from)) = star else { return false };
                star = Some((at, from + 1));
                in_pattern = at + 1;
                in_text = from + 1;
            }
        }
    }
    pattern[in_pattern..].iter().all(|letter| *letter == '*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::{Config, Texts};

    fn rules(text: &str) -> Rules {
        Rules::new(&Config::from_text(text).unwrap().routes)
    }

    fn facts() -> Facts {
        Facts {
            modality: Some("CT".into()),
            body_part: Some("HEAD".into()),
            manufacturer: Some("SIEMENS Healthineers".into()),
            station: Some("CT01".into()),
            kernel: Some("H31s".into()),
            priority: None,
            thickness_mm: Some(5.0),
            folder: Some("er/2026-01-05".into()),
        }
    }

    #[test]
    fn texts_may_have_wildcards_and_capitals_do_not_count() {
        let fits = |pattern: &str, text: &str| Pattern::new(pattern).fits(text);
        for (pattern, text) in [
            ("ct", "CT"),
            ("siemens*", "SIEMENS Healthineers"),
            ("*health*", "SIEMENS Healthineers"),
            ("H3?s", "h31S"),
            ("*", ""),
            ("a*b*c", "aXbbXc"),
            ("é?", "É1"),
        ] {
            assert!(fits(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in
            [("ct", "CTA"), ("H3?s", "H3s"), ("a*b*c", "acb"), ("?", ""), ("", "x"), ("siemens", "SIEMENS AG")]
        {
            assert!(!fits(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn a_folder_rule_holds_for_all_below() {
        let leads = |pattern: &str, folder: &str| Pattern::new(pattern).leads(folder);
        for (pattern, folder) in
            [("er", "er"), ("/er/", "ER/a/b"), ("er/a", "er/a/b"), ("*/stat", "x/y/stat/z"), ("*", ""), ("*", "a")]
        {
            assert!(leads(pattern, folder), "{pattern} {folder}");
        }
        for (pattern, folder) in [("er", "era"), ("er", "x/er"), ("er/a", "er"), ("er", ""), ("*/stat", "stat")] {
            assert!(!leads(pattern, folder), "{pattern} {folder}");
        }
    }

    #[test]
    fn the_first_match_wins_and_every_route_says_why() {
        let rules = rules(
            "routes:\n- { name: stat, match: { priority: STAT }, models: [{ name: a }] }\n- { name: thin, match: { body_part: [HEAD, BRAIN], thickness_max: 2.5 }, models: [{ name: a }] }\n- { name: er, match: { folder: er, kernel: 'h3*' }, models: [{ name: a }] }\n- { name: siemens, match: { manufacturer: 'siemens*' }, models: [{ name: a }] }\n",
        );
        assert_eq!(rules.choose(&facts()), 2);
        let said: Vec<String> = rules
            .explain(&facts())
            .into_iter()
            .map(|o| format!("{} {} {}: {}", o.route, o.matches, o.taken, o.reason))
            .collect();
        assert_eq!(
            said,
            [
                "stat false false: priority is not known, `STAT` is asked for",
                "thin false false: thickness 5 mm does not fit at most 2.5 mm",
                "er true true: kernel \"H31s\" fits `h3*`; folder \"er/2026-01-05\" fits `er`",
                "siemens true false: manufacturer \"SIEMENS Healthineers\" fits `siemens*`; but a route above was first",
                "default false false: a route above matches",
            ]
        );
        let nothing = Facts::default();
        assert_eq!(rules.choose(&nothing), 4);
        let last = rules.explain(&nothing).pop().unwrap();
        assert_eq!(
            (last.route.as_str(), last.taken, last.reason.as_str()),
            ("default", true, "no route above matches")
        );
    }

    #[test]
    fn without_routes_everything_takes_the_default() {
        assert_eq!(Rules::default().choose(&facts()), 0);
        assert_eq!(Rules::default().explain(&facts()).len(), 1);
    }

    #[test]
    fn an_urgent_folder_is_known_before_the_file_is_read() {
        let rules = rules(
            "routes:\n- { name: archive, match: { folder: er/old }, models: [{ name: a }] }\n- { name: stat, match: { priority: STAT }, models: [{ name: a }], urgent: true }\n- { name: er, match: { folder: er, modality: CT }, models: [{ name: a }], urgent: true }\n- { name: ward, match: { folder: ward, station: x }, models: [{ name: a }] }\n",
        );
        let urgent =
            ["er", "er/new", "er/old", "er/old/1", "ward", "", "x"].map(|folder| rules.is_urgent_folder(folder));
        assert_eq!(urgent, [true, true, false, false, false, false, false]);
        assert!(rules.has_urgent_folders());
    }

    #[test]
    fn text_of_a_file_stays_short_and_on_one_line() {
        let facts = Facts { station: Some(format!("a\n\u{1b}{}", "x".repeat(99))), ..Facts::default() };
        let rules = rules("routes: [{ name: a, match: { station: b }, models: [{ name: a }] }]\n");
        let reason = &rules.explain(&facts)[0].reason;
        assert!(reason.starts_with("station \"a\\n\\u{1b}xxx") && reason.len() < 90, "{reason}");
    }

    /// The definition of wildcards, without cleverness.
    fn fits_plainly(pattern: &[char], text: &[char]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            (['*', rest @ ..], _) => {
                fits_plainly(rest, text) || matches!(text, [_, tail @ ..] if fits_plainly(pattern, tail))
            }
            (['?', rest @ ..], [_, tail @ ..]) => fits_plainly(rest, tail),
            ([letter, rest @ ..], [other, tail @ ..]) => letter == other && fits_plainly(rest, tail),
            _ => false,
        }
    }

    fn some_text() -> impl Strategy<Value = Option<String>> {
        prop::option::of("[ab]{1,3}")
    }

    fn some_texts() -> impl Strategy<Value = Option<Texts>> {
        let pattern = "[ab*?]{1,3}";
        prop::option::of(prop_oneof![
            pattern.prop_map(Texts::One),
            prop::collection::vec(pattern, 1..3).prop_map(Texts::Any)
        ])
    }

    fn some_rules() -> impl Strategy<Value = MatchSetting> {
        (some_texts(), some_texts(), some_texts(), prop::option::of(0.0..5.0f64), prop::option::of(0.0..5.0f64))
            .prop_map(|(station, kernel, folder, thickness_min, thickness_max)| MatchSetting {
                station,
                kernel,
                folder,
                thickness_min,
                thickness_max,
                ..MatchSetting::default()
            })
    }

    fn some_facts() -> impl Strategy<Value = Facts> {
        (some_text(), some_text(), some_text(), prop::option::of(0.0..5.0f64)).prop_map(
            |(station, kernel, folder, thickness_mm)| Facts {
                station,
                kernel,
                folder,
                thickness_mm,
                ..Facts::default()
            },
        )
    }

    fn route(rules: MatchSetting) -> RouteSetting {
        RouteSetting { name: "r".into(), rules, ..RouteSetting::default() }
    }

    proptest! {
        #[test]
        fn wildcards_are_as_defined(pattern in "[ab*?]{0,6}", text in "[ab]{0,8}") {
            let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
            prop_assert_eq!(fits(&pattern, &text), fits_plainly(&pattern, &text));
        }

        #[test]
        fn the_first_that_matches_alone_is_taken(all in prop::collection::vec(some_rules(), 0..6), facts in some_facts()) {
            let routes: Vec<RouteSetting> = all.into_iter().map(route).collect();
            let alone = |route: &RouteSetting| Rules::new(std::slice::from_ref(route)).choose(&facts) == 0;
            let expected = routes.iter().position(alone).unwrap_or(routes.len());
            let rules = Rules::new(&routes);
            prop_assert_eq!(rules.choose(&facts), expected);
            let opinions = rules.explain(&facts);
            let taken: Vec<usize> = (0..opinions.len()).filter(|idx| opinions[*idx].taken).collect();
            prop_assert_eq!(taken, vec![expected]);
            for (opinion, route) in opinions.iter().zip(&routes) {
                prop_assert_eq!(opinion.matches, alone(route));
            }
        }

        #[test]
        fn a_missing_fact_never_matches(rules in some_rules(), facts in some_facts(), which in 0usize..4) {
            let mut facts = facts;
            let is_asked = match which {
                0 => { facts.station = None; rules.station.is_some() }
                1 => { facts.kernel = None; rules.kernel.is_some() }
                2 => { facts.folder = None; rules.folder.is_some() }
                _ => { facts.thickness_mm = None; rules.thickness_min.is_some() || rules.thickness_max.is_some() }
            };
            if is_asked {
                prop_assert_eq!(Rules::new(&[route(rules)]).choose(&facts), 1);
            }
        }
    }
}
