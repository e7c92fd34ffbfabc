//! All models that a configuration names, each loaded once, and which of them serve which route. Knows no device and no
//! slice.

use std::sync::Arc;

use crate::config::{Config, DEFAULT_ROUTE};
use crate::ensemble::{Ensemble, Member};
use crate::model::{self, Model, ModelCard, ModelError};
use crate::route::Rules;

/// Models, and the routes to them.
pub struct Roster {
    /// Every model once.
    pub models: Vec<Model>,
    /// Which slice goes where.
    pub routing: Routing,
}

/// The routes with their models' facts: what the stages share. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Routing {
    /// The rules; their indices are those of `routes`.
    pub rules: Arc<Rules>,
    /// The routes in the order of the settings, the default route last.
    pub routes: Arc<[Route]>,
}

/// A route as the stages use it.
#[derive(Clone, Debug)]
pub struct Route {
    /// Its name.
    pub name: String,
    /// Who scores.
    pub ensemble: Ensemble,
    /// Indices of the members in [`Roster::models`].
    pub models: Vec<usize>,
    /// Whether its batches go first.
    pub urgent: bool,
}

/// A model that cannot be used, and the key that names it.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {error}")]
pub struct RosterError {
    /// As `routes[0].models[1].name`.
    pub key: String,
    /// Why.
    pub error: ModelError,
}

/// Models by the name under which they were asked for.
#[derive(Default)]
struct Loader {
    asked: Vec<(String, Option<usize>)>,
    models: Vec<Model>,
    cards: Vec<Arc<ModelCard>>,
    problems: Vec<RosterError>,
}

impl Roster {
    /// Loads every model that the configuration names.
    ///
    /// # Errors
    /// All models that cannot be used.
    pub fn load(config: &Config) -> Result<Roster, Vec<RosterError>> {
        let mut loader = Loader::default();
        let mut routes = Vec::new();
        for (item, route) in config.routes.iter().enumerate() {
            let wanted = route.models.iter().enumerate().map(|(idx, member)| {
                (format!("routes[{item}].models[{idx}].name"), member.name.as_str(), member.weight)
            });
            routes.extend(loader.route(config, &route.name, route.urgent, wanted));
        }
        let fallback = [("model.name".to_owned(), config.model.name.as_str(), 1.0)];
        routes.extend(loader.route(config, DEFAULT_ROUTE, false, fallback.into_iter()));
        if !loader.problems.is_empty() {
            return Err(loader.problems);
        }
        let routing = Routing { rules: Arc::new(Rules::new(&config.routes)), routes: routes.into() };
        Ok(Roster { models: loader.models, routing })
    }
}

impl Loader {
    /// A route whose models are all there.
    fn route<'a>(
        &mut self,
        config: &Config,
        name: &str,
        urgent: bool,
        wanted: impl Iterator<Item = (String, &'a str, f64)>,
    ) -> Option<Route> {
        let (mut members, mut models) = (Vec::new(), Vec::new());
        let mut is_whole = true;
        for (key, model, weight) in wanted {
            match self.model(config, &key, model) {
                Some(idx) if models.contains(&idx) => {
                    let sentence = "stands twice in this route, once with its version; a larger weight would be right";
                    let error = ModelError { name: model.to_owned(), sentence: sentence.into() };
                    self.problems.push(RosterError { key, error });
                }
                Some(idx) => {
                    members.push(Member { card: Arc::clone(&self.cards[idx]), weight });
                    models.push(idx);
                }
                None => is_whole = false,
            }
        }
        is_whole.then(|| Route { name: name.to_owned(), ensemble: Ensemble::new(name, members), models, urgent })
    }

    /// Index of the model of this name; a problem with it is told once.
    fn model(&mut self, config: &Config, key: &str, name: &str) -> Option<usize> {
        if let Some((_, known)) = self.asked.iter().find(|(asked, _)| asked == name) {
            return *known;
        }
        let found = match model::load_by_name(config, name) {
            Ok(model) => Some(self.keep(model)),
            Err(error) => {
                self.problems.push(RosterError { key: key.to_owned(), error });
                None
            }
        };
        self.asked.push((name.to_owned(), found));
        found
    }

    /// The same model may be asked for with and without its version.
    fn keep(&mut self, model: Model) -> usize {
        let is_same = |card: &Arc<ModelCard>| card.name == model.card.name && card.version == model.card.version;
        self.cards.iter().position(is_same).unwrap_or_else(|| {
            self.cards.push(Arc::new(model.card.clone()));
            self.models.push(model);
            self.models.len() - 1
        })
    }
}

impl Routing {
    /// The route that takes what no rule matches.
    pub fn default_route(&self) -> &Route {
        // `Roster::load` puts it last.
        &self.routes[self.routes.len() - 1]
    }

    /// Whether every model was trained.
    pub fn is_trained(&self) -> bool {
        self.routes.iter().all(|route| route.ensemble.is_trained())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_several_routes_name_is_loaded_once() {
        let text = "routes:\n- { name: a, match: { folder: a }, models: [{ name: untrained, weight: 5 }], urgent: true }\n- { name: b, match: { folder: b }, models: [{ name: untrained }] }\n";
        let roster = Roster::load(&Config::from_text(text).unwrap()).unwrap();
        assert_eq!((roster.models.len(), roster.routing.routes.len()), (1, 3));
        let urgent: Vec<bool> = roster.routing.routes.iter().map(|route| route.urgent).collect();
        assert_eq!(urgent, [true, false, false]);
        let scorer = roster.routing.default_route().ensemble.scorer();
        assert!(roster.routing.routes.iter().all(|route| route.ensemble.scorer() == scorer));
        assert_eq!(roster.routing.default_route().name, "default");
        assert!(!roster.routing.is_trained());
    }

    #[test]
    fn every_model_that_is_missing_is_told_once() {
        let text = "model: { path: /nowhere, name: x }\nroutes:\n- { name: a, match: { folder: a }, models: [{ name: y }, { name: untrained }] }\n- { name: b, models: [{ name: y }, { name: z/3 }] }\n";
        let problems = Roster::load(&Config::from_text(text).unwrap()).err().unwrap();
        let keys: Vec<&str> = problems.iter().map(|problem| problem.key.as_str()).collect();
        assert_eq!(keys, ["routes[0].models[0].name", "routes[1].models[1].name", "model.name"]);
        assert!(problems[0].to_string().starts_with("routes[0].models[0].name: the model y: no version of it lies in"));
    }
}
