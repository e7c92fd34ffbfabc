//! What a result says, and results that are written before their files may be told of. Knows nothing of what is on record.

use serde_json::Value;

use super::Recorder;
use crate::clock::rfc3339;
use crate::ensemble::Answer;
use crate::parcel::{Scored, Work};
use crate::profile::Step;
use crate::results::{SliceResult, Timings, millis, slice_path};
use crate::roster::Route;
use crate::shelf::Ready;

impl Recorder {
    /// Writes the results of files that have no verdict yet, all but their names. Where that cannot be they are written when
    /// their time comes, and what stands in the way is told then.
    pub(super) fn make_ready(&mut self, scored: &Scored) {
        let begun = self.clock.now();
        let slices = scored.works.iter().zip(&scored.answers);
        let early = slices.filter(|(work, answer)| answer.is_finite() && self.hold.waits(&work.origin));
        let results: Vec<(&Work, Value, String)> = early
            .take(self.shelf.room())
            .map(|(work, answer)| {
                let json = self.result(work, answer, self.timings(scored, work), None);
                let text = text(&json);
                (work, json, text)
            })
            .collect();
        if results.is_empty() {
            return;
        }
        let contents: Vec<&[u8]> = results.iter().map(|(.., text)| text.as_bytes()).collect();
        let paths = match self.disk.prepare(&self.results.path, &contents) {
            Ok(paths) => paths,
            Err(error) => return tracing::debug!(%error, "Results could not be prepared."),
        };
        self.profile.add(Step::Results, begun, self.clock.now(), paths.len());
        for ((work, json, text), prepared) in results.into_iter().zip(paths) {
            let ready = Ready { json, text, prepared };
            let before = self.shelf.put(work.origin.ticket, slice_path(&work.slice), ready);
            before.iter().for_each(|before| self.disk.discard(&before.prepared));
        }
    }

    pub(super) fn timings(&self, scored: &Scored, work: &Work) -> Timings {
        let n_slices = scored.works.len().max(1) as u32;
        Timings {
            wait: millis(scored.begun_at.saturating_sub(work.decoded_at)),
            window: millis(scored.window_time / n_slices),
            infer: millis(scored.infer_time / n_slices),
            batch_slices: scored.works.len(),
            ..self.timings_of_file(work)
        }
    }

    pub(super) fn timings_of_file(&self, work: &Work) -> Timings {
        Timings {
            read: millis(work.origin.read_time),
            decode: millis(work.origin.decode_time),
            admitted_to_result: millis(self.clock.now().saturating_sub(work.origin.admitted_at)),
            ..Timings::default()
        }
    }

    pub(super) fn result(&self, work: &Work, answer: &Answer, timings: Timings, duplicate_of: Option<String>) -> Value {
        let created = rfc3339(self.clock.wall());
        let (Route { name: route, ensemble: scorer, .. }, device) = (&self.routes[work.route], &self.device);
        SliceResult { work, answer, route, scorer, device, timings, duplicate_of, created }.to_json()
    }
}

/// A result as its file holds it.
pub(super) fn text(result: &Value) -> String {
    format!("{result:#}\n")
}
